"""Indexes over set fields: a table beside the collection's, with a row for each string of each document.

The tables are kept by triggers, so they are part of whatever writes a document, by which statement
ever it does.
"""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import sqlite3
from collections.abc import Iterable


class SetIndex:
    """An index of which one field is a set field. `_r` is the document's `_rowid`."""

    def __init__(self, table: str, set: str, fields: tuple[str, ...]) -> None:
        """`table` is the collection's, unquoted; `set` is one of the fields."""
        self.set = set
        self.fields = fields
        self.plain = f"set {table} ({','.join(fields)})"
        self.name = f'"{self.plain}"'
        self._table = f'"{table}"'

    def make(self, db: sqlite3.Connection) -> None:
        """Make it, and fill it from the documents that are there."""
        own = tuple(name for name in self.fields if name != "id")
        columns = "".join(f'"{name}", ' for name in own)
        listed = "".join(f'"{name}", ' for name in self.fields)
        last = "" if "id" in self.fields else "id, "
        db.execute(
            f"CREATE TABLE {self.name} "
            f"(_org TEXT NOT NULL, {columns}id TEXT NOT NULL, _r INTEGER NOT NULL)"
        )
        db.execute(f"INSERT INTO {self.name} {self._rows('t', f'{self._table} AS t, ')}")
        db.execute(f'CREATE INDEX "{self.plain} found" ON {self.name} (_org, {listed}{last}_r)')
        db.execute(f'CREATE INDEX "{self.plain} rows" ON {self.name} (_r)')
        add = f"INSERT INTO {self.name} {self._rows('new')}"
        remove = f"DELETE FROM {self.name} WHERE _r = old._rowid"
        changed = " OR ".join(
            f"json_extract(old._doc, '$.{name}') IS NOT json_extract(new._doc, '$.{name}')"
            if name == self.set
            else f'old."{name}" IS NOT new."{name}"'
            for name in own
        )
        for event, when, done in (
            ("INSERT", "", add),
            ("DELETE", "", remove),
            ("UPDATE", f"WHEN {changed}", f"{remove}; {add}"),
        ):
            db.execute(
                f'CREATE TRIGGER "{self.plain} {event}" AFTER {event} ON {self._table} {when} '
                f"BEGIN {done}; END"
            )

    def _rows(self, row: str, also: str = "") -> str:
        picked = ", ".join(
            "j.value" if name == self.set else f'{row}."{name}"'
            for name in self.fields
            if name != "id"
        )
        return (
            f"SELECT DISTINCT {row}._org, {picked}, {row}.id, {row}._rowid "
            f"FROM {also}json_each({row}._doc, '$.{self.set}') AS j WHERE j.type = 'text'"
        )


def drop_others(db: sqlite3.Connection, table: str, wanted: Iterable[SetIndex]) -> set[str]:
    """Remove what is declared no more, and return the unquoted names of what is there and wanted.
    `table` is the collection's, unquoted.
    """
    names = {index.plain for index in wanted}
    there = {
        name
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if name.startswith(f"set {table} (")
    }
    for name in there - names:
        for event in ("INSERT", "DELETE", "UPDATE"):
            db.execute(f'DROP TRIGGER IF EXISTS "{name} {event}"')
        db.execute(f'DROP TABLE "{name}"')
    return there & names
