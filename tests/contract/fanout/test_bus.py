"""Every sentence of `fanout.bus.Bus`, over every bus. Where there is but one node, what would be
published to others goes nowhere; that too is tested.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from domain.clock import SystemClock
from domain.delivery import Delivery
from domain.errors import Unavailable
from fanout.bus import Bus, LocalBus
from fanout.redis.bus import RedisBus
from fanout.redis.outbox import Outbox
from fanout.redis.servers import open_servers
from tests.support.counting import until
from tests.support.door import door
from tests.support.redis import BEFORE_SEVEN, RedisProcess, require_redis


class Ear:
    """A started bus and what it heard."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.heard: list[tuple[str, bytes]] = []
        self.joined: list[str] = []

    async def start(self) -> "Ear":
        await self.bus.start(self._receive, self._joined)
        return self

    def _receive(self, channel: str, message: bytes) -> None:
        self.heard.append((channel, message))

    def _joined(self, channels: Collection[str]) -> None:
        self.joined += channels

    def subscribe(self, *channels: str) -> None:
        for channel in channels:
            self.bus.subscribe(channel)

    async def listens(self, *channels: str) -> None:
        """Subscribe, and wait until it has begun."""
        self.subscribe(*channels)
        await until(lambda: set(channels) <= set(self.joined))

    @property
    def messages(self) -> list[bytes]:
        return [message for _, message in self.heard]


class Nodes:
    """Buses of one cluster, or the bus of a node that is alone."""

    def __init__(self, redis: RedisProcess | None) -> None:
        self.redis = redis
        self._stack = AsyncExitStack()

    async def add(
        self,
        *,
        prefix: str = "parley",
        linger: float = 5.0,
        outbox: Callable[[], Outbox] = Outbox,
        url: str | None = None,
    ) -> Ear:
        """A node; `url`: where it reaches Redis, if by a way of its own."""
        bus: Bus
        if self.redis is None:
            bus = LocalBus()
        else:
            servers = open_servers(url or self.redis.url)
            self._stack.push_async_callback(servers.close)
            bus = RedisBus(servers, SystemClock(), prefix=prefix, linger=linger, outbox=outbox)
        ear = await Ear(bus).start()
        self._stack.push_async_callback(bus.stop)
        return ear

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture(params=["local", "redis", "redis-before-7"])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Nodes]:
    """Each bus under the same tests."""
    if request.param == "local":
        nodes = Nodes(None)
        yield nodes
        await nodes.close()
        return
    require_redis()
    options = BEFORE_SEVEN if request.param == "redis-before-7" else ()
    with RedisProcess(tmp_path, *options) as redis:
        nodes = Nodes(redis)
        yield nodes
        await nodes.close()


def shared(nodes: Nodes) -> RedisProcess:
    """The Redis of several nodes; a bus for one node has nothing more to show."""
    if nodes.redis is None:
        pytest.skip("the bus of a single node: nobody else is there")
    return nodes.redis


async def until_healthy(ear: Ear, wanted: bool) -> None:
    """Wait until the bus says that it hears itself, or no longer."""
    async with asyncio.timeout(15):
        while True:
            try:
                await ear.bus.check()
                healthy = True
            except Unavailable:
                healthy = False
            if healthy is wanted:
                return
            await asyncio.sleep(0.02)


# -- every bus --------------------------------------------------------------------------------


async def test_says_whether_there_can_be_others(nodes: Nodes) -> None:
    assert (await nodes.add()).bus.alone is (nodes.redis is None)


async def test_a_node_does_not_receive_what_it_publishes_itself(nodes: Nodes) -> None:
    here = await nodes.add()
    here.subscribe("messages/a", "messages/b")
    if nodes.redis is not None:
        await here.listens()
        there = await nodes.add()
        await there.listens("messages/b")
        here.bus.publish("messages/a", b"mine")
        there.bus.publish("messages/a", b"theirs")
        await until(lambda: bool(here.heard))
        assert here.messages == [b"theirs"]
    else:
        here.bus.publish("messages/a", b"mine")
        await asyncio.sleep(0)
        assert here.heard == []


async def test_publishing_never_blocks_and_may_be_done_at_any_time(nodes: Nodes) -> None:
    here = await nodes.add()
    for number in range(1000):
        here.bus.publish("messages/a", b"%d" % number)
    here.bus.subscribe("messages/a")
    here.bus.unsubscribe("messages/a")
    here.bus.unsubscribe("messages/a")


async def test_check_returns_if_the_node_hears_itself(nodes: Nodes) -> None:
    here = await nodes.add()

    await until_healthy(here, True)


async def test_reach_returns_how_many_nodes_it_reached_itself_included(nodes: Nodes) -> None:
    here = await nodes.add()
    assert await here.bus.reach("messages/a", b"hello") == 0
    if nodes.redis is None:
        here.subscribe("messages/a")
        assert await here.bus.reach("messages/a", b"hello") == 0
        assert here.heard == []
        return
    there, elsewhere, _ = [await nodes.add() for _ in range(3)]
    for each in (here, there, elsewhere):
        await each.listens("messages/a")
    all_three = (here, there, elsewhere)
    assert await here.bus.reach("messages/a", b"one") == 3
    await until(lambda: all(each.messages == [b"one"] for each in all_three))
    there.bus.unsubscribe("messages/a")
    here.bus.unsubscribe("messages/a")
    assert await here.bus.reach("messages/a", b"two") == 3
    await until(lambda: all(each.messages == [b"one", b"two"] for each in all_three))


async def test_reach_counts_itself_only_if_it_receives_the_message(nodes: Nodes) -> None:
    shared(nodes)
    here = await nodes.add(linger=0.0)
    reached = []
    for number in range(100):
        # In no order that is known: subscribing and publishing go over two connections.
        here.subscribe(f"messages/{number}")
        for message in (b"coming", b"there"):
            reached += [message] * await here.bus.reach(f"messages/{number}", message)
        here.bus.unsubscribe(f"messages/{number}")
        await asyncio.sleep(0)
        reached += [b"leaving"] * await here.bus.reach(f"messages/{number}", b"leaving")
    await here.listens("messages/end")
    reached += [b"end"] * await here.bus.reach("messages/end", b"end")
    await until(lambda: b"end" in here.messages)
    assert here.messages == reached


async def test_reach_counts_a_node_that_leaves_only_if_that_receives_the_message(
    nodes: Nodes,
) -> None:
    redis = shared(nodes)
    async with door(redis.port) as way:
        here = await nodes.add()
        there = await nodes.add(linger=0.0, url=f"redis://127.0.0.1:{way.port}/0")
        await there.listens("messages/a")
        way.hold()
        there.bus.unsubscribe("messages/a")
        await until(lambda: there.bus.channels == 0)  # type: ignore[attr-defined]
        assert await here.bus.reach("messages/a", b"hello") == 1
        way.open()
        await until(lambda: there.heard == [("messages/a", b"hello")])
        await there.bus.stop()


async def test_hears_what_is_subscribed_to_as_far_as_is_known(nodes: Nodes) -> None:
    here = await nodes.add()
    if nodes.redis is None:
        assert here.bus.hears("messages/a")
        return
    assert not here.bus.hears("messages/a")
    here.subscribe("messages/a")
    assert not here.bus.hears("messages/a")
    await until(lambda: bool(here.joined))
    assert here.bus.hears("messages/a")
    assert not here.bus.hears("messages/b")
    here.bus.unsubscribe("messages/a")
    assert not here.bus.hears("messages/a")
    # It comes all the time, but what came meanwhile was not received.
    here.joined.clear()
    here.subscribe("messages/a")
    assert not here.bus.hears("messages/a")
    await until(lambda: bool(here.joined))
    assert here.bus.hears("messages/a")
    nodes.redis.kill()
    await until(lambda: not here.bus.hears("messages/a"))
    with pytest.raises(Unavailable):
        await here.bus.reach("messages/a", b"hello")


async def test_nothing_is_called_after_stop(nodes: Nodes) -> None:
    here = await nodes.add()
    if nodes.redis is None:
        here.subscribe("messages/a")
        await here.bus.stop()
        here.bus.publish("messages/a", b"nobody sends it")
        await asyncio.sleep(0)
        assert (here.heard, here.joined) == ([], [])
        return
    there, witness = await nodes.add(), await nodes.add()
    await witness.listens("messages/a", "messages/new")
    await here.listens("messages/a")
    # Of both calls one is due: to tell who came back, and who has just subscribed.
    here.bus.unsubscribe("messages/a")
    here.subscribe("messages/a", "messages/new")
    there.bus.publish("messages/a", b"on its way")
    await here.bus.stop()
    before = (list(here.heard), list(here.joined))
    here.bus.publish("messages/a", b"nobody sends it")
    there.bus.publish("messages/new", b"late")
    there.bus.publish("messages/a", b"late")
    await until(lambda: witness.messages.count(b"late") == 2)
    # Twice through a Redis that had as much to say to the one that stopped.
    await there.listens("messages/b")
    witness.bus.publish("messages/b", b"end")
    await until(lambda: b"end" in there.messages)
    assert (here.heard, here.joined) == before
    assert b"nobody sends it" not in witness.messages


# -- several nodes ----------------------------------------------------------------------------


async def test_carries_messages_to_every_other_node_that_subscribed(nodes: Nodes) -> None:
    shared(nodes)
    here, one, two, other = [await nodes.add() for _ in range(4)]
    await one.listens("messages/a")
    await two.listens("messages/a")
    await other.listens("messages/b")
    here.bus.publish("messages/a", b'{"any":"bytes\xc3\xa9"}')
    await until(lambda: bool(one.heard and two.heard))
    assert one.heard == two.heard == [("messages/a", b'{"any":"bytes\xc3\xa9"}')]
    here.bus.publish("messages/b", b"for another")
    await until(lambda: bool(other.heard))
    assert len(one.heard) == 1


async def test_messages_on_one_channel_arrive_in_the_order_published(nodes: Nodes) -> None:
    shared(nodes)
    here, there = await nodes.add(), await nodes.add()
    await there.listens("messages/a", "messages/b")
    for number in range(5000):
        here.bus.publish("messages/ab"[:9] + "ab"[number % 2], b"%d" % number)
    await until(lambda: len(there.heard) == 5000)
    for channel, parity in (("messages/a", 0), ("messages/b", 1)):
        got = [int(message) for name, message in there.heard if name == channel]
        assert got == list(range(parity, 5000, 2))


async def test_what_is_published_at_once_goes_in_few_round_trips(nodes: Nodes) -> None:
    redis = shared(nodes)
    here, there = await nodes.add(), await nodes.add()
    await there.listens("messages/a")
    here.bus.publish("messages/a", b"first")
    await until(lambda: bool(there.heard))
    before = _reads(redis)
    for _ in range(400):
        here.bus.publish("messages/a", b"x")
    await until(lambda: len(there.heard) == 401)
    assert _reads(redis) - before < 50


def _reads(redis: RedisProcess) -> int:
    text = redis.say("INFO", "stats").decode()
    found = [line for line in text.splitlines() if line.startswith("total_reads_processed:")]
    return int(found[0].partition(":")[2])


async def test_joined_is_called_soon_after_subscribing(nodes: Nodes) -> None:
    shared(nodes)
    here = await nodes.add()
    here.subscribe(*(f"messages/{number}" for number in range(2000)))
    await until(lambda: len(here.joined) == 2000)
    assert set(here.joined) == {f"messages/{number}" for number in range(2000)}


async def test_from_joined_on_everything_is_heard(nodes: Nodes) -> None:
    shared(nodes)
    here, there = await nodes.add(), await nodes.add()
    for number in range(50):
        await there.listens(f"messages/{number}")
        here.bus.publish(f"messages/{number}", b"%d" % number)
    await until(lambda: len(there.heard) == 50)


@pytest.mark.parametrize("how", ["cut", "restart", "silent"])
async def test_joined_is_called_again_after_the_connection_was_lost(nodes: Nodes, how: str) -> None:
    redis = shared(nodes)
    here, there = await nodes.add(), await nodes.add()
    await there.listens("messages/a", "messages/b")
    there.joined.clear()
    match how:
        case "cut":
            redis.drop_listeners()
        case "restart":
            redis.kill()
            await asyncio.sleep(0.2)
            redis.start()
        case "silent":
            redis.pause()
            async with asyncio.timeout(15):
                while there.bus.hearing:  # type: ignore[attr-defined]
                    await asyncio.sleep(0.05)
            redis.go_on()
    loop = asyncio.get_running_loop()
    back = loop.time()
    await until(lambda: {"messages/a", "messages/b"} <= set(there.joined))
    assert loop.time() - back < 2.0
    here.bus.publish("messages/a", b"again")
    await until(lambda: b"again" in there.messages)


async def test_start_waits_for_no_connection(tmp_path: Path) -> None:
    require_redis()
    redis = RedisProcess(tmp_path)
    nodes = Nodes(redis)
    here, there = await nodes.add(), await nodes.add()
    with pytest.raises(Unavailable):
        await here.bus.check()
    there.subscribe("messages/a")
    here.bus.publish("messages/a", b"waits, and may be too early for the other")
    with redis:
        await until(lambda: there.joined == ["messages/a"])
        here.bus.publish("messages/a", b"hello")
        await until(lambda: b"hello" in there.messages)
        await nodes.close()


async def test_durable_messages_wait_for_a_lost_connection_and_volatile_ones_do_not(
    nodes: Nodes,
) -> None:
    redis = shared(nodes)
    async with door(redis.port) as way:
        # Only the one that publishes loses its connection: what is sent is heard.
        here = await nodes.add(url=f"redis://127.0.0.1:{way.port}/0")
        there = await nodes.add()
        await there.listens("messages/a")
        here.bus.publish("messages/a", b"before")
        await until(lambda: there.messages == [b"before"])
        way.shut()
        await until(lambda: not here.bus.publishing)  # type: ignore[attr-defined]
        for number in range(100):
            here.bus.publish("messages/a", b"%d" % number)
            here.bus.publish("messages/a", b"volatile", delivery=Delivery.VOLATILE)
        way.open()
        # Nor does one that comes in the moment before the connection is back.
        here.bus.publish("messages/a", b"volatile", delivery=Delivery.VOLATILE)
        here.bus.publish("messages/a", b"end")
        await until(lambda: b"end" in there.messages)
        assert there.messages == [b"before", *(b"%d" % number for number in range(100)), b"end"]
        await here.bus.stop()


async def test_what_was_queued_when_the_connection_was_lost_is_sent_but_for_volatile_messages(
    nodes: Nodes,
) -> None:
    redis = shared(nodes)
    async with door(redis.port) as way:
        here = await nodes.add(url=f"redis://127.0.0.1:{way.port}/0")
        there = await nodes.add()
        await there.listens("messages/a")
        here.bus.publish("messages/a", b"before")
        await until(lambda: there.messages == [b"before"])
        way.hold()
        here.bus.publish("messages/a", b"volatile", delivery=Delivery.VOLATILE)
        here.bus.publish("messages/a", b"on its way")
        await until(lambda: here.bus.queued_bytes == 0)  # type: ignore[attr-defined]
        here.bus.publish("messages/a", b"volatile", delivery=Delivery.VOLATILE)
        here.bus.publish("messages/a", b"queued")
        way.shut()
        way.open()
        await until(lambda: b"queued" in there.messages)
        # What was on its way may have arrived, and then comes twice.
        assert dict.fromkeys(there.messages) == dict.fromkeys([b"before", b"on its way", b"queued"])
        await here.bus.stop()


async def test_durable_messages_wait_for_the_first_connection(nodes: Nodes) -> None:
    redis = shared(nodes)
    async with door(redis.port) as way:
        way.shut()
        here = await nodes.add(url=f"redis://127.0.0.1:{way.port}/0")
        there = await nodes.add()
        await there.listens("messages/a")
        here.bus.publish("messages/a", b"durable")
        way.open()
        await until(lambda: there.messages == [b"durable"])
        await here.bus.stop()


async def test_latest_messages_come_when_other_nodes_hear_again(nodes: Nodes) -> None:
    redis = shared(nodes)
    here, there = await nodes.add(), await nodes.add()
    await there.listens("messages/a")
    redis.kill()
    await until(lambda: not here.bus.publishing)  # type: ignore[attr-defined]
    here.bus.publish("messages/a", b"old", delivery=Delivery.LATEST, key="k")
    here.bus.publish("messages/a", b"new", delivery=Delivery.LATEST, key="k")
    here.bus.publish("messages/a", b"other", delivery=Delivery.LATEST, key="l")
    there.joined.clear()
    redis.start()
    await until(lambda: "messages/a" in there.joined)
    here.bus.publish("messages/a", b"end")
    await until(lambda: b"end" in there.messages)
    # Latest values are in no log: they wait for others to hear again.
    await until(lambda: b"other" in there.messages)
    assert there.messages == [b"end", b"new", b"other"]


async def test_a_latest_value_that_waits_for_others_to_hear_gives_way_to_a_newer_one(
    nodes: Nodes,
) -> None:
    redis = shared(nodes)
    here, there = await nodes.add(), await nodes.add()
    await there.listens("messages/a")
    redis.kill()
    await until(lambda: not here.bus.publishing)  # type: ignore[attr-defined]
    here.bus.publish("messages/a", b"old", delivery=Delivery.LATEST, key="k")
    here.bus.publish("messages/a", b"last", delivery=Delivery.LATEST, key="l")
    there.joined.clear()
    redis.start()
    await until(lambda: "messages/a" in there.joined and here.bus.publishing)  # type: ignore[attr-defined]
    here.bus.publish("messages/a", b"new", delivery=Delivery.LATEST, key="k")
    await until(lambda: b"last" in there.messages)
    assert there.messages == [b"new", b"last"]


async def test_when_too_much_waits_the_oldest_of_the_least_class_goes(nodes: Nodes) -> None:
    redis = shared(nodes)
    here = await nodes.add(outbox=lambda: Outbox(max_messages=4))
    there = await nodes.add()
    await there.listens("messages/a")
    here.bus.publish("messages/a", b"before")
    await until(lambda: b"before" in there.messages)
    for name in (b"d1", b"d2", b"d3", b"d4", b"d5"):
        here.bus.publish("messages/a", b"v" + name, delivery=Delivery.VOLATILE)
        here.bus.publish("messages/a", name)
    here.bus.publish("messages/a", b"l", delivery=Delivery.LATEST, key="k")
    here.bus.publish("messages/a", b"d6")
    await until(lambda: b"d6" in there.messages)
    assert there.messages[1:] == [b"d3", b"d4", b"d5", b"d6"]
    assert redis.say("PING")


async def test_unsubscribing_ends_it_at_once_and_the_channel_later(nodes: Nodes) -> None:
    redis = shared(nodes)
    here, there = await nodes.add(), await nodes.add(linger=0.2)
    await there.listens("messages/a", "messages/b")
    there.subscribe("messages/a")
    there.bus.unsubscribe("messages/a")
    here.bus.publish("messages/a", b"one still listens")
    await until(lambda: len(there.heard) == 1)
    there.bus.unsubscribe("messages/a")
    here.bus.publish("messages/a", b"none does")
    here.bus.publish("messages/b", b"end")
    await until(lambda: b"end" in there.messages)
    assert there.messages == [b"one still listens", b"end"]
    await until(lambda: _subscribed(redis) == {b"parley:messages/b"})


async def test_coming_back_while_it_lingers_needs_no_word_to_redis(nodes: Nodes) -> None:
    redis = shared(nodes)
    here, there = await nodes.add(), await nodes.add()
    await there.listens("messages/a")
    before = _subscriptions(redis)
    there.bus.unsubscribe("messages/a")
    there.joined.clear()
    await there.listens("messages/a")
    here.bus.publish("messages/a", b"hello")
    await until(lambda: there.messages == [b"hello"])
    # A word that was said earlier comes before this one.
    await there.listens("messages/b")
    assert _subscriptions(redis) - before == 1


def _subscriptions(redis: RedisProcess) -> int:
    """How many commands there were to begin or end one."""
    text = redis.say("INFO", "commandstats").decode()
    pattern = r"cmdstat_s?(?:un)?subscribe:calls=(\d+)"
    return sum(int(calls) for calls in re.findall(pattern, text))


def _subscribed(redis: RedisProcess) -> set[bytes]:
    found = redis.say("PUBSUB", "SHARDCHANNELS") + redis.say("PUBSUB", "CHANNELS")
    return {line for line in found.splitlines() if line.startswith(b"parley:messages/")}


async def test_stop_sends_what_is_queued(nodes: Nodes) -> None:
    shared(nodes)
    here, there = await nodes.add(), await nodes.add()
    await there.listens("messages/a")
    here.bus.publish("messages/a", b"0")
    await until(lambda: bool(there.heard))
    for number in range(1, 3000):
        here.bus.publish("messages/a", b"%d" % number)
    await here.bus.stop()
    await until(lambda: len(there.heard) == 3000)


async def test_stop_takes_a_bounded_time(nodes: Nodes) -> None:
    redis = shared(nodes)
    here = await nodes.add()
    await here.listens("messages/a")
    redis.pause()
    here.bus.publish("messages/a", b"never taken")
    async with asyncio.timeout(6):
        await here.bus.stop()
    redis.go_on()


async def test_a_node_that_does_not_hear_itself_says_so(nodes: Nodes) -> None:
    redis = shared(nodes)
    here = await nodes.add()
    await here.listens("messages/a")
    redis.kill()
    await until_healthy(here, False)
    redis.start()
    await until_healthy(here, True)


async def test_prefixes_keep_servers_apart(nodes: Nodes) -> None:
    shared(nodes)
    here, there, apart = await nodes.add(), await nodes.add(), await nodes.add(prefix="other")
    await there.listens("messages/a")
    await apart.listens("messages/a")
    here.bus.publish("messages/a", b"hello")
    await until(lambda: bool(there.heard))
    assert apart.heard == []


async def test_what_is_not_understood_is_left_alone(nodes: Nodes) -> None:
    redis = shared(nodes)
    here, there = await nodes.add(), await nodes.add()
    await there.listens("messages/a")
    publish = "SPUBLISH" if redis.say("COMMAND", "INFO", "SPUBLISH") != b"*1\r\n*-1\r\n" else None
    for foreign in ("", "\n", "x\ny", "{}\nz", '{"parley":2,"node":"n"}\nnewer', "[1]\n{}"):
        redis.say(publish or "PUBLISH", "parley:messages/a", foreign)
    here.bus.publish("messages/a", b"ours")
    await until(lambda: bool(there.heard))
    assert there.messages == [b"ours"]
