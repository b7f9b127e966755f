"""Full-text search by FTS5. The writer keeps the index; see `IndexJob`.

FTS5 is given the words that `store.words` finds, in the form in which they are compared, and splits
at spaces only: its own tokenizer for Unicode knows no letters younger than 2012, takes newer emoji
for letters and vowel marks for spaces, and finds no "Straße" for "strasse".
"""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import sqlite3
from collections.abc import Callable, Iterable
from itertools import islice

import orjson

from store.conditions import each_of
from store.engine import Document, Filter, Is
from store.sqlite import query
from store.sqlite.tables import Table
from store.words import MAX_WORDS, holds, wanted_words, words

NEAR = 2000
"""Documents that are looked at one by one, before those that the index of words knows are."""

TOKENIZER = "ascii"
"""What FTS5 splits by: whatever is not ASCII belongs to a word, case is folded in ASCII alone."""


def indexed(text: str) -> str:
    """A text as FTS5 is given it."""
    return text if text.isascii() else " ".join(words(text))


def match(text: str) -> str | None:
    """A query as FTS5 takes it: every word in quotes, the last a prefix; None without words."""
    found = wanted_words(text)[:MAX_WORDS]
    if not found:
        return None
    return " ".join(f'"{word}"' for word in found) + "*"


def search(
    table: Table, org: str, text: str, where: Filter, limit: int, before: str | None
) -> Callable[[sqlite3.Connection], list[Document]] | None:
    """Documents that hold every word, newest id first; None if there is no word to look for.

    FTS5 gathers all hits of a word before the newest of them are known. So the newest documents are
    looked at first, which is enough for a word that is common, and all of them where a filter
    leaves few.
    """
    matched = match(text)
    filtered = query.condition(table, where)
    if matched is None:
        return None
    wanted = wanted_words(text)[:MAX_WORDS]
    field = table.collection.text or ""
    start = f"SELECT CAST(t._doc AS BLOB) FROM {table.name} AS t "
    narrow = _narrow(table, where)

    def sift(rows: Iterable[tuple[bytes]], room: int) -> list[Document]:
        docs = (orjson.loads(doc) for (doc,) in rows)
        return list(islice((doc for doc in docs if _holds(doc.get(field), wanted)), room))

    def few(db: sqlite3.Connection) -> bool:
        if narrow is None:
            return False
        sql = f"SELECT 1 FROM {table.name} AS t WHERE t._org = ?{narrow.text} LIMIT {NEAR + 1}"
        return len(db.execute(sql, [org, *narrow.params]).fetchall()) <= NEAR

    def look(db: sqlite3.Connection) -> list[Document]:
        bound, place = ("", []) if before is None else (" AND t.id < ?", [before])
        params = [org, *filtered.params, *place]
        if few(db):
            # Without the `+` all of the organization might be read by its ids.
            bound = bound.replace("t.id", "+t.id")
            sql = f"{start} WHERE t._org = ?{filtered.text}{bound} ORDER BY +t.id DESC"
            return sift(db.execute(sql, params), limit)
        key = f'INDEXED BY "key {table.plain}"'
        floor = db.execute(
            f"SELECT t.id FROM {table.name} AS t {key} WHERE t._org = ?{bound} "
            f"ORDER BY t.id DESC LIMIT 1 OFFSET {NEAR}",
            [org, *place],
        ).fetchone()
        behind, last = ("", []) if floor is None else (" AND t.id > ?", [floor[0]])
        sql = f"{start} {key} WHERE t._org = ?{filtered.text}{bound}{behind} ORDER BY t.id DESC"
        found = sift(db.execute(sql, [*params, *last]), limit)
        if floor is None or len(found) == limit:
            return found
        sql = (
            f"SELECT CAST(t._doc AS BLOB) FROM {table.fts} AS f "
            f"CROSS JOIN {table.name} AS t ON t._rowid = f.rowid "
            f"WHERE {table.fts} MATCH ? AND t._org = ?{filtered.text} AND t.id <= ? "
            "ORDER BY +t.id DESC LIMIT ?"  # FTS5 gives its hits in no order of ids
        )
        older = db.execute(sql, [matched, org, *filtered.params, *last, limit - len(found)])
        return found + [orjson.loads(doc) for (doc,) in older]

    def read(db: sqlite3.Connection) -> list[Document]:
        db.execute("BEGIN")  # all of it as of one moment
        try:
            return look(db)
        finally:
            db.execute("ROLLBACK")

    return read


def _narrow(table: Table, where: Filter) -> query.Sql | None:
    """The part of a filter that an index answers; None if there is none."""
    leading = {index.fields[0] for index in table.collection.indexes}
    chosen = {
        name: value
        for name, value in where.items()
        if name in leading
        and any(not isinstance(each, Is) or each.op == "in" for each in each_of(value))
    }
    return query.condition(table, chosen) if chosen else None


def _holds(text: object, wanted: list[str]) -> bool:
    """As `store.words.holds`; most texts are told apart without taking their words."""
    if not isinstance(text, str):
        return False
    if text.isascii():
        lower = text.lower()
        if not all(word in lower for word in wanted):
            return False
    return holds(text, wanted)
