"""What the readers' threads do: SQL in, documents and events out."""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import orjson

from domain.events import Actor, StoredEvent
from store.conditions import check_any_org_order
from store.engine import Document, Filter, Value
from store.sqlite import query
from store.sqlite.cache import Entry, Place
from store.sqlite.tables import Table
from store.sqlite.transaction import place_of

Read = Callable[[sqlite3.Connection], Any]

ORGS = (
    "(WITH RECURSIVE orgs (org) AS (SELECT min(_org) FROM {table} UNION ALL "
    "SELECT (SELECT min(_org) FROM {table} WHERE _org > org) FROM orgs WHERE org IS NOT NULL) "
    "SELECT org FROM orgs WHERE org IS NOT NULL)"
)
"""The organizations in a table, one step in an index each: every index starts with one of them."""


def get(table: Table, org: str, id: str) -> Callable[[sqlite3.Connection], Entry | None]:
    """One document."""
    sql = f"SELECT _rowid, CAST(_doc AS BLOB), _stream FROM {table.name} WHERE _org = ? AND id = ?"

    def read(db: sqlite3.Connection) -> Entry | None:
        row = db.execute(sql, (org, id)).fetchone()
        return None if row is None else Entry(*row)

    return read


def get_many(
    table: Table, org: str, ids: Sequence[str]
) -> Callable[[sqlite3.Connection], dict[str, Entry]]:
    """Documents by id."""
    sql = (
        f"SELECT t.id, t._rowid, CAST(t._doc AS BLOB), t._stream FROM json_each(?) AS j "
        f"CROSS JOIN {table.name} AS t ON t._org = ? AND t.id = j.value"
    )
    listed = orjson.dumps(list(dict.fromkeys(ids))).decode()

    def read(db: sqlite3.Connection) -> dict[str, Entry]:
        return {id: Entry(*entry) for id, *entry in db.execute(sql, (listed, org))}

    return read


def find(
    table: Table,
    org: str,
    where: Filter,
    order: Sequence[str],
    after: Sequence[Value] | None,
    limit: int | None,
) -> Callable[[sqlite3.Connection], list[Document]]:
    """Documents that match, sorted."""
    sorting = query.order_of(table, order)
    source = query.source(table, where, sorting.fields)
    filtered = query.condition(table, where, source)
    parts = [query.Sql("", [])]
    if after is not None:
        parts = query.behind(source, sorting, after, query.never_null(where))
    start = f"SELECT CAST(t._doc AS BLOB) FROM {source.text} WHERE {source.org} = ?{filtered.text}"
    end = f"{query.order_by(table, sorting, source)} LIMIT ?"

    def read(db: sqlite3.Connection) -> list[Document]:
        found: list[Document] = []
        for part in parts:
            left = -1 if limit is None else limit - len(found)
            if left == 0:
                break
            params = [org, *filtered.params, *part.params, left]
            found += [orjson.loads(doc) for (doc,) in db.execute(start + part.text + end, params)]
        return found

    return in_snapshot(read) if len(parts) > 1 else read


def in_snapshot(read: Callable[[sqlite3.Connection], Any]) -> Callable[[sqlite3.Connection], Any]:
    """The same read, all of its statements as of one moment."""

    def whole(db: sqlite3.Connection) -> Any:
        db.execute("BEGIN")
        try:
            return read(db)
        finally:
            db.execute("ROLLBACK")

    return whole


def find_any_org(
    table: Table,
    where: Filter,
    limit: int,
    order: Sequence[str] | None,
    after: Sequence[Value] | None,
) -> Read:
    """Documents of any organization, each with its `org`; sorted if there is an order.

    Raises:
        ValueError: no index has this order.
    """
    if order is not None:
        return _find_in_order(table, where, limit, order, after)
    if after is not None:
        raise ValueError("what comes in no order has nothing behind it")
    filtered = query.condition(table, where)
    sql = (
        f"SELECT t._org, CAST(t._doc AS BLOB) FROM {table.name} AS t "
        f"WHERE t._org IN {ORGS.format(table=table.name)}{filtered.text} LIMIT ?"
    )

    def read(db: sqlite3.Connection) -> list[Document]:
        return [
            {**orjson.loads(doc), "org": org}
            for org, doc in db.execute(sql, [*filtered.params, limit])
        ]

    return read


def _find_in_order(
    table: Table,
    where: Filter,
    limit: int,
    order: Sequence[str],
    after: Sequence[Value] | None,
) -> Read:
    sorting = query.order_of(table, order, any_org=True)
    check_any_org_order(table.collection, where, order)
    filtered = query.condition(table, where)
    parts = [query.Sql("", [])]
    if after is not None:
        parts = query.behind(query.Source(table), sorting, after, query.never_null(where))
    start = f"SELECT t._org, CAST(t._doc AS BLOB) FROM {table.name} AS t WHERE true{filtered.text}"
    end = f"{query.order_by(table, sorting)} LIMIT ?"

    def read(db: sqlite3.Connection) -> list[Document]:
        found: list[Document] = []
        for part in parts:
            if len(found) == limit:
                break
            params = [*filtered.params, *part.params, limit - len(found)]
            rows = db.execute(start + part.text + end, params)
            found += [{**orjson.loads(doc), "org": org} for org, doc in rows]
        return found

    return in_snapshot(read) if len(parts) > 1 else read


def count_groups(
    table: Table, org: str, fields: Sequence[str], where: Filter, at_most: int
) -> Callable[[sqlite3.Connection], dict[tuple[Value, ...], int]]:
    """How many match, by their values in some fields."""
    if not fields:
        raise ValueError("groups need a field")
    source = query.source(table, where, (*fields, "id"))
    filtered = query.condition(table, where, source)
    names = ", ".join(source.column(name) for name in fields)
    sql = (
        f"SELECT {names}, count(*) FROM {source.text} WHERE {source.org} = ?{filtered.text} "
        f"GROUP BY {names} ORDER BY {names} LIMIT ?"
    )

    def read(db: sqlite3.Connection) -> dict[tuple[Value, ...], int]:
        rows = db.execute(sql, [org, *filtered.params, at_most])
        return {tuple(values): count for *values, count in rows}

    return read


def aggregate(
    table: Table, org: str, what: str, where: Filter
) -> Callable[[sqlite3.Connection], int]:
    """A number over the documents that match."""
    source = query.source(table, where)
    filtered = query.condition(table, where, source)
    sql = f"SELECT {what} FROM {source.text} WHERE {source.org} = ?{filtered.text}"

    def read(db: sqlite3.Connection) -> int:
        return cast(int, db.execute(sql, [org, *filtered.params]).fetchone()[0])

    return read


def count_each(
    table: Table, org: str, wheres: Sequence[Filter], at_most: int
) -> Callable[[sqlite3.Connection], list[int]]:
    """How many documents match each of the filters, up to a bound."""
    asked = []
    for where in wheres:
        source = query.source(table, where)
        filtered = query.condition(table, where, source)
        sql = (
            f"SELECT count(*) FROM (SELECT 1 FROM {source.text} "
            f"WHERE {source.org} = ?{filtered.text} LIMIT ?)"
        )
        asked.append((sql, [org, *filtered.params, at_most]))

    def read(db: sqlite3.Connection) -> list[int]:
        return [cast(int, db.execute(sql, params).fetchone()[0]) for sql, params in asked]

    return read


def places(streams: Iterable[str]) -> Callable[[sqlite3.Connection], dict[str, Place]]:
    """Streams by name, of any organization."""
    listed = orjson.dumps(list(streams)).decode()
    sql = (
        "SELECT s.name, s.id, s.org, s.epoch, s.trimmed, "
        "(SELECT max(e.seq) FROM events AS e WHERE e.stream = s.id) "
        "FROM json_each(?) AS j CROSS JOIN streams AS s ON s.name = j.value"
    )

    def read(db: sqlite3.Connection) -> dict[str, Place]:
        return {name: place_of(*place) for name, *place in db.execute(sql, (listed,))}

    return read


def events(
    org: str, stream: str, after: int, limit: int, max_bytes: int | None
) -> Callable[[sqlite3.Connection], list[StoredEvent]]:
    """A part of a stream's log."""
    sql = (
        "SELECT s.epoch, e.seq, e.type, e.at, e.actor, e.actor_kind, CAST(e.data AS BLOB) "
        "FROM streams AS s CROSS JOIN events AS e ON e.stream = s.id "
        "WHERE s.name = ? AND s.org = ? AND e.seq > ? ORDER BY e.seq LIMIT ?"
    )

    def read(db: sqlite3.Connection) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        size = 0
        cursor = db.execute(sql, (stream, org, after, limit))
        for epoch, seq, type, at, actor, kind, data in cursor:
            size += len(data)
            if max_bytes is not None and size > max_bytes and found:
                cursor.close()
                break
            found.append(StoredEvent(stream, epoch, seq, type, at, Actor(actor, kind), data))
        return found

    return read
