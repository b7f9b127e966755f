"""Documents outside of appends: each write is atomic by itself."""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from pymongo import ReplaceOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from domain.errors import Unavailable
from store.conditions import check_any_org_order, matches
from store.engine import (
    Change,
    Delete,
    Document,
    Duplicate,
    Filter,
    Insert,
    Put,
    Value,
)
from store.mongo.conflicts import ATTEMPTS, Conflicts
from store.mongo.database import Database
from store.mongo.kinds import Kind, Row, check_plain, document, live, ownership, row_id, version
from store.mongo.query import Query, behind, changed, condition, order_of

COUNTED_AT_ONCE = 50

CHUNK = 1000
"""Documents asked for by id, or stored, in one command."""

REPLACED = 25
"""Documents replaced in one command. FerretDB hangs when they are a hundred."""

_CONTENDED = "Too many writes to one document."


class Documents:
    """Plain reads and writes."""

    def __init__(self, database: Database, conflicts: Conflicts) -> None:
        self._database = database
        self._conflicts = conflicts
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    # -- reading ------------------------------------------------------------------------------

    async def get(self, kind: Kind, org: str, id: str) -> Document | None:
        """One document."""
        row = await self._database.rows(kind).find_one({"_id": row_id(org, id)})
        return document(row) if row is not None and live(row) else None

    async def get_many(self, kind: Kind, org: str, ids: Sequence[str]) -> dict[str, Document]:
        """Documents by id."""
        wanted = [row_id(org, id) for id in dict.fromkeys(ids)]
        rows: list[Row] = []
        for start in range(0, len(wanted), CHUNK):
            asked = {"_id": {"$in": wanted[start : start + CHUNK]}}
            rows += await self._database.rows(kind).find(asked).to_list()
        found = {row["id"]: document(row) for row in rows if live(row)}
        return {id: found[id] for id in dict.fromkeys(ids) if id in found}

    async def find(
        self,
        kind: Kind,
        org: str,
        where: Filter,
        order: Sequence[str],
        after: Sequence[Value] | None,
        limit: int | None,
    ) -> list[Document]:
        """Documents that match, sorted."""
        sorting = order_of(kind, order)
        query = condition(kind, where, org)
        if after is not None:
            query |= behind(sorting, after)
        if limit == 0:
            return []
        rows = self._database.rows(kind).find(query, {"_j": 1}).sort(sorting.sort)
        if limit is not None:
            rows = rows.limit(limit)
        return [document(row) for row in await rows.to_list()]

    async def find_any_org(
        self,
        kind: Kind,
        where: Filter,
        limit: int,
        order: Sequence[str] | None,
        after: Sequence[Value] | None,
    ) -> list[Document]:
        """Documents of any organization, each with its `org`; sorted if there is an order.

        Raises:
            ValueError: no index has this order.
        """
        query = condition(kind, where, None)
        sorting = None
        if order is not None:
            sorting = order_of(kind, order, any_org=True)
            check_any_org_order(kind.collection, where, order)
            if after is not None:
                query |= behind(sorting, after)
        elif after is not None:
            raise ValueError("what comes in no order has nothing behind it")
        if limit == 0:
            return []
        rows = self._database.rows(kind).find(query, {"_j": 1, "_o": 1})
        if sorting is not None:
            rows = rows.sort(sorting.sort)
        found = await rows.limit(limit).to_list()
        return [{**document(row), "org": row["_o"]} for row in found]

    async def count(self, kind: Kind, org: str, where: Filter) -> int:
        """How many match."""
        return await self._database.rows(kind).count_documents(condition(kind, where, org))

    async def count_each(
        self, kind: Kind, org: str, wheres: Sequence[Filter], at_most: int
    ) -> list[int]:
        """How many match each of the filters, up to a bound."""
        rows = self._database.rows(kind)
        counts: list[int] = []
        for start in range(0, len(wheres), COUNTED_AT_ONCE):
            counts += await asyncio.gather(
                *(
                    rows.count_documents(condition(kind, where, org), limit=at_most)
                    for where in wheres[start : start + COUNTED_AT_ONCE]
                )
            )
        return counts

    async def count_groups(
        self, kind: Kind, org: str, fields: Sequence[str], where: Filter, at_most: int
    ) -> dict[tuple[Value, ...], int]:
        """How many match, by their values in some fields."""
        if not fields:
            raise ValueError("groups need a field")
        names = [kind.field(name) for name in fields]
        query = condition(kind, where, org)
        if at_most <= 0:
            return {}
        steps: list[dict[str, Any]] = [
            {"$match": query},
            {
                "$group": {
                    "_id": {f"v{place}": f"${name}" for place, name in enumerate(names)},
                    "count": {"$sum": 1},
                }
            },
            {"$sort": {f"_id.v{place}": 1 for place in range(len(names))}},
            {"$limit": at_most},
        ]
        cursor = await self._database.rows(kind).aggregate(steps)
        groups: dict[tuple[Value, ...], int] = {}
        for row in await cursor.to_list():
            values = tuple(row["_id"].get(f"v{place}") for place in range(len(names)))
            groups[values] = groups.get(values, 0) + int(row["count"])
        return groups

    async def sum(self, kind: Kind, org: str, field: str, where: Filter) -> int:
        """The sum of a field."""
        steps = [
            {"$match": condition(kind, where, org)},
            {"$group": {"_id": None, "sum": {"$sum": f"${kind.field(field)}"}}},
        ]
        cursor = await self._database.rows(kind).aggregate(steps)
        found = await cursor.to_list()
        return int(found[0]["sum"]) if found else 0

    # -- writing ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _turn(self, kind: Kind, id: str) -> AsyncIterator[None]:
        # Writers of one node take turns, so that compare-and-set fails between nodes only.
        name = f"{kind.name}/{id}"
        lock = self._turns.get(name)
        if lock is None:
            lock = self._turns[name] = asyncio.Lock()
        async with lock:
            yield

    async def insert(self, kind: Kind, org: str, doc: Document) -> Document | None:
        """Store a new document; returns None, or the one that has its id already.

        Raises:
            Duplicate: another document has its values under a unique index.
        """
        row = {**kind.row(org, doc), "_v": version()}
        rows = self._database.rows(kind)
        for _ in range(ATTEMPTS):
            try:
                await rows.insert_one(row)
                return None
            except DuplicateKeyError:
                there = await rows.find_one({"_id": row["_id"]})
            if there is None:
                await self._conflicts.in_the_way(kind, row)
            elif live(there):
                return document(there)
            elif "_r" in there:
                await self._conflicts.settle(kind, there)
            elif await self._replace(kind, there, {**row, "_p": True}):
                return None
        raise Unavailable(_CONTENDED)

    async def _replace(self, kind: Kind, there: Row, row: Row) -> bool:
        """Store a row in place of this very one; False if that has changed.

        Raises:
            Duplicate: another document has one of its values.
        """
        same = {"_id": there["_id"], "_v": there["_v"]}
        try:
            found = await self._database.rows(kind).replace_one(same, {**row, **ownership(there)})
        except DuplicateKeyError:
            await self._conflicts.in_the_way(kind, row)
            return False
        return bool(found.matched_count)

    async def put(self, kind: Kind, org: str, doc: Document) -> None:
        """Store a document, whether there is one or not.

        Raises:
            Duplicate: another document has one of its values.
        """
        async with self._turn(kind, row_id(org, doc["id"])):
            for _ in range(ATTEMPTS):
                row = {**kind.row(org, doc), "_v": version()}
                there = await self._database.rows(kind).find_one({"_id": row["_id"]})
                if live(there) and there is not None:
                    check_plain(there)
                    if await self._replace(kind, there, row):
                        return
                elif await self.insert(kind, org, doc) is None:
                    return
        raise Unavailable(_CONTENDED)

    async def update(
        self,
        kind: Kind,
        org: str,
        id: str,
        set: Mapping[str, Any],
        inc: Mapping[str, int],
        where: Mapping[str, Any],
    ) -> Document | None:
        """Change a document if it is there and `where` holds; returns it as it is now.

        Raises:
            Duplicate: another document has one of its new values.
        """
        if "id" in set or "id" in inc:
            raise ValueError("a document's id cannot be changed")
        name = row_id(org, id)
        async with self._turn(kind, name):
            for _ in range(ATTEMPTS):
                there = await self._database.rows(kind).find_one({"_id": name})
                if there is None or not live(there):
                    return None
                doc = document(there)
                if not matches(doc, where):
                    return None
                check_plain(there)
                row = {**kind.row(org, changed(doc, set, inc)), "_v": version()}
                if await self._replace(kind, there, row):
                    return document(row)
        raise Unavailable(_CONTENDED)

    async def delete(self, kind: Kind, query: Query) -> int:
        """Remove the documents that match. What belongs to a stream leaves a tombstone, so that
        a late projection does not bring it back.
        """
        rows = self._database.rows(kind)
        plain = await rows.delete_many({**query, "_w": None})
        owned = await rows.update_many(
            {**query, "_w": {"$ne": None}},
            {
                "$set": {"_x": self._database.milliseconds(), "_v": version()},
                "$unset": dict.fromkeys(kind.content, ""),
            },
        )
        return plain.deleted_count + owned.modified_count

    async def write(self, org: str, changes: Sequence[Change]) -> None:
        """Make changes in order, those that can be together in one command.

        Raises:
            Duplicate: an insert met a document with its id, or a unique index.
        """
        prepared = [(self._database.kind(change.collection), change) for change in changes]
        for kind, change in prepared:
            if isinstance(change, Insert | Put):
                kind.row(org, change.doc)
            if not isinstance(change, Put | Delete) and change.stamp is not None:
                raise ValueError("only an append stamps a document")
        place = 0
        while place < len(prepared):
            kind, change = prepared[place]
            if isinstance(change, Insert):
                docs = _docs(prepared[place : place + CHUNK], Insert)
                await self._insert_all(kind, org, docs)
                place += len(docs)
                continue
            if isinstance(change, Put) and not kind.unique:
                docs = _docs(prepared[place : place + CHUNK], Put)
                await self._put_all(kind, org, docs)
                place += len(docs)
                continue
            if isinstance(change, Put):
                await self.put(kind, org, change.doc)
            elif isinstance(change, Delete):
                await self.delete(kind, {"_o": org, "_id": row_id(org, change.id)})
            else:
                await self.update(kind, org, change.id, change.set, change.inc, {})
            place += 1

    async def _insert_all(self, kind: Kind, org: str, docs: Sequence[Document]) -> None:
        done = 0
        if len(docs) > 1:
            rows = [{**kind.row(org, doc), "_v": version()} for doc in docs]
            try:
                await self._database.rows(kind).insert_many(rows)
                return
            except BulkWriteError as error:
                failed = error.details.get("writeErrors", ())
                if not failed or failed[0].get("code") != 11000:
                    raise
                done = failed[0]["index"]
        for doc in docs[done:]:
            if await self.insert(kind, org, doc) is not None:
                raise Duplicate(kind.name)

    async def _put_all(self, kind: Kind, org: str, docs: Sequence[Document]) -> None:
        """Store documents of a kind without unique values, whether they are there or not."""
        wanted = {row_id(org, doc["id"]): doc for doc in docs}
        rows = self._database.rows(kind)
        found = await rows.find({"_id": {"$in": list(wanted)}}, {"_w": 1}).to_list()
        # What belongs to a stream, or is left of it, has to stay known as such.
        apart = {row["_id"] for row in found if "_w" in row}
        there = [row["_id"] for row in found if row["_id"] not in apart]
        replaced = [
            ReplaceOne({"_id": id, "_w": None}, self._put_row(kind, org, wanted[id]))
            for id in there
        ]
        for start in range(0, len(replaced), REPLACED):
            some = replaced[start : start + REPLACED]
            done = await rows.bulk_write(some, ordered=False)
            if done.matched_count < len(some):  # one has gone, or come to belong to a stream
                apart |= set(there[start : start + REPLACED])
        fresh = wanted.keys() - {row["_id"] for row in found}
        try:
            if fresh:
                await rows.insert_many([self._put_row(kind, org, wanted[id]) for id in fresh])
        except BulkWriteError as error:
            if any(each.get("code") != 11000 for each in error.details["writeErrors"]):
                raise
            apart |= fresh  # some have come to be meanwhile
        for id in apart:
            await self.put(kind, org, wanted[id])

    @staticmethod
    def _put_row(kind: Kind, org: str, doc: Document) -> Row:
        return {**kind.row(org, doc), "_v": version()}


def _docs(prepared: Sequence[tuple[Kind, Change]], type: type[Insert | Put]) -> list[Document]:
    """The documents of the first changes that are of one kind and type."""
    docs = []
    for kind, change in prepared:
        if kind is not prepared[0][0] or not isinstance(change, type):
            break
        docs.append(change.doc)
    return docs
