"""Statements that take many rows at once, whatever their number.

Every step of a statement gives up the interpreter's lock, and getting it back from a busy event
loop may take a whole switch interval. So a batch costs a few statements, not a few per row.
"""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

SIZES = (1, 4, 16, 64, 256)
"""Row counts a statement is prepared for; what is short of the next one is filled up with nulls
that LIMIT keeps from being looked at."""


class Bulk:
    """One statement with `{rows}` as a table expression of the rows it is given."""

    __slots__ = ("_columns", "_texts", "_width")

    def __init__(self, statement: str, columns: str) -> None:
        """Prepare for rows whose columns are named in `columns`, separated by spaces. The column
        `json` is bound as bytes and becomes text.
        """
        names = columns.split()
        self._width = len(names)
        self._columns = [
            f"CAST(column{place} AS TEXT) AS {name}"
            if name == "json"
            else f'column{place} AS "{name}"'
            for place, name in enumerate(names, 1)
        ]
        row = f"({','.join('?' * self._width)})"
        picked = ", ".join(self._columns)
        self._texts = {
            size: statement.replace(
                "{rows}", f"(SELECT {picked} FROM (VALUES {','.join([row] * size)}) LIMIT ?)"
            )
            for size in SIZES
        }

    def run(self, db: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Carry it out; returns how many rows it changed."""
        return sum(cursor.rowcount for cursor in self._steps(db, rows))

    def select(
        self, db: sqlite3.Connection, rows: Sequence[Sequence[Any]]
    ) -> Iterable[tuple[Any, ...]]:
        """What it finds for all the rows."""
        for cursor in self._steps(db, rows):
            yield from cursor.fetchall()

    def _steps(
        self, db: sqlite3.Connection, rows: Sequence[Sequence[Any]]
    ) -> Iterator[sqlite3.Cursor]:
        place, total = 0, len(rows)
        while place < total:
            left = total - place
            size = next((size for size in SIZES if size >= left), SIZES[-1])
            taken = rows[place : place + size]
            values = [value for row in taken for value in row]
            values += [None] * ((size - len(taken)) * self._width)
            values.append(len(taken))
            place += len(taken)
            yield db.execute(self._texts[size], values)
