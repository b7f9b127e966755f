"""Full-text search by FTS5. The writer keeps the index; see `IndexJob`.

FTS5 is given the words that `store.words` finds, in the form in which they are compared, and splits
at spaces only: its own tokenizer for Unicode knows no letters younger than 2012, takes newer emoji
for letters and vowel marks for spaces, and finds no "Straße" for "strasse".
"""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import sqlite3
from collections.abc import Callable

import orjson

from store.engine import Document, Filter
from store.sqlite import query
from store.sqlite.tables import Table
from store.words import MAX_WORDS, wanted_words, words

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
    """Documents that hold every word, newest id first; None if there is no word to look for."""
    matched = match(text)
    filtered = query.condition(table, where)
    if matched is None:
        return None
    bound = "" if before is None else " AND t.id < ?"
    sql = (
        f"SELECT CAST(t._doc AS BLOB) FROM {table.fts} AS f "
        f"CROSS JOIN {table.name} AS t ON t._rowid = f.rowid "
        f"WHERE {table.fts} MATCH ? AND t._org = ?{filtered.text}{bound} "
        "ORDER BY t.id DESC LIMIT ?"
    )
    params = [matched, org, *filtered.params]
    if before is not None:
        params.append(before)
    params.append(limit)

    def read(db: sqlite3.Connection) -> list[Document]:
        return [orjson.loads(doc) for (doc,) in db.execute(sql, params)]

    return read
