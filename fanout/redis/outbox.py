"""What waits to be published: bounded, and the first to go is what is missed least."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from itertools import count, islice
from typing import NamedTuple

from domain.delivery import Delivery


class Waiting(NamedTuple):
    """A message that waits."""

    channel: bytes
    message: bytes
    delivery: Delivery
    key: tuple[bytes, str] | None
    """With LATEST: a newer message with the same key takes this one's place."""
    reached: asyncio.Future[int] | None = None
    """Set to the number of connections that the server has handed it to."""

    @property
    def size(self) -> int:
        """What it counts for, in bytes."""
        return len(self.channel) + len(self.message) + 100


class Outbox:
    """A queue of messages of all channels, in the order in which they came.

    A newer LATEST message takes the place of the one it replaces. Over the bounds, the oldest
    VOLATILE one is dropped, or if there is none the oldest LATEST one, or the oldest DURABLE one:
    receivers find those in the log.
    """

    def __init__(self, max_messages: int = 20_000, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: OrderedDict[object, Waiting] = OrderedDict()
        self._volatile: OrderedDict[object, None] = OrderedDict()
        self._latest: OrderedDict[object, None] = OrderedDict()
        self._held: dict[object, Waiting] = {}
        self._numbers = count()
        self._before = count(-1, -1)
        self.bytes = 0
        """What waits, in bytes."""
        self.dropped = dict.fromkeys(Delivery, 0)
        """How many were dropped since it was made."""
        self.coalesced = 0
        """How many LATEST ones were replaced by newer ones."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, waiting: Waiting) -> None:
        """Add a message at the end."""
        place: object
        if waiting.key is not None:
            place = waiting.key
            if self._let_go(place) is not None:
                self.coalesced += 1
            replaced = self._waiting.get(place)
            if replaced is not None:
                self._waiting[place] = waiting
                self.bytes += waiting.size - replaced.size
                self.coalesced += 1
                self._shrink()
                return
            self._latest[place] = None
        else:
            place = next(self._numbers)
            if waiting.delivery is Delivery.VOLATILE:
                self._volatile[place] = None
        self._waiting[place] = waiting
        self.bytes += waiting.size
        self._shrink()

    def take(self, messages: int, bytes: int) -> list[Waiting]:
        """Take the oldest, at most so many and so many bytes, but at least one if there is one."""
        places: list[object] = []
        size = 0
        for place, waiting in islice(self._waiting.items(), messages):
            size += waiting.size
            if places and size > bytes:
                break
            places.append(place)
        return [self._remove(place) for place in places]

    def put_back(self, taken: list[Waiting]) -> None:
        """Put messages that could not be sent before all others: without the volatile ones, and
        without latest ones that were replaced meanwhile.
        """
        rest = self._waiting
        self._waiting = OrderedDict()
        for waiting in taken:
            place: object = waiting.key or next(self._before)
            if waiting.delivery is Delivery.VOLATILE or place in rest:
                continue
            self._waiting[place] = waiting
            self.bytes += waiting.size
            if waiting.key is not None:
                self._latest[place] = None
        self._waiting.update(rest)
        self._shrink()

    def hold_latest(self) -> None:
        """Set the LATEST messages that wait aside until `release`; newer ones replace them there
        too.
        """
        for place in list(self._latest):
            waiting = self._remove(place)
            self._held[place] = waiting
            self.bytes += waiting.size

    def release(self) -> None:
        """Put what was set aside at the end."""
        for place in list(self._held):
            waiting = self._let_go(place)
            if waiting is not None:
                self.put(waiting)

    def _let_go(self, place: object) -> Waiting | None:
        waiting = self._held.pop(place, None)
        if waiting is not None:
            self.bytes -= waiting.size
        return waiting

    def drop_volatile(self) -> None:
        """Drop what is of no use later."""
        for place in list(self._volatile):
            self._drop(place)

    def _shrink(self) -> None:
        while len(self._waiting) > self._max_messages or self.bytes > self._max_bytes:
            least: Iterable[object] = self._volatile or self._latest or self._waiting
            self._drop(next(iter(least)))

    def _drop(self, place: object) -> None:
        self.dropped[self._remove(place).delivery] += 1

    def _remove(self, place: object) -> Waiting:
        waiting = self._waiting.pop(place)
        self._volatile.pop(place, None)
        self._latest.pop(place, None)
        self.bytes -= waiting.size
        return waiting
