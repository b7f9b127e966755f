"""Redis dies, is cut off, loses messages, while several nodes are busy: no client sees a gap."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from domain.clock import Clock, SystemClock
from domain.delivery import Delivery
from fanout.bus import Bus
from fanout.redis_bus import RedisBus
from fanout.redis_servers import RedisServers, open_servers
from tests.support.cluster import ClusterNode, Reader, cluster
from tests.support.counting import until
from tests.support.redis import RedisProcess, require_redis

ROOMS = 10


class DroppingBus(RedisBus):
    """Loses one durable message in a hundred on the way to Redis, without a word."""

    lost = 0
    _published = 0

    def publish(
        self,
        channel: str,
        message: bytes,
        *,
        delivery: Delivery = Delivery.DURABLE,
        key: str | None = None,
    ) -> None:
        self._published += 1
        if self._published % 100 == 7:
            self.lost += 1
            return
        super().publish(channel, message, delivery=delivery, key=key)


class Crowd:
    """Everybody is in every room, on every node; everybody sends."""

    def __init__(self, nodes: list[ClusterNode]) -> None:
        self.nodes = nodes
        self.rooms: list[str] = []
        self.readers: list[Reader] = []
        self.sent = 0
        self.stopped = False

    async def gather(self) -> None:
        first = self.nodes[0]
        users = [first.user(f"u{number}") for number in range(len(self.nodes))]
        for node in self.nodes:
            node.people.users = first.people.users
        for _ in range(ROOMS):
            room = await first.open(*users)
            self.rooms.append(room["id"])
        for node in self.nodes:
            for user in users:
                self.readers.append(await Reader.connect(node, user))

    async def talk(self, node: ClusterNode, name: str) -> None:
        """Send to one room after the other until it is enough."""
        who = node.user(name)
        while not self.stopped:
            await node.send(who, self.rooms[self.sent % ROOMS], f"{self.sent}")
            self.sent += 1
            await asyncio.sleep(0.002)

    def whole(self) -> bool:
        """Whether every reader has every event of every room, once, in order."""
        for room in self.rooms:
            stream = f"messages/{room}"
            lists = [reader.seqs(stream) for reader in self.readers]
            longest = max(map(len, lists))
            assert all(seqs == list(range(2, 2 + len(seqs))) for seqs in lists), "gap or disorder"
            if any(len(seqs) != longest for seqs in lists):
                return False
        return True

    @property
    def delivered(self) -> int:
        return sum(
            len(reader.seqs(f"messages/{room}")) for reader in self.readers for room in self.rooms
        )


async def run(
    tmp_path: Path,
    disturb: Callable[[RedisProcess], object],
    kind: Callable[[RedisServers, Clock], RedisBus] = RedisBus,
) -> list[ClusterNode]:
    """Talk, and disturb Redis meanwhile; then all must be whole within ten seconds."""
    require_redis()
    loop = asyncio.get_running_loop()
    with RedisProcess(tmp_path) as redis:
        servers = [open_servers(redis.url) for _ in range(3)]
        buses: list[Callable[[], Bus]] = [partial(kind, each, SystemClock()) for each in servers]
        async with cluster(tmp_path, buses) as nodes:
            crowd = Crowd(nodes)
            await crowd.gather()
            talking = [
                asyncio.create_task(crowd.talk(node, f"u{number}"))
                for number, node in enumerate(nodes)
            ]
            await asyncio.sleep(0.3)
            disturbed = disturb(redis)
            if asyncio.iscoroutine(disturbed):
                await disturbed
            crowd.stopped = True
            await asyncio.gather(*talking)
            ended = loop.time()
            await until(crowd.whole, 10)
            assert crowd.delivered == crowd.sent * len(crowd.readers)
            print(
                f"\n{crowd.sent} messages, {crowd.delivered} deliveries on 3 nodes; missing 0, "
                f"twice 0, out of order 0; whole after {loop.time() - ended:.2f} s; repaired streams "
                f"{sum(node.fabric.repair.found for node in nodes)}"
            )
        for each in servers:
            await each.close()
    return nodes


async def test_redis_is_killed_and_comes_back(tmp_path: Path, full: bool) -> None:
    async def disturb(redis: RedisProcess) -> None:
        redis.kill()
        await asyncio.sleep(30 if full else 3)
        redis.start()
        await asyncio.sleep(2)

    await run(tmp_path, disturb)


async def test_listeners_are_cut_off_again_and_again(tmp_path: Path, full: bool) -> None:
    async def disturb(redis: RedisProcess) -> None:
        for _ in range(30 if full else 4):
            redis.drop_listeners()
            await asyncio.sleep(1 if full else 0.7)

    await run(tmp_path, disturb)


async def test_one_message_in_a_hundred_is_lost(tmp_path: Path, full: bool) -> None:
    buses: list[DroppingBus] = []

    def dropping(servers: RedisServers, clock: Clock) -> RedisBus:
        buses.append(DroppingBus(servers, clock))
        return buses[-1]

    async def disturb(redis: RedisProcess) -> None:
        # How many messages that is in a time depends on what else the machine does.
        await until(lambda: sum(bus.lost for bus in buses) > (100 if full else 10), 50)

    await run(tmp_path, disturb, dropping)
    print(f"lost on purpose: {sum(bus.lost for bus in buses)}")


async def test_redis_stands_still_for_a_while(tmp_path: Path) -> None:
    async def disturb(redis: RedisProcess) -> None:
        redis.pause()
        await asyncio.sleep(6)
        redis.go_on()
        await asyncio.sleep(1)

    await run(tmp_path, disturb)


async def test_hearing_again_within_two_seconds(tmp_path: Path) -> None:
    require_redis()
    loop = asyncio.get_running_loop()
    with RedisProcess(tmp_path) as redis:
        servers = open_servers(redis.url)
        async with cluster(tmp_path, [lambda: RedisBus(servers, SystemClock())]) as (node,):
            bus = node.bus
            assert isinstance(bus, RedisBus)
            await until(lambda: bus.hearing)
            redis.kill()
            await until(lambda: not bus.hearing)
            await asyncio.sleep(3)
            redis.start()
            back = loop.time()
            await until(lambda: bus.hearing)
            took = loop.time() - back
            print(f"\nheard again after {took:.2f} s")
            assert took < 2
        await servers.close()
