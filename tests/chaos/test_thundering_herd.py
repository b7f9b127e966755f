"""A node dies, and all of its clients come to the other one at once, while messages go on."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import StartServer
from tests.support.herd import HerdClient, assemble
from tests.support.herd_people import Person, Room, make_people, open_rooms
from tests.support.mongo_wire import WireProxy, wire_proxy
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.server import ServerProcess

WHOLE_SECONDS = 30.0
"""From the crash until every client is in again and has all that was sent by then."""

READS_PER_CLIENT, READS_PER_CLIENT_OF_MANY = 7.0, 2.0
"""Reads of the store for each client that comes back, at most; the more come, the more they share. The
fewer there are, the more it depends on how close together they come: 300 took 4.4 to 6.1."""

GROUP = 20
"""People in a conversation; each is in two."""

SENDS_PER_SECOND = 20.0

SECRET = "of both nodes " * 3

READS = {"find", "getMore", "count", "aggregate", "distinct"}
"""Commands of MongoDB that read."""


class Sending:
    """Messages at a steady rate, in conversations at random, through one node."""

    def __init__(self, rooms: Sequence[Room], node: ServerProcess) -> None:
        self.heads: dict[str, int] = {}
        """What was acknowledged: by stream, the last seq."""
        self.count = 0
        self._rooms = rooms
        self._node = node
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._stop.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        chance = random.Random(1)
        due = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        async with aiohttp.ClientSession() as session:
            while not self._stop.is_set():
                room, people = chance.choice(self._rooms)
                task = asyncio.create_task(self._send(session, room, chance.choice(people)))
                under_way.add(task)
                due += 1 / SENDS_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                for done in [each for each in under_way if each.done()]:
                    under_way.discard(done)
                    done.result()
            await asyncio.gather(*under_way)

    async def _send(self, session: aiohttp.ClientSession, room: str, sender: Person) -> None:
        self.count += 1
        body = {"client_id": f"m{self.count}", "body": f"message {self.count}"}
        url = f"{self._node.url}/api/v1/conversations/{room}/messages"
        headers = {"Authorization": f"Bearer {sender.token}"}
        status, message = 503, {}
        while status == 503:
            async with session.post(url, json=body, headers=headers) as answer:
                status, message = answer.status, await answer.json()
        assert status == 201, message
        stream = f"messages/{room}"
        self.heads[stream] = max(self.heads.get(stream, 0), message["seq"])


async def _until_whole(herd: Sequence[HerdClient], sending: Sending, began: float) -> list[float]:
    """Wait until all are whole; returns after how many seconds each was."""
    left = dict(enumerate(herd))
    times = []
    while left:
        heads = dict(sending.heads)
        now = time.monotonic() - began
        for number in [
            number for number, each in left.items() if each.ready_at > began and each.reached(heads)
        ]:
            del left[number]
            times.append(now)
        assert now < 300, f"{len(left)} are not whole"
        await asyncio.sleep(0.02)
    return sorted(times)


async def _until_quiet(proxy: WireProxy) -> None:
    """Wait until the store has little to do: what clients are told a little later is told."""
    quiet = 0
    while quiet < 3:
        before = len(proxy.commands)
        await asyncio.sleep(1)
        quiet = quiet + 1 if len(proxy.commands) - before < 10 else 0


def _cpu(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _reads(commands: Sequence[str]) -> int:
    return sum(count for name, count in Counter(commands).items() if name in READS)


@pytest.mark.alone
@pytest.mark.timeout(1800)
async def test_everybody_comes_to_the_other_node(
    mongodb: str, start_server: StartServer, tmp_path: Path, full: bool
) -> None:
    require_redis()
    count = 5000 if full else 300
    async with wire_proxy(mongodb) as (proxy, through):
        with RedisProcess(tmp_path / "redis") as redis, scratch(mongodb) as database:
            shared = {"REDIS_URL": redis.url, "SECRET_KEY": SECRET, "ACCESS_TTL": 3600}
            dying = start_server(**shared, STORE_URL=database.url)
            watched = database.url.replace(mongodb, through)
            staying = await asyncio.to_thread(start_server, **shared, STORE_URL=watched)
            people = await make_people(database.url, SECRET, count)
            rooms = await open_rooms([dying.url, staying.url], people, GROUP, 2)
            reads = await _come_over(people, rooms, dying, staying, proxy)
            await asyncio.to_thread(staying.kill)
    assert reads < (READS_PER_CLIENT_OF_MANY if full else READS_PER_CLIENT)


async def _come_over(
    people: Sequence[Person],
    rooms: Sequence[Room],
    dying: ServerProcess,
    staying: ServerProcess,
    proxy: WireProxy,
) -> float:
    """Kill one node, and see all of its clients whole at the other; returns the reads of the store
    for each of them.
    """
    chance = random.Random(7)
    port = dying.port
    herd = [HerdClient(lambda: port, each.token, chance) for each in people]
    await assemble(herd)
    sending = Sending(rooms, staying)
    proxy.arm(0, "before")
    sending.start()
    await asyncio.sleep(3)
    reads_per_send = _reads(proxy.commands) / sending.count
    try:
        before, proxy.commands[:] = sending.count, []
        await asyncio.to_thread(dying.kill)
        port, began = staying.port, time.monotonic()
        worked, own = _cpu(staying.pid), time.process_time()
        times = await _until_whole(herd, sending, began)
        worked, own = _cpu(staying.pid) - worked, time.process_time() - own
        until_whole, meanwhile = _reads(proxy.commands), sending.count - before
    finally:
        await sending.stop()
    await _until_whole(herd, sending, began)
    await _until_quiet(proxy)
    reads_until_whole = (until_whole - meanwhile * reads_per_send) / len(herd)
    sent = sending.count - before
    reads_in_all = (_reads(proxy.commands) - sent * reads_per_send) / len(herd)
    faults = [fault for each in herd for fault in each.faults]
    for each in herd:
        each.stop()
    print(
        f"\n{len(herd)} clients lost their node and came to the other: half of them whole after "
        f"{times[len(times) // 2]:.1f} s, 99 % after {times[int(len(times) * 0.99)]:.1f} s, all "
        f"after {times[-1]:.1f} s, of which the node worked {worked:.1f} s and its clients "
        f"{own:.1f} s; {sum(each.connects for each in herd)} connections, "
        f"{sum(len(each.refusals) for each in herd)} refused; {meanwhile} messages meanwhile; "
        f"missing, twice or out of order {len(faults)}; reads of the store "
        f"{reads_until_whole:.2f} per client until whole, {reads_in_all:.2f} until all was told, "
        f"beside {reads_per_send:.1f} per message"
    )
    assert faults == []
    assert times[-1] < WHOLE_SECONDS
    return reads_in_all
