"""Where streams stand: what this node knows, and catching up with the log."""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from domain.errors import Unavailable
from domain.streams import Head
from store.mongo.database import Database
from store.mongo.kinds import Row
from store.mongo.log import is_append, slot
from store.mongo.projection import apply

TRUSTED = 60.0
"""Seconds for which a node believes what it knows of a stream. Far less than `trim.STUBS`."""

LOOKS = 1000
"""Times the place behind the head may be taken again before it was looked at."""

CHUNK = 1000
"""Streams asked for at once."""


class Place(NamedTuple):
    """A stream whose log is applied up to its head."""

    org: str
    base: str
    seq: int
    """Of its last event; 0 for a stream that is not there."""
    trimmed: int
    bar: int = 0
    """The number of the bar at the next place of the log, 0 for none: see `reservations`."""


def new_base() -> str:
    """A name for a history that no other history has."""
    return secrets.token_hex(8)


class Streams:
    """Streams by name, and the part of them that this node knows."""

    def __init__(self, database: Database, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._known: OrderedDict[str, tuple[Place, float]] = OrderedDict()

    def known(self, stream: str) -> Place | None:
        """Where a stream stood a short while ago, if this node knows. Good enough to try an
        append by: if it is out of date, the place in the log is taken.
        """
        entry = self._known.get(stream)
        if entry is None or self._database.clock.monotonic() - entry[1] > TRUSTED:
            return None
        return entry[0]

    def learn(self, stream: str, place: Place) -> None:
        """Remember where a stream stands."""
        self._known[stream] = (place, self._database.clock.monotonic())
        self._known.move_to_end(stream)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)

    def _learn_if_newer(self, stream: str, place: Place) -> None:
        # An append may have come further while the place was read.
        known = self.known(stream)
        if known is None or known.base != place.base or known.seq < place.seq:
            self.learn(stream, place)

    def forget(self, stream: str) -> None:
        """Do not believe what is known."""
        self._known.pop(stream, None)

    async def place(self, stream: str) -> Place:
        """Where a stream stands now, its log applied to the end."""
        for _ in range(LOOKS):
            row = await self._database.streams.find_one({"_id": stream})
            seq = int(row["head"]) if row is not None else 0
            following = await self._database.log.find_one({"_id": slot(stream, seq + 1)})
            if following is not None and is_append(following):
                await apply(self._database, following)
                continue
            if following is not None and "void" not in following:
                continue  # trimmed already: the head has moved on
            place = _place(row, following)
            self.learn(stream, place)
            return place
        raise Unavailable("Too many writes to the stream.")

    async def places(self, names: Sequence[str]) -> dict[str, Place]:
        """As `place`, for many; streams that are not there are left out."""
        found: dict[str, Place] = {}
        wanted = list(dict.fromkeys(names))
        for start in range(0, len(wanted), CHUNK):
            found |= await self._some(wanted[start : start + CHUNK])
        return found

    async def applied(self, names: Sequence[str]) -> dict[str, Place]:
        """How far streams are applied; whether they are applied to the end is not looked at. One
        command for `CHUNK` streams.
        """
        found: dict[str, Place] = {}
        wanted = list(dict.fromkeys(names))
        for start in range(0, len(wanted), CHUNK):
            some = {"_id": {"$in": wanted[start : start + CHUNK]}}
            rows = await self._database.streams.find(some).to_list()
            found |= {row["_id"]: _place(row, None) for row in rows}
        return found

    async def _some(self, names: list[str]) -> dict[str, Place]:
        rows = await self._database.streams.find({"_id": {"$in": names}}).to_list()
        heads = dict.fromkeys(names, 0) | {row["_id"]: int(row["head"]) for row in rows}
        slots = [slot(name, seq + 1) for name, seq in heads.items()]
        ahead = await self._database.log.find(
            {"_id": {"$in": slots}}, {"stream": 1, "void": 1}
        ).to_list()
        moved = {row["_id"].rpartition("#")[0] for row in ahead if "void" not in row}
        found = {row["_id"]: _place(row, None) for row in rows if row["_id"] not in moved}
        barred = {row["_id"].rpartition("#")[0] for row in ahead if "void" in row}
        for name, place in found.items():
            if name not in barred:
                self._learn_if_newer(name, place)
        for name in moved:
            found[name] = await self.place(name)
        return found

    def head(self, place: Place) -> Head:
        """A place as callers see it."""
        return Head(self._database.epoch(place.base), place.seq, place.trimmed)

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()


def _place(row: Row | None, following: Row | None) -> Place:
    bar = int(following["void"]) if following is not None else 0
    if row is None:
        return Place("", "", 0, 0, bar)
    return Place(row["org"], row["base"], int(row["head"]), int(row["trimmed"]), bar)
