"""A collection's table: one real column per declared field, filled from the document."""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import re
from collections.abc import Mapping
from typing import Any

from store.engine import Collection, Index
from store.sqlite.bulk import Bulk
from store.sqlite.sets import SetIndex

_NESTED = (list, dict, tuple)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


class Table:
    """Names and statements of one collection, made once.

    `_rowid` is given by the writer, ascending for good; `_org` owns the row; `id` is the
    document's; then the declared fields; `_stream` is the stream that the document belongs to, null
    if no append ever wrote it; `_doc` is the document as JSON text.
    """

    def __init__(self, collection: Collection) -> None:
        for name in (collection.name, *collection.columns, *collection.sets):
            if not _NAME.match(name):
                raise ValueError(f"{collection.name}: {name!r} cannot be the name of a column")
        named = ("id", *collection.columns, *collection.sets)
        if len({name.lower() for name in named}) < len(named):
            raise ValueError(f"{collection.name}: fields differ in case only")
        self.collection = collection
        self.columns = collection.columns
        self.places = {name: place for place, name in enumerate(collection.columns)}
        self.plain = f"c_{collection.name}"
        self.name = f'"{self.plain}"'
        self.fts = f'"fts_{collection.name}"' if collection.text is not None else None
        self.sets = [
            SetIndex(self.plain, name, fields) for fields, name in collection.set_indexes.items()
        ]
        self.uniques = tuple(index.fields for index in collection.indexes if index.unique)

        fields = [f'"{name}"' for name in self.columns]
        listed = ", ".join(["_rowid", "_org", "id", *fields, "_stream", "_doc"])
        numbered = [f"f{place}" for place in range(len(fields))]
        picked = ", ".join(f"v.{name}" for name in ("r", "org", "id", *numbered, "s", "json"))
        self.insert = Bulk(
            f"INSERT INTO {self.name} ({listed}) SELECT {picked} FROM {{rows}} AS v "
            "WHERE true ON CONFLICT (_org, id) DO NOTHING",
            " ".join(["r", "org", "id", *numbered, "s", "json"]),
        )
        self.load = Bulk(
            "SELECT t._org, t.id, t._rowid, CAST(t._doc AS BLOB), t._stream FROM {rows} AS v "
            f"CROSS JOIN {self.name} AS t ON t._org = v.org AND t.id = v.id",
            "org id",
        )
        self.update_doc = Bulk(
            f"UPDATE {self.name} SET _doc = v.json FROM {{rows}} AS v "
            f"WHERE {self.name}._rowid = v.r",
            "r json",
        )
        assigned = "".join(
            f"{field} = v.{value}, " for field, value in zip(fields, numbered, strict=True)
        )
        self.update_all = Bulk(
            f"UPDATE {self.name} SET {assigned}_stream = v.s, _doc = v.json FROM {{rows}} AS v "
            f"WHERE {self.name}._rowid = v.r",
            " ".join(["r", *numbered, "s", "json"]),
        )
        self.delete = Bulk(f"DELETE FROM {self.name} WHERE _rowid IN (SELECT r FROM {{rows}})", "r")
        if self.fts is not None:
            self.forget = Bulk(
                f"INSERT INTO {self.fts} ({self.fts}, rowid, text) "
                "SELECT 'delete', v.r, v.text FROM {rows} AS v",
                "r text",
            )
            self.learn = Bulk(
                f"INSERT INTO {self.fts} (rowid, text) SELECT v.r, v.text FROM {{rows}} AS v",
                "r text",
            )

    def column(self, field: str) -> str:
        """The quoted column of a declared field.

        Raises:
            ValueError: the field is not declared.
        """
        if field == "id":
            return "id"
        if field not in self.places:
            raise ValueError(f"{self.collection.name}: {field!r} is not a declared field")
        return f'"{field}"'

    def values(self, doc: Mapping[str, Any], *, old: bool = False) -> list[Any]:
        """What the declared columns hold for a document. An `old` one may be of a version of the program
        that had no set fields, and held nothing against what they may have.

        Raises:
            ValueError: a declared field holds an object or an array, or a set field anything but
                its strings.
        """
        if self.sets and not old:
            self.collection.check_sets(doc)
        values = [doc.get(name) for name in self.columns]
        for name, value in zip(self.columns, values, strict=True):
            if isinstance(value, _NESTED):
                raise ValueError(f"{self.collection.name}: {name} cannot be queried as {value!r}")
        return values

    def unique_values(self, doc: Mapping[str, Any]) -> list[list[Any] | None]:
        """What of a document must be nobody else's, by unique index; None where it compares with
        nothing.
        """
        held = [[doc.get(name) for name in fields] for fields in self.uniques]
        return [None if None in values else values for values in held]

    def index_name(self, index: Index) -> str:
        """An index's name, which says all that it is."""
        kind = "unique" if index.unique else "index"
        return f"{kind} {self.plain} ({','.join(index.fields)})"

    def index_sql(self, index: Index) -> str:
        """The statement that makes an index. Not unique ones end with `id`, the last sort field."""
        fields = [self.column(name) for name in index.fields]
        if not index.unique and "id" not in index.fields:
            fields.append("id")
        return (
            f'CREATE {"UNIQUE " if index.unique else ""}INDEX "{self.index_name(index)}" '
            f"ON {self.name} ({', '.join(['_org', *fields])})"
        )

    @property
    def indexes(self) -> dict[str, str]:
        """By name: the statements that make the indexes."""
        made = {
            self.index_name(index): self.index_sql(index)
            for index in self.collection.indexes
            # The key is one of ids; those of sets are tables.
            if index.fields != ("id",) and not set(self.collection.sets) & set(index.fields)
        }
        for index in self.collection.indexes:
            if index.ordered:
                fields = [self.column(name) for name in index.fields]
                if "id" not in index.fields:
                    fields.append("id")
                name = f"ordered {self.plain} ({','.join(index.fields)})"
                made[name] = f'CREATE INDEX "{name}" ON {self.name} ({", ".join(fields)}, _org)'
        return made


def tables(collections: tuple[Collection, ...]) -> dict[str, Table]:
    """The tables of all collections by collection name.

    Raises:
        ValueError: two collections of one name.
    """
    made: dict[str, Table] = {}
    for collection in collections:
        if collection.name in made:
            raise ValueError(f"two collections are named {collection.name}")
        made[collection.name] = Table(collection)
    return made
