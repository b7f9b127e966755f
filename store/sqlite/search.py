"""Full-text search by FTS5. The writer keeps the index; see `IndexJob`."""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import re
import sqlite3
import unicodedata
from collections.abc import Callable

import orjson

from store.engine import Document, Filter
from store.sqlite import query
from store.sqlite.tables import Table

_WORD = re.compile(r"[^\W_]+")

MAX_WORDS = 32
"""Words of a query that are looked for; more are ignored."""


def words(text: str) -> list[str]:
    """The words of a text: runs of letters and digits, in the form FTS5's tokenizer makes too."""
    return _WORD.findall(unicodedata.normalize("NFC", text))[:MAX_WORDS]


def match(text: str) -> str | None:
    """A query as FTS5 takes it: every word in quotes, the last a prefix; None without words."""
    found = words(text)
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
