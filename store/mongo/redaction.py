"""Taking content out of rows of the log. As all that an append does, it is decided in the append's
own row and carried out from there, any number of times: a row has the seq of the append that
redacted it last, and nothing older is done to it.
"""

from collections.abc import Sequence

import orjson
from pymongo import UpdateOne

from store.engine import Document
from store.mongo.database import Database
from store.mongo.kinds import Row
from store.mongo.log import is_append, slot

AT_ONCE = 25
"""Rows read and written together."""


async def redact(database: Database, row: Row) -> None:
    """Carry out what an append's row orders."""
    wanted: dict[int, Document] = {}
    for order in row.get("redactions", ()):
        fields = orjson.loads(order["set"])
        for seq in order["seqs"]:
            wanted[seq] = wanted.get(seq, {}) | fields
    seqs = sorted(wanted, reverse=True)
    while seqs:
        # A row is written once, with everything that is to be done to it.
        chunk = seqs[-AT_ONCE:]
        del seqs[-AT_ONCE:]
        rows = await _rows(database, row["stream"], chunk)
        while seqs and rows and seqs[-1] <= max(each["last"] for each in rows):
            seqs.pop()
        if rows:
            await database.log.bulk_write(
                [_write(row, each, wanted) for each in rows], ordered=False
            )


async def _rows(database: Database, stream: str, seqs: Sequence[int]) -> list[Row]:
    """The rows that have these events, as far as they are in the log."""
    names = [slot(stream, seq) for seq in seqs]
    found = await database.log.find({"_id": {"$in": names}}, {"changes": 0}).to_list()
    rows = {row["_id"]: row for row in found if is_append(row)}
    reached = {seq for row in rows.values() for seq in range(row["seq"], row["last"] + 1)}
    for seq in seqs:
        if seq not in reached:  # trimmed, or not the first of its append
            query = {"stream": stream, "last": {"$gte": seq}}
            there = database.log.find(query, {"changes": 0}).sort([("last", 1)]).limit(1)
            for row in await there.to_list():
                if row["seq"] <= seq:
                    rows[row["_id"]] = row
                    reached.update(range(seq, row["last"] + 1))
    return list(rows.values())


def _write(by: Row, row: Row, wanted: dict[int, Document]) -> UpdateOne:
    events = [
        {**event, "data": _redacted(event["data"], wanted[seq])} if seq in wanted else event
        for seq, event in enumerate(row["events"], int(row["seq"]))
    ]
    older = {
        "_id": row["_id"],
        "stream": by["stream"],
        "$or": [{"redacted": None}, {"redacted": {"$lt": by["seq"]}}],
    }
    # It was applied long ago: the documents in it are not needed, and may hold the same content.
    return UpdateOne(
        older,
        {
            "$set": {"events": events, "redacted": by["seq"]},
            "$unset": {"changes": "", "pending": "", "redactions": ""},
        },
    )


def _redacted(data: str, fields: Document) -> str:
    return orjson.dumps({**orjson.loads(data), **fields}).decode()
