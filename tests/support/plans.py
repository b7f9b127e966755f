"""How SQLite answers each statement that a test has it answer: by an index, or by reading and sorting
what grows. Every statement is explained the first time it is met, in the test that met it.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from server.features import COLLECTIONS
from store.sqlite import schema

ALLOWED = {
    "SELECT id FROM streams": "new epochs, after a database was put back: each stream gets one",
}
"""Statements that read all of something which grows, and why they may."""

_COLLECTIONS = {collection.name: collection for collection in COLLECTIONS}

_GROWING = r"(t|h|x|s|e|k|c_\w+|streams|events|keys)\b"
_ALL_OF_IT = re.compile(rf"SCAN {_GROWING}")
_ALL_OF_AN_ORGANIZATION = re.compile(r"SEARCH .*\(_org=\?\)\Z")
_ONCE = re.compile(r"= json_extract\(_doc, '\$\.|\AINSERT INTO \"set ")
_BEGINS = ("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")

_seen: set[str] = set()
_slow: list[str] = []

SLOW = "no index answers this, and its collection does not say so: "


class _Explained(sqlite3.Connection):
    """A connection that looks at the plan of what it is asked."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql not in _seen and sql.startswith(_BEGINS):
            _seen.add(sql)
            rows = super().execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            found = [row[3] for row in rows]
            if is_slow(sql, found):
                _slow.append("\n  ".join([sql, *found]))
        return super().execute(sql, parameters)


def is_slow(sql: str, plan: list[str]) -> bool:
    """Whether a statement reads or sorts more than it answers, and nobody says that it may."""
    if sql in ALLOWED or _ONCE.search(sql):  # a migration reads everything once
        return False
    found = re.search(r'(?:FROM|UPDATE|JOIN) "c_(\w+)"', sql)
    if found and found[1] not in _COLLECTIONS:  # the tests' own collections have what they like
        return False
    return any(_grows(sql, step, plan) for step in plan) and not _is_declared(sql)


def _grows(sql: str, step: str, plan: list[str]) -> bool:
    if "USE TEMP B-TREE" in step:
        # Of one value in a unique index there is one row: nothing is left to sort.
        unique = any("USING INDEX unique" in each for each in plan)
        return not ("RIGHT PART" in step and unique)
    if _ALL_OF_IT.match(step):
        return True
    return (
        bool(_ALL_OF_AN_ORGANIZATION.match(step))
        and re.search(r"[th]\._org = \? AND", sql) is not None
    )


def _is_declared(sql: str) -> bool:
    """Whether the collection says that this query is one that no index answers alone."""
    if "ORDER BY +t." in sql:  # so it says itself: what is sorted was counted before, and is few
        return True
    parts = re.match(
        r'SELECT .* FROM (?:"set .*" AS h CROSS JOIN )?"c_(\w+)" AS t(?: ON .*)? +WHERE (.*?)(?: ORDER BY (.*?))?(?: LIMIT .*)?\Z',
        sql,
    )
    if parts is None:
        return False
    where = set(re.findall(r'[thx]\."(\w+)"', parts[2]))
    order = tuple(
        ("-" if way else "") + name
        for name, way in re.findall(r'[+]?[th]\."?(\w+)"?( DESC)?', parts[3] or "")
    )
    declared = _COLLECTIONS[parts[1]].unindexed
    return any(where == set(each.where) and order == each.order for each in declared)


def _explaining() -> SimpleNamespace:
    """The module `sqlite3`, but that its connections look at their plans."""
    module = SimpleNamespace(**{name: getattr(sqlite3, name) for name in dir(sqlite3)})
    module.connect = lambda *args, **more: sqlite3.connect(*args, factory=_Explained, **more)
    return module


@contextmanager
def explained() -> Iterator[None]:
    """Fails at its end if a statement was met that is slow."""
    _slow.clear()
    with patch.object(schema, "sqlite3", _explaining()):
        yield
    found = list(_slow)
    assert not found, SLOW + "\n".join(found)


def explain_aloud() -> None:
    """In a server's process: what is slow is written to its log."""

    class Aloud(list[str]):
        def append(self, text: str, /) -> None:
            print(f"{SLOW}{text}", flush=True)

    global _slow
    _slow = Aloud()
    patch.object(schema, "sqlite3", _explaining()).start()
