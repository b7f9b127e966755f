"""Following streams: subscribing, resuming, fetching what was missed."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any, NamedTuple

import orjson

from actions.connections.clients import Client, Clients
from domain.errors import Invalid, NotFound
from domain.events import StoredEvent
from domain.principals import Principal
from domain.streams import Head, StreamName, parse_stream
from fanout.publisher import Publisher
from fanout.sequencer import Sequencer
from fanout.user_control import UserControl
from store.shared_log import SharedLog

MAX_BACKLOG = 1000
"""Events a gap may have and still be filled event by event."""

MAX_BACKLOG_BYTES = 4 * 1024 * 1024
"""Bytes of event data that all gaps of one call may have together, for the same reason."""

BACKLOGS_AT_ONCE = 16
"""Calls that may hold so much of what was missed in memory at a time; others wait."""

SMALL_BACKLOG_BYTES = 256 * 1024
"""What most have missed who lost their connection is less than this."""

SMALL_BACKLOGS_AT_ONCE = 256
"""Calls that may hold that much at a time. They are not kept waiting by those who missed more."""

STEP = 250
"""Streams dealt with in one go, before others have their turn."""

MAX_STREAMS = 10_000
"""Streams one connection may follow."""

MayRead = Callable[[Principal, StreamName], Awaitable[bool]]
"""Whether a caller may read a stream; asked for streams of one namespace."""

OwnStreams = Callable[[Principal], Awaitable[Sequence[str]]]
"""The streams a caller's connection to a namespace joins by itself."""

Missed = Mapping[str, Sequence[StoredEvent]]

Draw = Callable[[Principal, Missed], Awaitable[Missed]]
"""Those of some streams of which a caller is told another event than others are."""


class Position(NamedTuple):
    """Where a reader says it stands in a stream."""

    epoch: str
    seq: int


class Backlog(NamedTuple):
    """What a reader missed of a stream."""

    head: Head
    recovered: bool
    events: Sequence[StoredEvent]

    def to_wire(self, user: str) -> dict[str, Any]:
        """`{epoch, seq, recovered, events, more}`, for a user."""
        return {
            "epoch": self.head.epoch,
            "seq": self.head.seq,
            "recovered": self.recovered,
            "events": [orjson.Fragment(event.told_to(user)) for event in self.events],
            "more": not self.recovered,
        }


class Rules:
    """Who may read which streams, declared by each feature for its own namespace."""

    def __init__(self) -> None:
        self._may_read: dict[str, MayRead] = {}
        self._own: dict[str, OwnStreams] = {}
        self._later: dict[str, OwnStreams] = {}
        self._telling: set[str] = set()
        self.veils: list[Draw] = []
        """Each of its own namespace."""

    def declare(
        self,
        namespace: str,
        may_read: MayRead,
        own: OwnStreams | None = None,
        later: OwnStreams | None = None,
        *,
        tells: bool = False,
    ) -> None:
        """Declare the rule of one namespace's streams.

        Args:
            own: the streams a connection joins by itself.
            later: those that it will join when they have their first event.
            tells: whether an event of the stream tells who may read it no longer.
        """
        if namespace in self._may_read:
            raise ValueError(f"the streams of {namespace} are declared twice")
        self._may_read[namespace] = may_read
        if own is not None:
            self._own[namespace] = own
        if later is not None:
            self._later[namespace] = later
        if tells:
            self._telling.add(namespace)

    def tells(self, stream: str) -> bool:
        """Whether an event of a stream tells who may read it no longer."""
        return stream.partition("/")[0] in self._telling

    async def may_read(self, principal: Principal, stream: str) -> bool:
        """Whether the caller may read the stream."""
        name = parse_stream(stream)
        rule = self._may_read.get(name.namespace) if name is not None else None
        return name is not None and rule is not None and await rule(principal, name)

    async def drawn(
        self, principal: Principal, backlogs: Mapping[str, "Backlog"]
    ) -> Mapping[str, "Backlog"]:
        """What was missed, as the caller is told it."""
        missed = {stream: each.events for stream, each in backlogs.items() if each.events}
        if not missed:
            return backlogs
        told = dict(backlogs)
        for draw in self.veils:
            for stream, events in (await draw(principal, missed)).items():
                told[stream] = told[stream]._replace(events=events)
        return told

    async def readable(self, principal: Principal, streams: Iterable[str]) -> Set[str]:
        """Those of some streams that the caller may read, asked together: rules that ask the store
        do so for all who ask at the same moment.
        """
        found: set[str] = set()
        asked = list(streams)
        for start in range(0, len(asked), STEP):
            step = asked[start : start + STEP]
            may = await asyncio.gather(*(self.may_read(principal, stream) for stream in step))
            found.update(stream for stream, yes in zip(step, may, strict=True) if yes)
        return found

    async def own(self, principal: Principal, namespace: str) -> Sequence[str]:
        """The streams a connection to the namespace joins by itself."""
        own = self._own.get(namespace)
        return await own(principal) if own is not None else ()

    async def later(self, principal: Principal, namespace: str) -> Sequence[str]:
        """The streams a connection to the namespace will join when they begin."""
        later = self._later.get(namespace)
        return await later(principal) if later is not None else ()


class Streams:
    """What clients do with streams."""

    def __init__(
        self,
        log: SharedLog,
        sequencer: Sequencer,
        publisher: Publisher,
        rules: Rules,
        clients: Clients,
        control: UserControl,
    ) -> None:
        self._log = log
        self._sequencer = sequencer
        self._publisher = publisher
        self._rules = rules
        self._clients = clients
        self._control = control
        self._lanes = (
            (asyncio.Semaphore(SMALL_BACKLOGS_AT_ONCE), SMALL_BACKLOG_BYTES),
            (asyncio.Semaphore(BACKLOGS_AT_ONCE), MAX_BACKLOG_BYTES),
        )
        """Where calls wait for their turn, and the bytes of a gap for which each is meant."""
        self._coming: dict[Client, set[str]] = {}
        """Clients whose right to read is being checked, and what they were put out of meanwhile."""
        self.on_expelled: list[Callable[[str, str], None]] = []
        """Called on every node with a user and a stream this user no longer follows."""
        self.on_admitted: list[Callable[[str], None]] = []
        """Called on every node with a user whose clients were let into a stream. The order to do so
        may come later than the one by which another node puts the user out again."""
        control.on("streams.join", self._join_here)
        control.on("streams.leave", self._leave_here)

    # -- asked for by clients -----------------------------------------------------------------

    async def subscribe(
        self, client: Client, wanted: Mapping[str, Position | None]
    ) -> dict[str, dict[str, Any]]:
        """Follow streams from now on, and get what was missed since the given positions.

        Raises:
            NotFound: one of the streams does not exist for this caller; none was subscribed.
        """
        with self._noting(client) as lost:
            for stream in wanted:
                name = parse_stream(stream)
                if name is None or name.namespace != client.namespace:
                    raise Invalid.field("streams", f"no stream of this namespace: {stream[:100]}")
            readable = await self._rules.readable(client.principal, wanted)
            for stream in wanted:
                if stream not in readable:
                    raise NotFound(f"There is no stream {stream}.")
            if len(client.streams | wanted.keys()) > MAX_STREAMS:
                raise Invalid.field("streams", f"a connection may follow at most {MAX_STREAMS}")
            async with self._held(client, wanted, lost) as backlogs:
                for stream in wanted.keys() - backlogs.keys():
                    raise NotFound(f"There is no stream {stream}.")
                user = client.principal.user
                answer = {stream: each.to_wire(user) for stream, each in backlogs.items()}
        if client.declined:
            client.declined = client.declined - wanted.keys()
        # What came meanwhile is told after the answer, which leaves without another await.
        asyncio.get_running_loop().call_soon(self._release, client, backlogs)
        return answer

    def _release(self, client: Client, backlogs: Mapping[str, Backlog]) -> None:
        for stream, backlog in backlogs.items():
            self._sequencer.release(stream, client.outlet, backlog.head)

    async def unsubscribe(self, client: Client, streams: Sequence[str]) -> None:
        """No longer follow streams; those not followed are ignored."""
        followed = client.streams.intersection(streams)
        for stream in streams:
            self.drop(client, stream)
        # Nothing is kept of other names: there is no end to them.
        client.declined = {*client.declined, *followed}

    async def sync(
        self, principal: Principal, positions: Mapping[str, Position]
    ) -> dict[str, dict[str, Any]]:
        """Everything missed in many streams; those the caller may not read are left out."""
        backlogs: Mapping[str, Backlog] | None = None
        for turns, room in self._lanes:
            if backlogs is None:
                async with turns:
                    # Asked in the turn: the wait for it may have been long.
                    allowed = await self._allowed(principal, positions)
                    backlogs = await self._backlogs(principal.org, allowed, room)
        if backlogs:
            backlogs = await self._rules.drawn(principal, backlogs)
        user = principal.user
        return {stream: each.to_wire(user) for stream, each in (backlogs or {}).items()}

    async def _allowed(
        self, principal: Principal, positions: Mapping[str, Position]
    ) -> dict[str, Position | None]:
        """The positions in streams that the caller may read."""
        own: set[str] = set()
        for namespace in {stream.partition("/")[0] for stream in positions}:
            own.update(await self._rules.own(principal, namespace))
        others = await self._rules.readable(principal, [s for s in positions if s not in own])
        return {
            stream: position
            for stream, position in positions.items()
            if stream in own or stream in others
        }

    # -- at connect ---------------------------------------------------------------------------

    async def enter(
        self,
        client: Client,
        resume: Mapping[str, Position],
        ready: Callable[[Any], None],
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Join the client's own streams and those it resumes: first what it missed, then
        `ready(streams)`, then what is live.

        Args:
            before: finds out what else `ready` tells, as of a moment since which the streams are
                followed; at its end without another await.
        """
        with self._noting(client) as lost:
            await self._control.heard(client.principal.user)
            own = await self._rules.own(client.principal, client.namespace)
            later = await self._rules.later(client.principal, client.namespace)
            wanted: dict[str, Position | None] = {stream: resume.get(stream) for stream in own}
            others = [each for each in resume if each not in wanted and _is_of(each, client)]
            readable = await self._rules.readable(client.principal, others)
            wanted.update((stream, resume[stream]) for stream in others if stream in readable)
            async with self._held(client, wanted, lost) as backlogs:
                await self._tell(client, backlogs, later, ready, before)
        async for stream in _in_steps(backlogs):
            self._sequencer.release(stream, client.outlet, backlogs[stream].head)

    async def _tell(
        self,
        client: Client,
        backlogs: Mapping[str, Backlog],
        later: Sequence[str],
        ready: Callable[[Any], None],
        before: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """Send what was missed, then `ready`."""
        async for stream in _in_steps(backlogs):
            events = backlogs[stream].events
            for start in range(0, len(events), STEP):
                if start:
                    await asyncio.sleep(0)
                self._publisher.replay(
                    client.outlet, events[start : start + STEP], client.principal.user
                )
        places = {
            stream: {
                "epoch": backlog.head.epoch,
                "seq": backlog.head.seq,
                "recovered": backlog.recovered,
            }
            for stream, backlog in backlogs.items()
        }
        for stream in later:
            # Told, so that a client which is away when it begins can resume it from its start.
            if stream not in client.streams:
                places[stream] = {"epoch": "", "seq": 0, "recovered": True}
        if before is not None:
            await before()
        ready(places)
        client.ready = True

    def exit(self, client: Client) -> None:
        """The client has gone: leave everything."""
        for stream in client.streams:
            self._sequencer.leave(stream, client.outlet)
        client.streams.clear()

    def is_coming(self, client: Client) -> bool:
        """Whether it is just being checked what a client may read."""
        return client in self._coming

    @contextmanager
    def _noting(self, client: Client) -> Iterator[set[str]]:
        """Note what the client is put out of between the check of what it may read and the moment
        from which it follows that: there may be other checks, and a wait for its turn, in between.
        """
        lost = self._coming[client] = set()
        try:
            yield lost
        finally:
            del self._coming[client]

    # -- asked for by other actions -----------------------------------------------------------

    def admit(self, org: str, users: Sequence[str], heads: Mapping[str, Head]) -> None:
        """Have the users' connected clients follow streams, on every node, each from its head on."""
        told = {stream: list(head) for stream, head in heads.items()}
        self._control.send(users, "streams.join", org=org, streams=told)

    def expel(self, user: str, streams: Mapping[str, int]) -> None:
        """Have a user's connected clients no longer follow streams, on every node.

        Each is given the seq up to which they hear everything first; whoever names one above 0
        calls `expel_here` when that event is delivered (`Sequencer.observe`).
        """
        self._control.send([user], "streams.leave", streams=dict(streams))

    def _join_here(self, user: str, order: dict[str, Any]) -> None:
        admitted = False
        for stream, head in order["streams"].items():
            for client in self._clients.of_user(user, stream.partition("/")[0]):
                if stream not in client.streams:
                    admitted = True
                    client.streams.add(stream)
                    self._sequencer.join(order["org"], stream, client.outlet, Head(*head))
        if admitted:
            for callback in self.on_admitted:
                callback(user)

    def _leave_here(self, user: str, order: dict[str, Any]) -> None:
        for stream, after in order["streams"].items():
            if self._sequencer.reached(stream, after):
                self.expel_here(user, stream)
            else:
                # What they are to hear yet is on its way here, or is fetched.
                self._note_lost(user, stream)
                self._sequencer.notice(stream, after)

    def expel_here(self, user: str, stream: str) -> None:
        """Have a user's clients on this node no longer follow a stream."""
        self._note_lost(user, stream)
        for client in self._clients.of_user(user, stream.partition("/")[0]):
            self.drop(client, stream)
        for callback in self.on_expelled:
            callback(user, stream)

    async def caught_up(self, org: str, streams: Sequence[str]) -> bool:
        """Whether those who follow these streams here have all that the logs have. If not, what is
        missing is fetched.
        """
        heads = await self._log.heads(org, streams)
        behind = {
            stream: head.seq
            for stream, head in heads.items()
            if not self._sequencer.reached(stream, head.seq)
        }
        for stream, seq in behind.items():
            self._sequencer.notice(stream, seq)
        return not behind

    def drop(self, client: Client, stream: str) -> None:
        """Have one client no longer follow a stream."""
        client.streams.discard(stream)
        self._sequencer.leave(stream, client.outlet)

    def _note_lost(self, user: str, stream: str) -> None:
        for client in self._clients.of_user(user, stream.partition("/")[0]):
            if (lost := self._coming.get(client)) is not None:
                lost.add(stream)

    # -- reading ------------------------------------------------------------------------------

    @asynccontextmanager
    async def _held(
        self, client: Client, wanted: Mapping[str, Position | None], lost: Set[str]
    ) -> AsyncIterator[Mapping[str, Backlog]]:
        """Hold live events of the streams back for the client, then read where they stand. What
        was missed is in memory for as long as the context lasts; after it comes the release.

        Streams that are in `lost` when the turn has come are left out.
        """
        org = client.principal.org
        for turns, room in self._lanes:
            async with turns if any(wanted.values()) else nullcontext():
                allowed = wanted if not lost else {k: wanted[k] for k in wanted if k not in lost}
                fresh = [stream for stream in allowed if stream not in client.streams]
                try:
                    for stream in allowed:
                        self._sequencer.hold(org, stream, client.outlet)
                    client.streams.update(allowed)
                    found = await self._backlogs(org, allowed, room)
                    if found is not None:
                        backlogs = await self._rules.drawn(client.principal, found)
                        # Put out of one meanwhile, the client hears no more of it.
                        yield {k: each for k, each in backlogs.items() if k in client.streams}
                        return
                except BaseException:
                    self._let_go(client, fresh)
                    raise
                # The next turn may be long in coming: nothing is held until then.
                self._let_go(client, fresh)

    def _let_go(self, client: Client, streams: Iterable[str]) -> None:
        for stream in streams:
            self.drop(client, stream)

    async def _backlogs(
        self, org: str, wanted: Mapping[str, Position | None], room: int
    ) -> dict[str, Backlog] | None:
        """What was missed of streams. None if it has more than `room` bytes, and there is another
        lane for such.
        """
        names = list(wanted)
        heads: dict[str, Head] = {}
        for start in range(0, len(names), STEP):
            heads |= await self._log.heads(org, names[start : start + STEP])
            await asyncio.sleep(0)
        nothing = Head("", 0, 0)
        last_lane = room == MAX_BACKLOG_BYTES
        backlogs: dict[str, Backlog] = {}
        async for stream in _in_steps(names):
            head = heads.get(stream, nothing)
            backlog = await self._backlog(org, stream, head, wanted[stream], room)
            if backlog is None and not last_lane:
                return None
            backlog = backlog or Backlog(head, False, ())
            room -= sum([len(event.payload) for event in backlog.events])
            backlogs[stream] = backlog
        return backlogs

    async def _backlog(
        self, org: str, stream: str, head: Head, position: Position | None, room: int
    ) -> Backlog | None:
        """What was missed of one stream; None if that is more than about `room` bytes."""
        if position is None or (position.epoch == head.epoch and position.seq == head.seq):
            return Backlog(head, True, ())
        from_start = position.epoch == "" and position.seq == 0
        missed = head.seq - position.seq
        if (
            (position.epoch != head.epoch and not from_start)
            or missed < 0
            or missed > MAX_BACKLOG
            or position.seq < head.trimmed
        ):
            return Backlog(head, False, ())
        if room <= 0:
            return None
        events = await self._log.gap(org, stream, position.seq, head, room)
        # Trimmed or cut by size meanwhile: a partial replay is never presented as whole.
        whole = [event.seq for event in events] == list(range(position.seq + 1, head.seq + 1))
        return Backlog(head, True, events) if whole else None


def _is_of(stream: str, client: Client) -> bool:
    """Whether it is a stream of the client's namespace."""
    name = parse_stream(stream)
    return name is not None and name.namespace == client.namespace


async def _in_steps(streams: Iterable[str]) -> AsyncIterator[str]:
    """The streams; with thousands of them, others have their turn in between."""
    for number, stream in enumerate(streams, 1):
        yield stream
        if number % STEP == 0:
            await asyncio.sleep(0)
