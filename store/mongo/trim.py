"""Retention. First a stream says up to where its log is gone, then it goes; until it has gone the
stream's row says that too (`dropping`), so that it goes also if this node dies in between.

A row that is dropped stays as a stub, without its events, until no node can take the place in the
log for a free one. With a key it stays as long as the key does.
"""

from collections.abc import Sequence

from store.mongo.conflicts import Conflicts
from store.mongo.database import Database
from store.mongo.kinds import Row
from store.mongo.log import PENDING, is_append, slot

PAGE = 500
"""Streams looked at, and rows dropped, at once."""

STUBS = 24 * 3600 * 1000
"""Milliseconds for which a dropped row's place is kept. Far longer than `streams.TRUSTED`."""

TOMBSTONES = 3600 * 1000
"""Milliseconds for which a removed document is kept from coming back."""

_CONTENT = (
    "stream",
    "org",
    "base",
    "actor",
    "kind",
    "events",
    "token",
    "changes",
    "redactions",
    "redacted",
    "pending",
)


async def trim(database: Database, conflicts: Conflicts, keep: int, before: str) -> int:
    """Drop events and keys; returns how many events."""
    dropped = 0
    start = ""
    while True:
        page = (
            await database.streams.find({"_id": {"$gt": start}})
            .sort([("_id", 1)])
            .limit(PAGE)
            .to_list()
        )
        long = [row for row in page if row["head"] - row["trimmed"] > 1 or "dropping" in row]
        oldest = await _oldest(database, long)
        for row in long:
            dropped += await _cut(database, row, oldest.get(row["_id"]), max(keep, 1), before)
        if len(page) < PAGE:
            break
        start = page[-1]["_id"]
    await _drop_keys(database, before)
    await _clean(database, conflicts)
    return dropped


async def trim_stream(database: Database, stream: str) -> None:
    """Drop all events of one stream but its newest."""
    row = await database.streams.find_one({"_id": stream})
    if row is not None and (row["head"] - row["trimmed"] > 1 or "dropping" in row):
        await _cut(database, row, None, 1, "")


async def _oldest(database: Database, streams: Sequence[Row]) -> dict[str, Row]:
    """The first row of each stream's log; without those that a trim has cut in the middle."""
    slots = [slot(stream["_id"], stream["trimmed"] + 1) for stream in streams]
    rows = await database.log.find({"_id": {"$in": slots}}, {"stream": 1, "at": 1}).to_list()
    return {row["stream"]: row for row in rows if is_append(row)}


async def _cut(database: Database, stream: Row, oldest: Row | None, keep: int, before: str) -> int:
    name, head = stream["_id"], stream["head"]
    if oldest is None:
        oldest = await _first(database, {"stream": name, "last": {"$gt": stream["trimmed"]}})
    if oldest is None:
        return 0
    upto = max(stream["trimmed"], head - keep)
    if oldest["at"] < before:
        # The log stays contiguous: by age goes only what has nothing younger before it.
        young = await _first(database, {"stream": name, "at": {"$gte": before}})
        upto = max(upto, head if young is None else young["seq"] - 1)
    upto = min(upto, head - 1)
    dropped = 0
    if upto > stream["trimmed"]:
        was = await database.streams.find_one_and_update(
            {"_id": name, "trimmed": {"$lt": upto}}, {"$set": {"trimmed": upto, "dropping": upto}}
        )
        dropped = 0 if was is None else upto - int(was["trimmed"])
    if upto > stream["trimmed"] or "dropping" in stream:
        await _drop(database, name, upto)
        done = {"_id": name, "dropping": upto}
        await database.streams.update_one(done, {"$unset": {"dropping": ""}})
    return dropped


async def _first(database: Database, query: Row) -> Row | None:
    fields = {"at": 1, "seq": 1, "last": 1}
    rows = await database.log.find(query, fields).sort([("last", 1)]).limit(1).to_list()
    return rows[0] if rows else None


async def _drop(database: Database, stream: str, upto: int) -> None:
    while True:
        rows = (
            await database.log.find({"stream": stream, "last": {"$lte": upto}}, {"_id": 1})
            .sort([("last", 1)])
            .limit(PAGE)
            .to_list()
        )
        if rows:
            await database.log.update_many(
                {"_id": {"$in": [row["_id"] for row in rows]}},
                {
                    "$set": {"gone": database.milliseconds()},
                    "$unset": dict.fromkeys(_CONTENT, ""),
                },
            )
        if len(rows) < PAGE:
            return


async def _drop_keys(database: Database, before: str) -> None:
    await database.log.update_many(
        {"at": {"$lt": before}, "key": {"$gt": ""}, "pending": {"$ne": PENDING}},
        {"$unset": {"key": "", "digest": ""}},
    )


async def _clean(database: Database, conflicts: Conflicts) -> None:
    now = database.milliseconds()
    await database.log.delete_many({"gone": {"$lt": now - STUBS}, "key": None})
    for kind in database.kinds.values():
        rows = database.rows(kind)
        old = {"_x": {"$lt": now - TOMBSTONES}}
        for reserved in await rows.find({**old, "_r": {"$ne": None}}).to_list():
            await conflicts.settle(kind, reserved)
        await rows.delete_many({**old, "_o": None, "_r": None})
