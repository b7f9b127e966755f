"""Which streams are looked at, when, in how many queries."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from domain.errors import Unavailable
from domain.events import Actor, StoredEvent
from domain.streams import Head
from fanout.hub import Hub, Outgoing
from fanout.redis.sender import end
from fanout.repair import AT_ONCE, Repair
from fanout.sequencer import Sequencer
from tests.support.counting import until


class Listener:
    """A subscriber that counts what it is sent."""

    def __init__(self) -> None:
        self.direct: Callable[[bytes], object] | None = None
        self.closed = False
        self.seen = 0

    def deliver(self, events: Collection[Outgoing]) -> None:
        self.seen += len(events)


class Log:
    """Streams with their last seq."""

    def __init__(self, trimmed: int = 0) -> None:
        self.last: dict[str, int] = {}
        self.trimmed = trimmed
        self.asked: list[tuple[str, list[str]]] = []
        self.broken = 0
        self.failure: Exception = Unavailable()

    async def heads(self, org: str, streams: Sequence[str]) -> Mapping[str, Head]:
        self.asked.append((org, list(streams)))
        if self.broken:
            self.broken -= 1
            raise self.failure
        return {each: Head("e", self.last[each], 0) for each in streams if each in self.last}

    async def fetch(self, org: str, stream: str, after: int) -> Sequence[StoredEvent]:
        first = max(after, self.trimmed) + 1
        return [
            StoredEvent(stream, "e", seq, "x.happened", "t", Actor("u"), b"{}")
            for seq in range(first, self.last[stream] + 1)
        ]


@asynccontextmanager
async def repairing(
    log: Log, *, every: float = 0.2, most: int = 10_000
) -> AsyncIterator[tuple[Sequencer, Repair, list[Collection[object]]]]:
    gaps: list[Collection[object]] = []
    hub = Hub(lambda _namespace, _event, payload: payload)
    sequencer = Sequencer(hub, log.fetch, patience=0.005, on_gap=gaps.append)
    repair = Repair(sequencer, log.heads, every=every, most=most)
    task = asyncio.create_task(repair.run())
    try:
        yield sequencer, repair, gaps
    finally:
        await end(task)


async def test_a_stream_behind_its_log_is_found_and_caught_up() -> None:
    log, listener = Log(), Listener()
    async with repairing(log) as (sequencer, repair, _):
        log.last = {"a/1": 3, "a/2": 5}
        sequencer.join("o", "a/1", listener, Head("e", 3, 0))
        sequencer.join("o", "a/2", listener, Head("e", 2, 0))
        await until(lambda: listener.seen == 3)
        assert repair.found == 1


async def test_many_streams_are_asked_for_together_by_organization() -> None:
    log, listener = Log(), Listener()
    async with repairing(log) as (sequencer, repair, _):
        for number in range(AT_ONCE + 100):
            sequencer.join("o", f"a/{number}", listener, Head("e", 0, 0))
        sequencer.join("p", "b/1", listener, Head("e", 0, 0))
        await until(lambda: repair.queries >= 3)
        assert sorted((org, len(streams)) for org, streams in log.asked[:3]) == [
            ("o", 100),
            ("o", AT_ONCE),
            ("p", 1),
        ]


async def test_of_too_many_the_moving_ones_come_first_and_the_others_take_turns() -> None:
    log, listener = Log(), Listener()
    async with repairing(log, every=0.05, most=10) as (sequencer, _repair, _):
        for number in range(50):
            sequencer.join("o", f"a/{number}", listener, Head("e", 0, 0))
        await until(
            lambda: (
                {each for _, some in log.asked for each in some}
                >= {f"a/{number}" for number in range(50)}
            )
        )
        assert max(len(streams) for _, streams in log.asked) <= 10
        log.last["a/7"] = 0
        for seq in range(1, 6):
            event = StoredEvent("a/7", "e", seq, "x.happened", "t", Actor("u"), b"{}")
            sequencer.publish(event)
            log.last["a/7"] = seq
            log.asked.clear()
            await until(lambda: len(log.asked) >= 2)
            assert any("a/7" in streams for _, streams in log.asked)


@pytest.mark.parametrize("failure", [Unavailable(), RuntimeError("a mistake")])
async def test_what_is_named_is_looked_at_at_once_and_again_when_the_store_is_back(
    failure: Exception,
) -> None:
    log, listener = Log(), Listener()
    log.failure = failure
    async with repairing(log, every=600) as (sequencer, repair, _):
        await asyncio.sleep(0)
        log.last = {"a/1": 4}
        sequencer.join("o", "a/1", listener, Head("e", 0, 0))
        log.broken = 1
        repair.check_soon(["a/1", "nobody/follows-this"])
        await until(lambda: listener.seen == 4)
        assert [streams for _, streams in log.asked] == [["a/1"], ["a/1"]]


async def test_somebody_on_the_way_in_misses_nothing_from_before_the_bus_was_heard() -> None:
    log, listener = Log(), Listener()
    async with repairing(log, every=600) as (sequencer, repair, _):
        await asyncio.sleep(0)
        log.last = {"a/1": 2}
        sequencer.hold("o", "a/1", listener)
        repair.check_soon(["a/1"])
        await until(lambda: repair.queries == 1)
        sequencer.release("a/1", listener, Head("e", 1, 0))
        await until(lambda: listener.seen == 1)


async def test_what_is_no_longer_in_the_log_is_not_skipped_in_silence() -> None:
    log, listener = Log(trimmed=6), Listener()
    async with repairing(log) as (sequencer, _, gaps):
        log.last = {"a/1": 9}
        sequencer.join("o", "a/1", listener, Head("e", 3, 0))
        await until(lambda: bool(gaps))
        assert gaps == [[listener]]


async def test_those_who_keep_coming_do_not_keep_the_round_from_the_others() -> None:
    log, listener = Log(), Listener()
    async with repairing(log) as (sequencer, repair, _):
        log.last = {"a/quiet": 3, "a/joined": 3}
        sequencer.join("o", "a/quiet", listener, Head("e", 3, 0))
        sequencer.join("o", "a/joined", listener, Head("e", 3, 0))
        heads = log.heads

        async def joining(org: str, streams: Sequence[str]) -> Mapping[str, Head]:
            if streams == ["a/joined"]:
                repair.check_soon(["a/joined"])
                await asyncio.sleep(0)
            return await heads(org, streams)

        repair._heads = joining
        repair.check_soon(["a/joined"])
        log.last["a/quiet"] = 4
        await until(lambda: listener.seen == 1)
