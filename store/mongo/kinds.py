"""How a collection's documents are kept.

A stored document is the document as JSON text beside what is looked up by: the declared fields
under their own names, and under names with an underscore what the engine needs:

- `_id`: organization and id; `_o`: the organization. Without `_o` there is no document: what is
  left is a tombstone or a reservation, and no query by organization finds it.
- `_j`: the document as JSON text; `_c`: the shape that the other fields were made by.
- `_u_<fields>`: the values under a unique index; missing if one of them is null.
- `_t_<field>`: the words to be searched for.
- `_v`: changes with every write: what a compare-and-set compares.
- `_w`, `_s`: the stream that the document belongs to, and the seq of the append that wrote it.
- `_p`: set if it belongs to no stream any more: a plain write put it where another was removed.
- `_x`: when a tombstone or reservation was made, in Unix milliseconds; `_r`: by which append it
  was reserved.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from domain.ids import key_digest
from store.engine import Collection, Document
from store.words import WORDS, tokens

Row = dict[str, Any]
"""A document as MongoDB has it."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_NESTED = (list, dict, tuple)
_INT64 = 2**63


def version() -> int:
    """A value that no other version of a document has."""
    return secrets.randbits(62)


class Shape(NamedTuple):
    """What is kept beside a collection's documents. Shapes only grow: versions of the program
    that declare different things must not take each other's fields away.
    """

    columns: frozenset[str]
    uniques: frozenset[tuple[str, ...]]
    texts: frozenset[str]
    sets: frozenset[str] = frozenset()

    def union(self, other: "Shape") -> "Shape":
        """All that either has."""
        return Shape(
            self.columns | other.columns,
            self.uniques | other.uniques,
            self.texts | other.texts,
            self.sets | other.sets,
        )

    @property
    def digest(self) -> str:
        """A short name for it."""
        return key_digest(
            *sorted(self.columns),
            "",
            *sorted("+".join(fields) for fields in self.uniques),
            "",
            *sorted(f"{name} {WORDS}" for name in self.texts),
            *sorted(f"{name} set" for name in self.sets),
        )[:12]


class Kind:
    """One collection: from documents to rows and back."""

    def __init__(self, collection: Collection) -> None:
        for name in (collection.name, *collection.columns, *collection.sets):
            if not _NAME.match(name):
                raise ValueError(f"{collection.name}: {name!r} cannot be the name of a field")
        self.collection = collection
        self.name = collection.name
        self.declared = frozenset(collection.columns)
        self._widen(
            Shape(
                self.declared,
                frozenset(index.fields for index in collection.indexes if index.unique),
                frozenset(() if collection.text is None else (collection.text,)),
                frozenset(collection.sets),
            )
        )

    def _widen(self, shape: Shape) -> None:
        self.shape = shape
        self.digest = shape.digest
        self._columns = tuple(sorted(shape.columns - shape.sets))
        self._sets = tuple(sorted(shape.sets))
        self._uniques = tuple((unique_field(fields), fields) for fields in sorted(shape.uniques))
        self._texts = tuple((text_field(name), name) for name in sorted(shape.texts))

    def widen(self, shape: Shape) -> None:
        """Keep what other versions of the program declare too."""
        self._widen(self.shape.union(shape))

    @property
    def unique(self) -> bool:
        """Whether documents can be in each other's way by more than their ids."""
        return bool(self._uniques)

    def field(self, name: str) -> str:
        """A declared field.

        Raises:
            ValueError: it is not declared.
        """
        if name != "id" and name not in self.declared:
            raise ValueError(f"{self.name}: {name!r} is not a declared field")
        return name

    def is_set(self, name: str) -> bool:
        """Whether a field is a set field."""
        return name in self.collection.sets

    def row(self, org: str, doc: Document, *, old: bool = False) -> Row:
        """A document as it is stored, but for `_v`, `_w` and `_s`. An `old` one may be of a version of
        the program that had no set fields, and held nothing against what they may have.

        Raises:
            ValueError: it has no id, or a declared field holds what cannot be compared.
            TypeError: it is no JSON.
        """
        id = doc.get("id")
        if not isinstance(id, str):
            raise ValueError(f"{self.name}: a document needs an id")
        row: Row = {"_id": row_id(org, id), "_o": org, "_c": self.digest, "id": id}
        for name in self._columns:
            row[name] = self._value(name, doc.get(name))
        if not old:
            self.collection.check_sets(doc)
        for name in self._sets:
            row[name] = self._strings(doc.get(name))
        row |= self.unique_values(org, doc)
        for field, name in self._texts:
            row[field] = tokens(doc.get(name))
        row["_j"] = orjson.dumps(doc).decode()
        return row

    @staticmethod
    def _strings(value: Any) -> list[str]:
        listed = value if isinstance(value, list | tuple) else ()
        return list(dict.fromkeys(each for each in listed if isinstance(each, str)))

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, _NESTED):
            raise ValueError(f"{self.name}: {name} is declared and must hold a plain value")
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise ValueError(f"{self.name}: {name} has more than 64 bits")
        return value

    def unique_values(self, org: str, doc: Mapping[str, Any]) -> Row:
        """What of a document must be nobody else's, by stored field."""
        values = {}
        for field, fields in self._uniques:
            held = [doc.get(name) for name in fields]
            if None not in held:
                values[field] = orjson.dumps([org, *held]).decode()
        return values

    @property
    def unique_fields(self) -> Iterable[str]:
        """The stored fields of the unique indexes."""
        return (field for field, _ in self._uniques)

    @property
    def text_fields(self) -> Iterable[str]:
        """The stored fields with words."""
        return (field for field, _ in self._texts)

    @property
    def content(self) -> tuple[str, ...]:
        """The stored fields that a tombstone does not have."""
        made = (*self.unique_fields, *self.text_fields)
        return ("_o", "_c", "_j", "_p", "id", *self._columns, *self._sets, *made)


def row_id(org: str, id: str) -> str:
    """The `_id` of a document.

    Raises:
        ValueError: no organization is called so.
    """
    if "/" in org:
        raise ValueError("an organization's id has no slash")
    return f"{org}/{id}"


def unique_field(fields: Iterable[str]) -> str:
    """The stored field of a unique index."""
    return "_u_" + "__".join(fields)


def text_field(name: str) -> str:
    """The stored field of a text's words."""
    return f"_t_{name}"


def ownership(row: Row) -> Row:
    """What says which append wrote a row last; empty if none did."""
    return {name: value for name, value in row.items() if name in {"_w", "_s", "_p"}}


def check_plain(row: Row) -> None:
    """Hold a plain change against whose the document is.

    Raises:
        ValueError: it belongs to a stream.
    """
    if row.get("_w") is not None and "_p" not in row:
        raise ValueError(f"{row['_id']} belongs to the stream {row['_w']}")


def live(row: Row | None) -> bool:
    """Whether there is a document."""
    return row is not None and "_o" in row


def document(row: Row) -> Document:
    """The document of a live row."""
    doc: Document = orjson.loads(row["_j"])
    return doc
