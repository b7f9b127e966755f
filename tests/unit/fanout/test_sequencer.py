"""A stream's events leave a node strictly by seq, each once, whatever order they come in."""

import asyncio
from collections.abc import Callable, Collection, Sequence

import orjson
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Unavailable
from domain.events import Actor, StoredEvent
from domain.streams import Head
from fanout.hub import Hub, Outgoing
from fanout.sequencer import Sequencer

STREAM = "messages/c1"
EPOCH = "e1"


class Listener:
    """A subscriber that keeps the seqs it was sent."""

    def __init__(self) -> None:
        self.direct: Callable[[bytes], object] | None = None
        self.closed = False
        self.seqs: list[int] = []

    def deliver(self, events: Collection[Outgoing]) -> None:
        self.seqs += [orjson.loads(event.data)["seq"] for event in events]


class Log:
    """What a store would hold; `broken` calls fail first."""

    def __init__(self, last: int = 0, broken: int = 0) -> None:
        self.last = last
        self.broken = broken
        self.reads = 0

    async def fetch(self, org: str, stream: str, after: int) -> Sequence[StoredEvent]:
        self.reads += 1
        if self.broken:
            self.broken -= 1
            raise Unavailable
        return [event(seq) for seq in range(after + 1, self.last + 1)]


def event(seq: int, epoch: str = EPOCH) -> StoredEvent:
    return StoredEvent(STREAM, epoch, seq, "message.created", "t", Actor("u"), b"{}")


def head(seq: int) -> Head:
    return Head(EPOCH, seq, 0)


def node(log: Log) -> tuple[Hub, Sequencer]:
    hub = Hub(lambda _namespace, _event, payload: payload)
    return hub, Sequencer(hub, log.fetch, patience=0.005)


async def until_seen(listener: Listener, seqs: list[int]) -> None:
    async with asyncio.timeout(5):
        while listener.seqs != seqs:
            assert len(listener.seqs) <= len(seqs), listener.seqs
            await asyncio.sleep(0.002)


async def test_a_member_gets_every_event_once_in_order() -> None:
    _, sequencer = node(Log())
    listener = Listener()
    sequencer.join("o", STREAM, listener, head(0))
    for seq in (1, 2, 2, 4, 3, 1, 5):
        sequencer.publish(event(seq))
    await until_seen(listener, [1, 2, 3, 4, 5])


async def test_what_does_not_come_is_fetched() -> None:
    log = Log(last=4, broken=2)
    _, sequencer = node(log)
    listener = Listener()
    sequencer.join("o", STREAM, listener, head(1))
    sequencer.publish(event(4))
    await until_seen(listener, [2, 3, 4])
    assert log.reads >= 3


async def test_events_between_hold_and_release_are_neither_lost_nor_doubled() -> None:
    _, sequencer = node(Log(last=9))
    early, late = Listener(), Listener()
    sequencer.join("o", STREAM, early, head(3))
    sequencer.hold("o", STREAM, late)
    sequencer.publish(event(4))
    sequencer.publish(event(5))
    sequencer.release(STREAM, late, head(4))
    sequencer.publish(event(6))
    await until_seen(early, [4, 5, 6])
    await until_seen(late, [5, 6])


async def test_a_head_ahead_of_this_node_is_not_delivered_twice() -> None:
    """The log had an event before this node published it."""
    _, sequencer = node(Log(last=5))
    early, late = Listener(), Listener()
    sequencer.join("o", STREAM, early, head(3))
    sequencer.hold("o", STREAM, late)
    sequencer.release(STREAM, late, head(5))
    sequencer.publish(event(4))
    sequencer.publish(event(5))
    sequencer.publish(event(6))
    await until_seen(early, [4, 5, 6])
    await until_seen(late, [6])


async def test_a_head_that_nobody_publishes_is_fetched() -> None:
    _, sequencer = node(Log(last=5))
    early, late = Listener(), Listener()
    sequencer.join("o", STREAM, early, head(3))
    sequencer.join("o", STREAM, late, head(5))
    await until_seen(early, [4, 5])
    assert late.seqs == []


async def test_after_leaving_nothing_comes_and_nothing_is_kept() -> None:
    followed: list[str] = []
    hub = Hub(lambda _namespace, _event, payload: payload)
    sequencer = Sequencer(hub, Log().fetch, on_follow=followed.append, on_unfollow=followed.remove)
    listener = Listener()
    sequencer.join("o", STREAM, listener, head(0))
    assert followed == [STREAM]
    sequencer.publish(event(1))
    sequencer.leave(STREAM, listener)
    sequencer.publish(event(2))
    hub.flush()
    assert listener.seqs == [1]
    assert followed == []


async def test_another_epoch_starts_over() -> None:
    _, sequencer = node(Log())
    listener = Listener()
    sequencer.join("o", STREAM, listener, head(7))
    sequencer.publish(event(1, epoch="e2"))
    sequencer.publish(event(2, epoch="e2"))
    await until_seen(listener, [1, 2])


@given(
    order=st.permutations(range(1, 13)),
    joins=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 5)), max_size=4),
)
def test_any_order_of_arrival_and_joining(order: list[int], joins: list[tuple[int, int]]) -> None:
    """Everybody sees everything after the head it was told, once, in order.

    A join is the place in `order` at which it holds and reads the head, and how much later it is
    released.
    """

    async def run() -> None:
        log = Log()
        _, sequencer = node(log)
        first = Listener()
        sequencer.join("o", STREAM, first, head(0))
        told: list[tuple[Listener, int]] = [(first, 0)]
        held: list[tuple[int, Listener, int]] = []
        for position, seq in enumerate(order):
            for at, delay in joins:
                if at == position:
                    listener = Listener()
                    sequencer.hold("o", STREAM, listener)
                    told.append((listener, log.last))
                    held.append((position + delay, listener, log.last))
            log.last = max(log.last, seq)
            sequencer.publish(event(seq))
            for due, listener, known in held:
                if due == position:
                    sequencer.release(STREAM, listener, head(known))
            await asyncio.sleep(0)
        for due, listener, known in held:
            if due >= len(order):
                sequencer.release(STREAM, listener, head(known))
        for listener, known in told:
            await until_seen(listener, list(range(known + 1, 13)))

    asyncio.run(run())
