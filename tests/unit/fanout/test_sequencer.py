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


async def test_two_who_come_together_and_were_told_different_heads() -> None:
    """The one told less needs what the one told more makes everybody here pass over."""
    log = Log(last=3)
    _, sequencer = node(log)
    less, more = Listener(), Listener()
    sequencer.hold("o", STREAM, less)
    sequencer.hold("o", STREAM, more)
    sequencer.publish(event(2))
    sequencer.publish(event(3))
    sequencer.release(STREAM, more, head(3))
    sequencer.release(STREAM, less, head(1))
    assert less.seqs == [2, 3]
    sequencer.publish(event(4))
    await until_seen(less, [2, 3, 4])
    await until_seen(more, [4])
    assert log.reads == 0


async def test_what_one_told_less_did_not_hear_is_fetched() -> None:
    log = Log(last=3, broken=2)
    _, sequencer = node(log)
    less, least, more = Listener(), Listener(), Listener()
    for each in (less, least, more):
        sequencer.hold("o", STREAM, each)
    sequencer.release(STREAM, more, head(3))
    sequencer.release(STREAM, less, head(2))
    sequencer.release(STREAM, least, head(0))
    sequencer.publish(event(4))
    await until_seen(more, [4])
    await until_seen(less, [3, 4])
    await until_seen(least, [1, 2, 3, 4])
    assert log.reads == 3


async def test_what_one_told_less_did_not_hear_comes_before_it_is_fetched() -> None:
    log = Log(last=3)
    _, sequencer = node(log)
    less, more = Listener(), Listener()
    for each in (less, more):
        sequencer.hold("o", STREAM, each)
    sequencer.release(STREAM, more, head(3))
    sequencer.publish(event(2))
    sequencer.release(STREAM, less, head(0))
    sequencer.publish(event(3))
    sequencer.publish(event(1))
    await until_seen(less, [1, 2, 3])
    assert log.reads == 0


async def test_who_cannot_be_told_what_it_did_not_hear_is_sent_away() -> None:
    async def trimmed(org: str, stream: str, after: int) -> Sequence[StoredEvent]:
        return [event(3)]

    hub = Hub(lambda _namespace, _event, payload: payload)
    away: list[object] = []
    sequencer = Sequencer(hub, trimmed, patience=0.005, on_gap=away.extend)
    less, more = Listener(), Listener()
    sequencer.hold("o", STREAM, less)
    sequencer.hold("o", STREAM, more)
    sequencer.release(STREAM, more, head(3))
    sequencer.release(STREAM, less, head(1))
    async with asyncio.timeout(5):
        while not away:
            await asyncio.sleep(0.002)
    assert away == [less]
    sequencer.publish(event(4))
    await until_seen(more, [4])
    assert less.seqs == []


async def test_another_epoch_starts_over() -> None:
    _, sequencer = node(Log())
    listener = Listener()
    sequencer.join("o", STREAM, listener, head(7))
    sequencer.publish(event(1, epoch="e2"))
    sequencer.publish(event(2, epoch="e2"))
    await until_seen(listener, [1, 2])


@given(
    order=st.permutations(range(1, 13)),
    joins=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3), st.integers(0, 5)), max_size=4),
    somebody=st.booleans(),
)
def test_any_order_of_arrival_and_joining(
    order: list[int], joins: list[tuple[int, int, int]], somebody: bool
) -> None:
    """Everybody sees everything after the head it was told, once, in order.

    A join is the place in `order` at which it holds, how much later it reads the head, and how much
    later it is released. `somebody` follows the stream from the beginning.
    """

    async def run() -> None:
        log = Log()
        _, sequencer = node(log)
        told: list[tuple[Listener, int]] = []
        if somebody:
            told.append((Listener(), 0))
            sequencer.join("o", STREAM, told[0][0], head(0))
        steps: dict[int, list[Callable[[], None]]] = {}

        def enter(at: int, read: int, released: int) -> None:
            listener = Listener()
            known: list[int] = []

            def let_go() -> None:
                sequencer.release(STREAM, listener, head(known[0]))
                told.append((listener, known[0]))

            steps.setdefault(at, []).append(lambda: sequencer.hold("o", STREAM, listener))
            steps.setdefault(at + read, []).append(lambda: known.append(log.last))
            steps.setdefault(at + read + released, []).append(let_go)

        for join in joins:
            enter(*join)
        for place in range(max([len(order), *(each + 1 for each in steps)])):
            for step in steps.get(place, ()):
                step()
            if place < len(order):
                log.last = max(log.last, order[place])
                sequencer.publish(event(order[place]))
            await asyncio.sleep(0)
        for listener, known in told:
            await until_seen(listener, list(range(known + 1, 13)))

    asyncio.run(run())


class Paged(Log):
    """A log that is read as the store's is: a page at a time."""

    page = 1_000

    async def fetch(self, org: str, stream: str, after: int) -> Sequence[StoredEvent]:
        return list(await super().fetch(org, stream, after))[: self.page]


async def test_a_newcomer_far_behind_the_others_gets_all_that_the_log_has() -> None:
    log = Paged(last=5_000)
    hub = Hub(lambda _namespace, _event, payload: payload)
    gone: list[Collection[object]] = []
    sequencer = Sequencer(hub, log.fetch, patience=0.005, on_gap=gone.append)
    early, near, far = Listener(), Listener(), Listener()
    sequencer.join("o", STREAM, early, head(5_000))
    sequencer.hold("o", STREAM, far)
    sequencer.hold("o", STREAM, near)
    sequencer.release(STREAM, far, head(0))
    sequencer.release(STREAM, near, head(3_500))
    await until_seen(near, list(range(3_501, 5_001)))
    await until_seen(far, list(range(1, 5_001)))
    log.last = 5_001
    sequencer.publish(event(5_001))
    await until_seen(far, list(range(1, 5_002)))
    assert not gone


async def test_what_waits_for_an_elder_or_a_newcomer_is_bounded() -> None:
    log = Paged(broken=1_000_000)
    _, sequencer = node(log)
    early, late = Listener(), Listener()
    sequencer.join("o", STREAM, early, head(0))
    sequencer.hold("o", STREAM, late)
    line = sequencer._lines[STREAM]
    for seq in range(2, 5_001):
        sequencer.publish(event(seq))
    assert len(line.early) <= 1_000
    log.last, log.broken = 5_000, 0
    await until_seen(early, list(range(1, 5_001)))
    assert len(line.waiting[late].events) <= 1_000
    sequencer.release(STREAM, late, head(10))
    await until_seen(late, list(range(11, 5_001)))
    assert not line.waiting
