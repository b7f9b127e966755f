"""What the process knows of the file without asking it. It is the file's only writer, so what it
wrote last is what is there.

The writer's thread changes these after a commit; the event loop's thread reads them at any time.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

from domain.streams import Head

Key = tuple[str, str, str]
"""A document: collection, organization, id."""


class Place(NamedTuple):
    """A stream as committed."""

    id: int
    org: str
    head: Head


class Heads:
    """Committed streams by name, the most recently written or asked for; `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._places: dict[str, Place] = {}
        self._moving: frozenset[str] = frozenset()
        """Streams that the commit under way changes."""
        self._lock = threading.Lock()
        self.generation = 0
        """Changes when what was read from the file before may be out of date."""

    def get(self, stream: str) -> Place | None:
        """The stream's place, or None if it is not known here."""
        return self._places.get(stream)

    def forget(self, streams: Iterable[str]) -> None:
        """Know nothing of streams that are about to change, until `publish` or `unchanged`: others
        see a commit before its thread comes to tell of it, and must not be told an older head than
        what they see.
        """
        with self._lock:
            self._moving = frozenset(streams)
            for stream in self._moving:
                self._places.pop(stream, None)

    def unchanged(self) -> None:
        """The commit did not come about."""
        self._moving = frozenset()

    def publish(self, places: Iterable[tuple[str, Place]]) -> None:
        """Take over what was committed."""
        with self._lock:
            self._moving = frozenset()
            self._places.update(places)
            self._shrink()

    def offer(self, generation: int, stream: str, place: Place) -> None:
        """Take over what was read from the file when the generation was this one, unless
        something newer is known.
        """
        with self._lock:
            if generation == self.generation and stream not in self._moving:
                self._places.setdefault(stream, place)
                self._shrink()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.generation += 1
            self._places = {}

    def _shrink(self) -> None:
        excess = len(self._places) - self._limit
        if excess > 0:
            self.generation += 1
            for name in list(self._places)[: excess + self._limit // 8]:
                del self._places[name]


class Entry:
    """A document as committed."""

    __slots__ = ("doc", "owner", "rowid", "text")

    def __init__(self, rowid: int, text: bytes, owner: int | None) -> None:
        self.rowid = rowid
        self.text = text
        self.owner = owner
        """The stream that it belongs to, if any."""
        self.doc: dict[str, Any] | None = None
        """Decoded, for the writer alone, which does not change it."""

    @property
    def cost(self) -> int:
        """About how many bytes it takes in memory."""
        return 3 * len(self.text) + 300


class Documents:
    """Committed documents, those used last, up to `limit` bytes.

    A read that fills it may have seen the file before a commit that it does not know of. So it
    says beforehand what it is going to read, and a commit that changes this takes the permission
    to fill back. From just before the commit until the new state is here, what the commit changes
    is not known at all: nobody is told the old state after somebody else has read the new one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cost = 0
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._filling: dict[Key, object] = {}
        self._changing: set[Key] = set()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Entry | None:
        """The document, or None if it is not known here."""
        entry = self._entries.get(key)
        if entry is not None:
            try:
                self._entries.move_to_end(key)
            except KeyError:  # the other thread dropped it just now; it was right a moment ago
                return None
        return entry

    def filling(self, key: Key) -> object:
        """A permission to `fill` with what is read from the file from now on."""
        token = object()
        with self._lock:
            if key not in self._changing:
                self._filling[key] = token
        return token

    def fill(self, key: Key, token: object, entry: Entry | None) -> None:
        """Take over what was read, if nothing has changed it since."""
        with self._lock:
            if self._filling.get(key) is token:
                del self._filling[key]
                if entry is not None:
                    self._set(key, entry)

    def forget(self, keys: Iterable[Key]) -> None:
        """Drop documents that a commit is about to change, until it was carried out or not."""
        with self._lock:
            for key in keys:
                self._changing.add(key)
                self._filling.pop(key, None)
                self._drop(key)

    def unchanged(self) -> None:
        """The commit did not come about."""
        with self._lock:
            self._changing.clear()

    def publish(self, changed: Iterable[tuple[Key, Entry | None]]) -> None:
        """Take over what was committed; None for a document that was removed or is not kept."""
        with self._lock:
            self._changing.clear()
            for key, entry in changed:
                if entry is not None:
                    self._set(key, entry)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._filling.clear()
            self._changing.clear()
            self._cost = 0

    def _set(self, key: Key, entry: Entry) -> None:
        self._drop(key)
        self._entries[key] = entry
        self._cost += entry.cost
        while self._cost > self._limit:
            _, old = self._entries.popitem(last=False)
            self._cost -= old.cost

    def _drop(self, key: Key) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._cost -= old.cost
