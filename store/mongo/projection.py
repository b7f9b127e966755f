"""Carrying out what a row of the log decided. It may be done any number of times, by any number of
nodes at once, late or never finished: a document has the seq that wrote it last, and nothing older
is written over it. Where a document was removed, a tombstone with the seq stays for a while, so
that it does not come back.
"""

import asyncio
from typing import Any, Literal, NamedTuple

from pymongo.errors import DuplicateKeyError

from store.mongo.database import Database, Rows
from store.mongo.kinds import Kind, Row, version
from store.mongo.redaction import redact

Op = Literal["new", "set", "put", "gone"]
"""What becomes of a document: stored if there is none; replaced if it is there; stored either way;
removed."""

AT_ONCE = 16
"""Documents written at the same time."""


class Image(NamedTuple):
    """A document as an append leaves it."""

    kind: str
    op: Op
    row: Row
    """With `_id`, `_w`, `_s` and `_v`; a removed one's has the tombstone's fields."""

    def change(self) -> dict[str, Any]:
        """As the log has it."""
        return {"kind": self.kind, "op": self.op, "row": self.row}


async def apply(database: Database, row: Row) -> int:
    """Bring earlier rows and the documents to where a row of the log left them, then the stream's
    head.

    Returns:
        When a node last asked to be let in (see `appender`), in Unix milliseconds; 0 for never.
    """
    if "redactions" in row:
        await redact(database, row)
    changes = row.get("changes", ())
    for place in range(0, len(changes), AT_ONCE):
        await asyncio.gather(
            *(_write(database, change) for change in changes[place : place + AT_ONCE])
        )
    return await _advance(database, row)


async def _advance(database: Database, row: Row) -> int:
    stream, last = row["stream"], row["last"]
    if row["seq"] == 1:
        try:
            await database.streams.insert_one(
                {"_id": stream, "org": row["org"], "base": row["base"], "head": last, "trimmed": 0}
            )
        except DuplicateKeyError:
            pass  # somebody else was faster
        else:
            return 0
    was = await database.streams.find_one_and_update({"_id": stream}, {"$max": {"head": last}})
    return int(was.get("wanted", 0)) if was is not None else 0


async def _write(database: Database, change: dict[str, Any]) -> None:
    kind = database.kinds.get(change["kind"])
    # Another version of the program may know more collections than this one.
    rows = database.rows(kind) if kind is not None else database.database["c_" + change["kind"]]
    row: Row = change["row"]
    older = {
        "_id": row["_id"],
        "$or": [{"_w": {"$ne": row["_w"]}}, {"_s": {"$lt": row["_s"]}}],
    }
    match change["op"]:
        case "new":
            await _store_new(rows, older, row, reserved=kind is None or kind.unique)
        case "set":
            await rows.replace_one({**older, "_o": {"$ne": None}}, row)
        case "put":
            await _put(rows, older, row)
        case _:
            await rows.replace_one(older, row)


async def _store_new(rows: Rows, older: Row, row: Row, *, reserved: bool) -> None:
    # Over a reservation or a tombstone; a document that is there stays as it is.
    free = {**older, "_o": None}
    if reserved and (await rows.replace_one(free, row)).matched_count:
        return
    try:
        await rows.insert_one(row)
    except DuplicateKeyError:
        await rows.replace_one(free, row)


async def _put(rows: Rows, older: Row, row: Row) -> None:
    while not (await rows.replace_one(older, row)).matched_count:
        try:
            await rows.insert_one(row)
        except DuplicateKeyError:
            there = await rows.find_one({"_id": row["_id"]})
            if there is not None and there.get("_w") == row["_w"] and there["_s"] >= row["_s"]:
                return
        else:
            return


def owned(row: Row, stream: str, seq: int) -> Row:
    """A document's row with what the seq guard needs."""
    return {**row, "_w": stream, "_s": seq, "_v": version()}


def tombstone(kind: Kind, id: str, stream: str, seq: int, now: int) -> Image:
    """What is left of a removed document."""
    return Image(kind.name, "gone", owned({"_id": id, "_x": now}, stream, seq))
