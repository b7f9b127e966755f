"""Fan-out on one node: which subscriber is in which room, and one write per member and flush.

An event is encoded and framed once, whoever receives it. A room that is quiet gets its event at
the end of the loop iteration; while events keep coming, what a room has gathered since its last
flush is joined once and written once per member. It cuts system calls, and with them latency.

Order: a member sees a room's events in the order published. What is sent to one subscriber alone
(acks, direct events) keeps its place among them, because the sender calls `settle` first. Between
two rooms no order is promised within one flush.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, Protocol

from domain.delivery import Delivery

logger = logging.getLogger(__name__)

Encoder = Callable[[str, str, bytes], bytes]
"""(namespace with its slash, event name, JSON text of the event's one argument) -> wire bytes."""


class Outgoing(NamedTuple):
    """One event on its way to one or many subscribers."""

    data: bytes
    """What goes on the wire, the same for every subscriber."""
    delivery: Delivery
    key: tuple[str, ...] | None
    """With LATEST: a newer one with the same key takes this one's place."""


class Subscriber(Protocol):
    """What a room holds: one client's connection to one namespace."""

    direct: Callable[[bytes], object] | None
    """Writes bytes to the peer at once. None while the subscriber cannot take them that way
    (a polling client, a peer that reads too slowly): then `deliver` is called instead."""
    closed: bool
    """True from the moment the client is gone; a closed subscriber joins nothing."""

    def deliver(self, events: Collection[Outgoing]) -> None:
        """Take events of one room, in their order, to be sent by delivery class.

        It must not join or leave rooms before it returns.
        """
        ...

    def __hash__(self) -> int: ...


Instead = tuple[str, bytes, Iterable[Subscriber]]
"""An event's name and payload, and who gets that in place of what the others get."""


class HubCounters:
    """What the hub has done since it was made; only ever grows."""

    __slots__ = ("deliveries", "flushes", "published")

    def __init__(self) -> None:
        self.published = 0
        """Events published to rooms with at least one member."""
        self.deliveries = 0
        """Events times members they went to."""
        self.flushes = 0
        """Times a room was written to its members."""


class _Room:
    """The members of one room and what waits to be written to them."""

    __slots__ = ("members", "name", "pending", "seen", "size")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[Subscriber, None] = {}
        self.pending: list[Outgoing] = []
        self.size = 0
        self.seen: dict[Subscriber, int] | None = None
        """How many of `pending` a member already has, or may not have since it came later."""


class Hub:
    """Rooms and their members on this node.

    `encode` makes an event's wire bytes. `tick` is how long, in seconds, a busy room gathers
    events before they are written; it grows with the time a flush takes, up to `max_tick`, so
    that fan-out leaves at least half of the process to everything else.

    `on_first(room)` is called when a room's first member joins, `on_empty(room)` when its last
    one leaves; both synchronously.
    """

    def __init__(
        self, encode: Encoder, *, tick: float = 0.002, max_tick: float = 0.010, batch: int = 65536
    ) -> None:
        self._encode = encode
        self._tick = tick
        self._max_tick = max(tick, max_tick)
        self._batch = batch
        self._rooms: dict[str, _Room] = {}
        self._rooms_of: dict[Subscriber, dict[str, _Room]] = {}
        self._dirty: dict[str, _Room] = {}
        self._scheduled: asyncio.Handle | None = None
        self._next_flush = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self.counters = HubCounters()
        self.on_first: Callable[[str], object] | None = None
        self.on_empty: Callable[[str], object] | None = None

    def join(self, room: str, subscriber: Subscriber) -> None:
        """Add a member. It sees what is published from now on. Twice is once."""
        if subscriber.closed:
            return
        entry = self._rooms.get(room)
        if entry is None:
            entry = self._rooms[room] = _Room(room)
        elif subscriber in entry.members:
            return
        if entry.pending:
            if entry.seen is None:
                entry.seen = {}
            entry.seen[subscriber] = len(entry.pending)
        first = not entry.members
        entry.members[subscriber] = None
        rooms = self._rooms_of.get(subscriber)
        if rooms is None:
            self._rooms_of[subscriber] = {room: entry}
        else:
            rooms[room] = entry
        if first and self.on_first is not None:
            self.on_first(room)

    def leave(self, room: str, subscriber: Subscriber) -> None:
        """Take a member out. It is sent what was published until now, and nothing after."""
        rooms = self._rooms_of.get(subscriber)
        entry = rooms.pop(room, None) if rooms is not None else None
        if entry is None:
            return
        waiting = self._take(entry, subscriber) if entry.pending else ()
        if waiting:
            self._send(subscriber, waiting)
        if not rooms:
            del self._rooms_of[subscriber]
        self._remove(entry, subscriber)

    def drop(self, subscriber: Subscriber) -> None:
        """Take a subscriber out of all its rooms; what waits for it there is not sent."""
        rooms = self._rooms_of.pop(subscriber, None)
        if rooms is not None:
            for entry in rooms.values():
                self._remove(entry, subscriber)

    def _remove(self, entry: _Room, subscriber: Subscriber) -> None:
        if entry.seen is not None:
            entry.seen.pop(subscriber, None)
        del entry.members[subscriber]
        if not entry.members:
            del self._rooms[entry.name]
            if entry.pending:
                entry.pending = []
                self._dirty.pop(entry.name, None)
            if self.on_empty is not None:
                self.on_empty(entry.name)

    def members(self, room: str) -> Collection[Subscriber]:
        """The members of a room now, as a copy."""
        entry = self._rooms.get(room)
        return list(entry.members) if entry is not None else []

    def contains(self, room: str, subscriber: Subscriber) -> bool:
        """Whether a subscriber is a member of a room."""
        entry = self._rooms.get(room)
        return entry is not None and subscriber in entry.members

    def occupied(self, room: str) -> bool:
        """Whether a room has a member on this node."""
        return room in self._rooms

    def rooms_of(self, subscriber: Subscriber) -> Collection[str]:
        """The rooms a subscriber is in now, as a copy."""
        return list(self._rooms_of.get(subscriber, ()))

    def rooms(self) -> Collection[str]:
        """The rooms that have members on this node now, as a copy."""
        return list(self._rooms)

    def publish(
        self,
        room: str,
        event: str,
        payload: bytes,
        delivery: Delivery,
        key: str | None = None,
        instead: Iterable[Instead] = (),
    ) -> None:
        """Send an event to all members of a room. Never blocks.

        `room` is `<namespace without slash>/<rest>`; the namespace is where clients see the
        event. `payload` is the JSON text of the event's one argument. `key` names the value that
        a newer LATEST event replaces; without one the event's name does. `instead`: what some
        of the members get in its place; of several the first.
        """
        entry = self._rooms.get(room)
        if entry is None:
            return
        namespace = "/" + room.partition("/")[0]
        data = self._encode(namespace, event, payload)
        full_key = (room, event, key or "") if delivery is Delivery.LATEST else None
        served: set[Subscriber] = set()
        for name, other, subscribers in instead:
            mine = [each for each in subscribers if each in entry.members and each not in served]
            special = Outgoing(self._encode(namespace, name, other), delivery, full_key)
            for member in mine:
                self.send(member, special)
                if entry.seen is None:
                    entry.seen = {}
                entry.seen[member] = len(entry.pending) + 1
            served.update(mine)
        self.counters.deliveries += len(served)
        entry.pending.append(Outgoing(data, delivery, full_key))
        entry.size += len(data)
        self.counters.published += 1
        if len(entry.pending) == 1:
            self._dirty[room] = entry
            if self._scheduled is None:
                self._schedule()
        elif entry.size > self._batch:
            # Bounds what one write hands to a member, and the memory of a publisher that does
            # not let the loop turn.
            self._dirty.pop(room, None)
            self._flush_room(entry)

    def publish_to(
        self,
        subscribers: Iterable[Subscriber],
        namespace: str,
        event: str,
        payload: bytes,
        delivery: Delivery,
        key: str | None = None,
    ) -> None:
        """Send one event to some subscribers, encoded once, in order with their rooms' events.

        `namespace` has its leading slash; the rest is as with `publish`.
        """
        data = self._encode(namespace, event, payload)
        full_key = (namespace, event, key or "") if delivery is Delivery.LATEST else None
        outgoing = Outgoing(data, delivery, full_key)
        count = 0
        for subscriber in subscribers:
            self.send(subscriber, outgoing)
            count += 1
        self.counters.deliveries += count

    @property
    def pending(self) -> bool:
        """Whether any room has events that are not written yet."""
        return bool(self._dirty)

    def send(self, subscriber: Subscriber, event: Outgoing) -> None:
        """Send one event to one subscriber, behind what waits for it in its rooms: in one write."""
        waiting = self._waiting(subscriber) if self._dirty else None
        if waiting:
            waiting.append(event)
            self._send(subscriber, waiting)
        else:
            self._send(subscriber, (event,), event.data)

    def settle(self, subscriber: Subscriber) -> None:
        """Send a subscriber what waits for it in its rooms, so that what comes next is later."""
        waiting = self._waiting(subscriber)
        if waiting:
            self._send(subscriber, waiting)

    def _waiting(self, subscriber: Subscriber) -> list[Outgoing]:
        """Take what waits for a subscriber in its rooms."""
        found: list[Outgoing] = []
        rooms = self._rooms_of.get(subscriber)
        if not rooms or not self._dirty:
            return found
        if len(self._dirty) < len(rooms):
            for name, entry in self._dirty.items():
                if name in rooms:
                    found += self._take(entry, subscriber)
        else:
            for entry in rooms.values():
                if entry.pending:
                    found += self._take(entry, subscriber)
        return found

    def _take(self, entry: _Room, subscriber: Subscriber) -> list[Outgoing]:
        if entry.seen is None:
            entry.seen = {}
        found = entry.pending[entry.seen.get(subscriber, 0) :]
        entry.seen[subscriber] = len(entry.pending)
        self.counters.deliveries += len(found)
        return found

    def _schedule(self) -> None:
        loop = self._loop
        if loop is None:
            # Remembered: the hub belongs to one loop, and asking each time is dear on some systems.
            loop = self._loop = asyncio.get_running_loop()
        if loop.time() >= self._next_flush:
            self._scheduled = loop.call_soon(self.flush)
        else:
            self._scheduled = loop.call_at(self._next_flush, self.flush)

    def flush(self) -> None:
        """Write what all rooms have gathered. Called by the hub itself; harmless at any time."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        dirty = self._dirty
        if not dirty:
            return
        time = (self._loop or asyncio.get_running_loop()).time
        started = time()
        self._dirty = {}
        for entry in dirty.values():
            self._flush_room(entry)
        ended = time()
        self._next_flush = ended + min(max(self._tick, ended - started), self._max_tick)

    def _flush_room(self, entry: _Room) -> None:
        events, entry.pending = entry.pending, []
        seen, entry.seen = entry.seen, None
        entry.size = 0
        members = entry.members
        data = b"".join([event.data for event in events]) if len(events) > 1 else events[0].data
        counters = self.counters
        counters.flushes += 1
        counters.deliveries += len(members) * len(events)
        if not seen:
            for member in members:
                direct = member.direct
                if direct is not None:
                    try:
                        direct(data)
                    except Exception:
                        logger.exception("a room's member could not be written to")
                else:
                    self._deliver(member, events)
            return
        for member in members:
            start = seen.get(member, 0)
            if start == 0:
                self._send(member, events, data)
            else:
                counters.deliveries -= start
                if start < len(events):
                    self._send(member, events[start:])

    @staticmethod
    def _send(
        subscriber: Subscriber, events: Collection[Outgoing], data: bytes | None = None
    ) -> None:
        direct = subscriber.direct
        if direct is None:
            Hub._deliver(subscriber, events)
            return
        try:
            direct(b"".join([event.data for event in events]) if data is None else data)
        except Exception:
            logger.exception("a room's member could not be written to")

    @staticmethod
    def _deliver(subscriber: Subscriber, events: Collection[Outgoing]) -> None:
        """Whatever one member makes of it, the others get theirs."""
        try:
            subscriber.deliver(events)
        except Exception:
            logger.exception("a room's member could not take its events")
