"""Carrying out what a row of the log decided. It may be done any number of times, by any number of
nodes at once, late or never finished: a document has the seq that wrote it last, and nothing older
is written over it. Where a document was removed, a tombstone with the seq stays for a while, so
that it does not come back.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pymongo import InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from domain.errors import Unavailable
from store.mongo.database import Database, Rows
from store.mongo.faults import AWAY
from store.mongo.kinds import Kind, Row, version
from store.mongo.redaction import redact

Op = Literal["new", "set", "put", "gone"]
"""What becomes of a document: stored if there is none; replaced if it is there; stored either way;
removed."""

AT_ONCE = 16
"""Documents written at the same time."""

IN_A_COMMAND = 50
"""Updates in one command: enough to share a round trip, and no command is long in others' way. (The
stand-in of the tests never answers one of a hundred.)"""


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


async def write_all(database: Database, rows: Sequence[Row]) -> None:
    """Bring the documents to where rows of the log left them, those of each stream in order: one
    bulk of each collection. What a bulk cannot settle is settled one by one.
    """
    images: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        for change in row["changes"]:
            name = (row["stream"], change["kind"], change["row"]["_id"])
            before = images.get(name)
            op = change["op"]
            if before is not None:
                op = _both(before["op"], op)
            images[name] = {**change, "op": op}
    kinds: dict[str, list[dict[str, Any]]] = {}
    for (_, kind, _), change in images.items():
        kinds.setdefault(kind, []).append(change)
    await asyncio.gather(*(_write_bulk(database, changes) for changes in kinds.values()))


def _both(first: Op, then: Op) -> Op:
    """What becomes of a document by two steps of which the first was not carried out."""
    if then == "set":
        return first
    if then == "gone" and first in {"set", "gone"}:
        return "gone"
    return "put"  # also a tombstone: a late first step must find it


async def _write_bulk(database: Database, changes: Sequence[dict[str, Any]]) -> None:
    if len(changes) == 1:
        await _write(database, changes[0])
        return
    new = [change for change in changes if change["op"] == "new"]
    others = [change for change in changes if change["op"] != "new"]
    parts = [new] if new else []
    parts += [others[at : at + IN_A_COMMAND] for at in range(0, len(others), IN_A_COMMAND)]
    await asyncio.gather(*(_in_one_command(database, part) for part in parts))


async def _in_one_command(database: Database, changes: Sequence[dict[str, Any]]) -> None:
    rows = _rows(database, changes[0]["kind"])
    try:
        await rows.bulk_write([_in_bulk(change) for change in changes], ordered=False)
    except BulkWriteError as error:
        if error.details.get("writeConcernErrors"):
            raise Unavailable(AWAY) from error
        for failed in error.details["writeErrors"]:
            await _write(database, changes[failed["index"]])


def _in_bulk(change: dict[str, Any]) -> InsertOne[Row] | ReplaceOne[Row]:
    row: Row = change["row"]
    match change["op"]:
        case "new":
            return InsertOne(row)
        case "set":
            return ReplaceOne({**_older(row), "_o": {"$ne": None}}, row)
        case "put":
            return ReplaceOne(_older(row), row, upsert=True)
        case _:
            return ReplaceOne(_older(row), row)


async def advance_all(database: Database, heads: Mapping[str, int]) -> None:
    """Bring the heads of streams that are there already up to these seqs. Those that come to the same
    seq share a step.
    """
    same: dict[int, list[str]] = {}
    for stream, last in heads.items():
        same.setdefault(last, []).append(stream)
    steps = [
        UpdateMany({"_id": {"$in": streams}}, {"$max": {"head": last}})
        if len(streams) > 1
        else UpdateOne({"_id": streams[0]}, {"$max": {"head": last}})
        for last, streams in same.items()
    ]
    await asyncio.gather(
        *(
            database.streams.bulk_write(steps[start : start + IN_A_COMMAND], ordered=False)
            for start in range(0, len(steps), IN_A_COMMAND)
        )
    )


def _rows(database: Database, name: str) -> Rows:
    kind = database.kinds.get(name)
    # Another version of the program may know more collections than this one.
    return database.rows(kind) if kind is not None else database.database["c_" + name]


def _older(row: Row) -> Row:
    return {
        "_id": row["_id"],
        "$or": [{"_w": {"$ne": row["_w"]}}, {"_s": {"$lt": row["_s"]}}],
    }


async def _write(database: Database, change: dict[str, Any]) -> None:
    kind = database.kinds.get(change["kind"])
    rows = _rows(database, change["kind"])
    row: Row = change["row"]
    older = _older(row)
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
