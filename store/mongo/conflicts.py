"""Values under unique indexes that two writes want at once.

A plain write finds out by the index itself. An append must know before its place in the log is
taken, because from then on it stands. So it first stores a reservation: a row that has the values,
but no document, under the new document's `_id`. Applying the log puts the document in its place.

A reservation says which place in the log it was made for. If that place was taken by another
append, it is void. If the place is still free, its maker may be about to take it, or may have
died. Who waits for it in vain puts a bar there: a row with a number, which makes the maker's
insert fail. An append over a bar replaces the row with exactly this number. So a place in the log
is taken once, by an append that began after everything that could be in its way was settled.
"""

import asyncio
import contextlib

from pymongo.errors import DuplicateKeyError

from domain.errors import Unavailable
from store.engine import Duplicate
from store.mongo.database import Database
from store.mongo.faults import reaching
from store.mongo.kinds import Kind, Row, live, ownership, version
from store.mongo.log import is_append, slot
from store.mongo.projection import Image
from store.mongo.streams import Streams

PATIENCE = 0.5
"""Seconds that the maker of a reservation is given to take its place in the log."""

PAUSE = 0.02
"""Seconds between looks at a reservation."""

ASKS = 3
"""Times the store is asked what became of an insert whose answer was lost."""

ATTEMPTS = 100
"""Times a write is tried when others get in its way."""


class Moved(Exception):
    """The stream, or a document, is no longer as it was when the append was judged."""


class Conflicts:
    """Settles who has a unique value."""

    def __init__(self, database: Database, streams: Streams) -> None:
        self._database = database
        self._streams = streams

    async def in_the_way(self, kind: Kind, row: Row) -> None:
        """After a row met a unique index: return when it may be tried again.

        Raises:
            Duplicate: a document has one of the values.
        """
        rows = self._database.rows(kind)
        for field in kind.unique_fields:
            if field not in row:
                continue
            holder = await rows.find_one({field: row[field]})
            if holder is None or holder["_id"] == row["_id"]:
                continue
            if live(holder):
                raise Duplicate(kind.name)
            if "_r" in holder:
                await self.settle(kind, holder)

    # -- reservations -------------------------------------------------------------------------

    async def reserve(
        self, kind: Kind, image: Image, stream: str, seq: int, bar: int, token: str
    ) -> None:
        """Keep the unique values of a new document for an append at this place of the log.

        Raises:
            Duplicate: another document has one of the values.
            Moved: the document is there by now.
        """
        values = {f: image.row[f] for f in kind.unique_fields if f in image.row}
        if not values:
            return
        row: Row = {
            "_id": image.row["_id"],
            "_v": version(),
            "_x": self._database.milliseconds(),
            "_r": {"stream": stream, "seq": seq, "bar": bar, "token": token},
            **values,
        }
        rows = self._database.rows(kind)
        for _ in range(ATTEMPTS):
            there = await rows.find_one({"_id": row["_id"]})
            if live(there):
                raise Moved
            if there is not None and "_r" in there and there["_r"]["token"] != token:
                await self.settle(kind, there)
                continue
            try:
                if there is None:
                    await rows.insert_one(row)
                    return
                same = {"_id": row["_id"], "_v": there["_v"]}
                if (await rows.replace_one(same, {**row, **ownership(there)})).matched_count:
                    return
            except DuplicateKeyError:
                await self.in_the_way(kind, row)
        raise Unavailable("Too many writes want the same value.")

    async def release(self, kind: Kind, id: str, token: str) -> None:
        """Give back what an append reserved and will not use."""
        row = await self._database.rows(kind).find_one({"_id": id})
        if row is not None and "_r" in row and row["_r"]["token"] == token:
            await self._drop(kind, row)

    async def settle(self, kind: Kind, row: Row) -> None:
        """Wait until a reservation is used, or make sure that it never will be and drop it."""
        made: Row = row["_r"]
        stream, seq, bar, token = made["stream"], made["seq"], made["bar"], made["token"]
        log, place = self._database.log, slot(stream, seq)
        clock = self._database.clock
        deadline = clock.monotonic() + PATIENCE
        while True:
            taken = await log.find_one({"_id": place})
            if is_append(taken) and taken is not None and taken["token"] == token:
                await self._streams.place(stream)  # applies it
                return
            if taken is not None and taken.get("void") != bar:
                break
            if taken is None and (await self._streams.place(stream)).seq >= seq:
                break
            if clock.monotonic() >= deadline and await self.bar(place, bar):
                break
            await asyncio.sleep(PAUSE)
            if (
                await self._database.rows(kind).find_one(
                    {"_id": row["_id"], "_v": row["_v"]}, {"_v": 1}
                )
                is None
            ):
                return
        await self._drop(kind, row)

    async def bar(self, place: str, bar: int) -> bool:
        """Put the next bar at a place in the log that is as it was: empty, or with this bar.
        Whether that was so.
        """
        log = self._database.log
        if bar:
            found = await log.replace_one({"_id": place, "void": bar}, {"void": bar + 1})
            return bool(found.matched_count)
        try:
            await log.insert_one({"_id": place, "void": 1})
        except DuplicateKeyError:
            return False
        return True

    async def ask(self, row: Row, bar: int, error: Unavailable) -> bool:
        """What became of an insert whose answer was lost. If it did not arrive, a bar makes sure
        that it never will. Whether it is there; False if another append is.

        Raises:
            Unavailable: it is not there and never will be; or the store stays away.
        """
        barred = False
        for _ in range(ASKS):
            with contextlib.suppress(Unavailable), reaching():
                there = await self._database.log.find_one({"_id": row["_id"]})
                if there is not None and there.get("void") != bar:
                    return bool(is_append(there) and there["token"] == row["token"])
                barred = await self.bar(row["_id"], bar)
            if barred:
                break
            await asyncio.sleep(PAUSE)
        raise error

    async def _drop(self, kind: Kind, row: Row) -> None:
        same = {"_id": row["_id"], "_v": row["_v"]}
        rows = self._database.rows(kind)
        if "_w" in row:  # there was a tombstone before
            left = {name: row[name] for name in ("_w", "_s", "_x")}
            await rows.replace_one(same, {**left, "_v": version()})
        else:
            await rows.delete_one(same)
