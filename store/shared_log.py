"""The log as many read it who come back at the same time: what they ask together is read once."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from domain.clock import Clock
from domain.events import StoredEvent
from domain.streams import Head
from store.engine import Engine
from store.gathered import Gathered

READS_AT_ONCE = 16
"""Gaps read at a time: the store's connections are not for those alone who come back."""

KEPT_BYTES = 8 * 1024 * 1024
"""Bytes of events that are kept for the next who asks."""

KEPT_SECONDS = 30.0
"""How long they are kept at most."""


class _Gap(NamedTuple):
    """The end of a stream's log, as of one head."""

    head: Head
    events: Sequence[StoredEvent]
    size: int
    until: float


class SharedLog:
    """Reads heads and gaps for many, with few reads of the store."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._heads = Gathered(engine.heads)
        self._reading = asyncio.Semaphore(READS_AT_ONCE)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._kept: OrderedDict[str, _Gap] = OrderedDict()
        self._size = 0

    async def heads(self, org: str, streams: Sequence[str]) -> dict[str, Head]:
        """As `Engine.heads`."""
        return await self._heads.get(org, streams)

    async def gap(
        self, org: str, stream: str, after: int, head: Head, max_bytes: int
    ) -> Sequence[StoredEvent]:
        """The events with seq > `after` up to a head that the stream has or had: not all of them,
        if some are trimmed or their data exceeds `max_bytes`.

        What is kept is of one head. An append may take content out of earlier events, but it moves
        the head, so nothing is given that was taken out before the head was read.
        """
        lock = self._locks.get(stream)
        if lock is None:
            lock = self._locks[stream] = asyncio.Lock()
        async with lock:
            kept = self._kept.get(stream)
            if (
                kept is not None
                and kept.head == head
                and kept.events[0].seq <= after + 1
                and kept.until > self._clock.monotonic()
            ):
                events = kept.events[after + 1 - kept.events[0].seq :]
                if sum([len(event.data) for event in events]) <= max_bytes:
                    return events
            limit = head.seq - after
            async with self._reading:
                events = await self._engine.read(org, stream, after, limit, max_bytes=max_bytes)
            if len(events) == limit and events[0].seq == after + 1:
                self._keep(stream, head, events)
            return events

    def _keep(self, stream: str, head: Head, events: Sequence[StoredEvent]) -> None:
        self._forget(stream)
        now = self._clock.monotonic()
        size = sum([len(event.payload) for event in events])
        self._kept[stream] = _Gap(head, events, size, now + KEPT_SECONDS)
        self._size += size
        # All are kept equally long, so the first is the oldest.
        while self._kept:
            oldest = next(iter(self._kept))
            if self._size <= KEPT_BYTES and self._kept[oldest].until > now:
                return
            self._forget(oldest)

    def _forget(self, stream: str) -> None:
        gone = self._kept.pop(stream, None)
        if gone is not None:
            self._size -= gone.size
