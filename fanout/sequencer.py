"""Order: a stream's events leave this node strictly by seq, each once.

One `_Line` per stream that somebody here follows. An early event waits for its elders; if they
do not come, they are fetched from the log. A subscriber joins in two steps so that nothing falls
between what it reads and what it hears: `hold` first, then head and backlog are read, then
`release` lets go what is newer than the head it was told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

import structlog

from domain.delivery import Delivery
from domain.errors import ParleyError
from domain.events import StoredEvent
from domain.streams import Head
from fanout.hub import Hub, Subscriber

log = structlog.get_logger(__name__)

Fetch = Callable[[str, str, int], Awaitable[Sequence[StoredEvent]]]
"""`(org, stream, after)` -> events with seq > after, ascending, from the log."""

Observer = Callable[[str, StoredEvent], None]
"""`(org, event)`, right after the event was handed to the hub."""

_Instead = tuple[str, bytes, Collection[Subscriber]]

MOST_KEPT = 1_000
"""Events of a stream that are kept while elders are missing, and for each subscriber on its way in.
What is beyond them is fetched from the log when it is its turn."""


class _Waiting:
    """A subscriber on its way in."""

    __slots__ = ("after", "events")

    def __init__(self) -> None:
        self.after: int | None = None
        """The head it was told, then what it was sent; None while it is not known yet."""
        self.events: dict[int, StoredEvent] = {}
        """By seq, what came since it waits and it was not sent."""

    def keep(self, event: StoredEvent) -> None:
        """Have an event for it, if it may lack it and there is room."""
        if self.after is not None and event.seq <= self.after:
            return
        next_one = self.after is not None and event.seq == self.after + 1
        if next_one or len(self.events) < MOST_KEPT:
            self.events[event.seq] = event

    def missing(self, last: int | None) -> int | None:
        """The first seq between the head it was told and `last` that has not come; None if all
        has, or one of the two is not known.
        """
        if self.after is None or last is None:
            return None
        seqs = range(self.after + 1, last + 1)
        return next((seq for seq in seqs if seq not in self.events), None)


class _Line:
    """One stream as it leaves this node."""

    __slots__ = (
        "catch_up",
        "early",
        "epoch",
        "last",
        "org",
        "repair",
        "target",
        "timer",
        "waiting",
    )

    def __init__(self, org: str) -> None:
        self.org = org
        self.epoch: str | None = None
        self.last: int | None = None
        self.target = 0
        """The log is known to reach to here."""
        self.early: dict[int, StoredEvent] = {}
        self.waiting: dict[Subscriber, _Waiting] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.repair: asyncio.Task[None] | None = None
        self.catch_up: asyncio.Task[None] | None = None

    @property
    def behind(self) -> bool:
        """Whether something is missing here that the log has."""
        return bool(self.early) or (self.last is not None and self.last < self.target)


class Sequencer:
    """Hands durable events to the hub in order."""

    def __init__(
        self,
        hub: Hub,
        fetch: Fetch,
        *,
        patience: float = 0.05,
        on_follow: Callable[[str], None] = lambda _: None,
        on_unfollow: Callable[[str], None] = lambda _: None,
        on_gap: Callable[[Collection[Subscriber]], None] = lambda _: None,
    ) -> None:
        """
        Args:
            patience: seconds an early event waits for its elders before they are fetched.
            on_follow: called with a stream that somebody here follows from now on.
            on_unfollow: called with a stream that nobody here follows any more.
            on_gap: called with subscribers who cannot get what they miss, because it is no longer
                in the log. They have to go, and to come back.
        """
        self._hub = hub
        self._fetch = fetch
        self._failing = False
        """Whether the last read of a log did not come about."""
        self._on_follow = on_follow
        self._on_unfollow = on_unfollow
        self._on_gap = on_gap
        self._patience = patience
        self._lines: dict[str, _Line] = {}
        self._observers: dict[str, list[Observer]] = {}
        self.connections_of: Callable[[str], Collection[Subscriber]] = lambda user: ()
        """A user's connections here: some events show their actor more than others."""
        self.veil: Callable[[StoredEvent], StoredEvent] = lambda event: event
        """What those are told of an event who are rid of what it carries."""

    # -- subscribers --------------------------------------------------------------------------

    def hold(self, org: str, stream: str, subscriber: Subscriber) -> None:
        """Keep what comes for this subscriber until `release`. Does nothing for a member."""
        if self._hub.contains(stream, subscriber):
            return
        line = self._lines.get(stream)
        if line is None:
            line = self._lines[stream] = _Line(org)
            self._on_follow(stream)
        line.waiting.setdefault(subscriber, _Waiting())

    def release(self, stream: str, subscriber: Subscriber, head: Head) -> None:
        """Let the subscriber have everything after `head`, read since `hold`, and make it a
        member of the stream's room.
        """
        line = self._lines.get(stream)
        waiting = line.waiting.get(subscriber) if line is not None else None
        if line is None or waiting is None:
            return
        self._align(stream, line, head)
        waiting.after = head.seq
        for seq in [seq for seq in waiting.events if seq <= head.seq]:
            del waiting.events[seq]
        self._admit(stream, line, subscriber, waiting)
        self.notice(stream, head.seq)

    def join(self, org: str, stream: str, subscriber: Subscriber, head: Head) -> None:
        """`hold` and `release` in one, for a subscriber whose position is known."""
        self.hold(org, stream, subscriber)
        self.release(stream, subscriber, head)

    def leave(self, stream: str, subscriber: Subscriber) -> None:
        """No more of this stream for this subscriber."""
        line = self._lines.get(stream)
        if line is not None:
            line.waiting.pop(subscriber, None)
        self._hub.leave(stream, subscriber)
        self._forget_if_unused(stream)

    # -- events -------------------------------------------------------------------------------

    def publish(self, event: StoredEvent) -> None:
        """Hand one durable event to those who follow its stream here."""
        line = self._lines.get(event.stream)
        if line is None:
            return
        if line.epoch is not None and event.epoch != line.epoch:
            self._start_over(event.stream, line, event)
            return
        if line.last is not None and event.seq == line.last + 1 and not line.early:
            self._deliver(event.stream, line, event)
            return
        if line.last is not None and event.seq <= line.last:
            self._keep_for_waiting(event.stream, line, event)
            return
        if len(line.early) < MOST_KEPT or (line.last is not None and event.seq == line.last + 1):
            line.early[event.seq] = event
        else:
            line.target = max(line.target, event.seq)
        self._drain(event.stream, line)

    def observe(self, type: str, observer: Observer) -> None:
        """Have `observer` called with every event of a type that somebody here follows, wherever
        it comes from, in order. It may come twice after a repair.
        """
        self._observers.setdefault(type, []).append(observer)

    def positions(self) -> Iterator[tuple[str, int | None]]:
        """The streams that somebody here follows, and up to which seq each was delivered; None
        while that is not known.
        """
        for stream, line in list(self._lines.items()):
            yield stream, line.last

    def org_of(self, stream: str) -> str | None:
        """Whose a stream is; None if nobody here follows it."""
        line = self._lines.get(stream)
        return line.org if line is not None else None

    def reached(self, stream: str, seq: int) -> bool:
        """Whether those who follow a stream here have all up to `seq`; also if there are none."""
        line = self._lines.get(stream)
        return line is None or line.last is None or line.last >= seq

    def notice(self, stream: str, seq: int) -> None:
        """The log of a stream reaches to `seq`: what does not come by itself is fetched."""
        line = self._lines.get(stream)
        if line is not None:
            line.target = max(line.target, seq)
            self._repair_if_behind(stream, line)

    def _drain(self, stream: str, line: _Line) -> None:
        """Deliver what is next in turn; see to it that what is missing comes."""
        if line.last is None:
            return
        while (event := line.early.pop(line.last + 1, None)) is not None:
            self._deliver(stream, line, event)
        for seq in [seq for seq in line.early if seq <= line.last]:
            self._keep_for_waiting(stream, line, line.early.pop(seq))
        self._repair_if_behind(stream, line)

    def _deliver(self, stream: str, line: _Line, event: StoredEvent) -> None:
        line.last = event.seq
        line.epoch = event.epoch
        instead = self._instead(event)
        self._hub.publish(stream, event.type, event.public, Delivery.DURABLE, instead=instead)
        if line.waiting:
            for subscriber, waiting in list(line.waiting.items()):
                waiting.keep(event)
                if waiting.after is not None:
                    self._admit(stream, line, subscriber, waiting)
        for observer in self._observers.get(event.type, ()):
            observer(line.org, event)

    def _instead(self, event: StoredEvent) -> Sequence[_Instead]:
        """What some are told of an event in place of what all are."""
        if event.public is event.payload:
            return ()
        own = event.type, event.own, self.connections_of(event.actor.id)
        if not event.veiled:
            return (own,)
        veil = self.veil(event)
        connections = [each for user in event.veiled for each in self.connections_of(user)]
        return ((veil.type, veil.public, connections), own)

    def _admit(self, stream: str, line: _Line, subscriber: Subscriber, waiting: _Waiting) -> None:
        """Make a released subscriber a member once this node has delivered up to its head, and
        what was delivered after it is here.

        Until then the room's next events are ones it was told already.
        """
        after, last = waiting.after, line.last
        if after is None or last is None or last < after:
            return
        # What is there already is sent at once, and not kept while the rest is fetched.
        namespace = "/" + stream.partition("/")[0]
        while after < last and (event := waiting.events.pop(after + 1, None)) is not None:
            waiting.after = after = event.seq
            type, payload = event.type, event.public
            for other, told, subscribers in self._instead(event):
                if subscriber in subscribers:
                    type, payload = other, told
                    break
            self._hub.publish_to((subscriber,), namespace, type, payload, Delivery.DURABLE)
        if after < last:
            # Others here were told a later head, and no longer needed it.
            if line.catch_up is None:
                loop = asyncio.get_running_loop()
                line.catch_up = loop.create_task(self._catch_up(stream, line))
            return
        del line.waiting[subscriber]
        self._hub.join(stream, subscriber)

    def _keep_for_waiting(self, stream: str, line: _Line, event: StoredEvent) -> None:
        """Keep what members here have or were told for those who may have been told less."""
        for subscriber, waiting in list(line.waiting.items()):
            waiting.keep(event)
            # Maybe it is all that was missing: who would fetch it finds nothing to do then.
            self._admit(stream, line, subscriber, waiting)

    def _align(self, stream: str, line: _Line, head: Head) -> None:
        """Learn where the stream stands, if this node does not know yet."""
        if line.epoch is None and head.epoch:
            line.epoch = head.epoch
        if line.last is None:
            line.last = head.seq
            self._drain(stream, line)

    def _start_over(self, stream: str, line: _Line, event: StoredEvent) -> None:
        """The history is another one: members go on from this event and see the new epoch."""
        log.warning("stream_epoch_changed", stream=stream, seq=event.seq)
        line.early.clear()
        self._deliver(stream, line, event)

    # -- repair -------------------------------------------------------------------------------

    def _repair_if_behind(self, stream: str, line: _Line) -> None:
        if line.timer is None and line.repair is None and line.behind:
            loop = asyncio.get_running_loop()
            line.timer = loop.call_later(self._patience, self._begin_repair, stream, line)

    def _begin_repair(self, stream: str, line: _Line) -> None:
        line.timer = None
        if line.behind and self._lines.get(stream) is line:
            line.repair = asyncio.get_running_loop().create_task(self._repair(stream, line))

    async def _repair(self, stream: str, line: _Line) -> None:
        """Fetch from the log what did not come, until nothing is missing."""
        delay = self._patience
        try:
            while line.behind and line.last is not None and self._lines.get(stream) is line:
                try:
                    events = await self._fetch(line.org, stream, line.last)
                    self._failing = False
                except ParleyError as error:
                    self._tell("stream_repair_delayed", stream, error)
                    events = ()
                before = line.last
                if events and events[0].seq > before + 1 and not self._comes(line, events[0].seq):
                    self._skip(stream, line, events[0].seq - 1)
                for event in events:
                    line.early.setdefault(event.seq, event)
                self._drain(stream, line)
                if line.last == before:
                    delay = min(delay * 2, 5.0)
                    await asyncio.sleep(delay)
        finally:
            line.repair = None

    def _tell(self, what: str, stream: str, error: ParleyError) -> None:
        """Log a read that did not come about, the first in a row: many streams wait for one store."""
        if not self._failing:
            log.warning(what, stream=stream, code=error.code)
        self._failing = True

    @staticmethod
    def _comes(line: _Line, seq: int) -> bool:
        """Whether all that is missing before `seq` has arrived meanwhile."""
        assert line.last is not None
        return all(missing in line.early for missing in range(line.last + 1, seq))

    async def _catch_up(self, stream: str, line: _Line) -> None:
        """Fetch for those who were released what members here have already."""
        delay = self._patience
        try:
            while self._lines.get(stream) is line and line.last is not None:
                lacking = {
                    subscriber: seq
                    for subscriber, waiting in line.waiting.items()
                    if (seq := waiting.missing(line.last)) is not None
                }
                if not lacking:
                    return
                after = min(lacking.values()) - 1
                try:
                    events = await self._fetch(line.org, stream, after)
                    self._failing = False
                except ParleyError as error:
                    self._tell("stream_catch_up_delayed", stream, error)
                    delay = min(delay * 2, 5.0)
                    await asyncio.sleep(delay)
                    continue
                self._go_on(stream, line, lacking, events)
        finally:
            line.catch_up = None

    def _go_on(
        self,
        stream: str,
        line: _Line,
        lacking: Mapping[Subscriber, int],
        events: Sequence[StoredEvent],
    ) -> None:
        """Send on what was fetched, admit those for whom it was all, and send away whom it cannot
        be fetched for.
        """
        gone: list[Subscriber] = []
        reach = events[-1].seq if events else None
        for subscriber, seq in lacking.items():
            waiting = line.waiting.get(subscriber)
            if waiting is None:
                continue
            for event in events:
                if event.seq >= seq:
                    waiting.events.setdefault(event.seq, event)
            if waiting.missing(line.last) != seq:
                self._admit(stream, line, subscriber, waiting)
            elif reach is None or reach >= seq:
                gone.append(subscriber)
        if gone:
            log.warning("stream_gap", stream=stream, before=line.last, clients=len(gone))
            self._on_gap(gone)
            for subscriber in gone:
                self.leave(stream, subscriber)

    def _skip(self, stream: str, line: _Line, seq: int) -> None:
        """What came up to `seq` is no longer in the log: nobody is shown the hole."""
        log.warning("stream_gap", stream=stream, after=line.last, before=seq + 1)
        line.last = seq
        for early in [each for each in line.early if each <= seq]:
            del line.early[early]
        self._on_gap([*line.waiting, *self._hub.members(stream)])

    def _forget_if_unused(self, stream: str) -> None:
        line = self._lines.get(stream)
        if line is None or line.waiting or self._hub.occupied(stream):
            return
        if line.timer is not None:
            line.timer.cancel()
        del self._lines[stream]
        self._on_unfollow(stream)
