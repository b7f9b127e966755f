"""What a write does, made ready in the caller's thread: encoded, measured, checked."""

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any

import orjson

from store.engine import (
    Append,
    Change,
    Collection,
    Delete,
    Document,
    Insert,
    Put,
    Update,
)
from store.sqlite.cache import Key
from store.sqlite.tables import Table

Tables = Mapping[str, Table]


def table_of(tables: Tables, collection: Collection) -> Table:
    """The collection's table.

    Raises:
        ValueError: it was not declared to the engine.
    """
    table = tables.get(collection.name)
    if table is None:
        raise ValueError(f"the engine was not given the collection {collection.name}")
    return table


@cache
def _named(stamp: str) -> bytes:
    return orjson.dumps(stamp) + b":"


class Encoded:
    """A JSON object, but for the field that takes a seq, which is put in its place once known."""

    __slots__ = ("_last", "_lead", "_rest")

    def __init__(self, doc: Document, stamp: str | None) -> None:
        self._last: tuple[int, bytes] | None = None
        if stamp is None:
            self._lead: bytes | None = None
            self._rest = orjson.dumps(doc)
        else:
            names = list(doc)
            place = names.index(stamp) if stamp in doc else len(names)
            before = orjson.dumps({name: doc[name] for name in names[:place]})[:-1]
            rest = orjson.dumps({name: doc[name] for name in names[place + 1 :]})
            self._lead = before + (b"," if place else b"") + _named(stamp)
            self._rest = b"}" if rest == b"{}" else b"," + rest[1:]

    def text(self, seq: int) -> bytes:
        """The whole object; one and the same for the event and the document that it is."""
        if self._lead is None:
            return self._rest
        last = self._last
        if last is None or last[0] != seq:
            last = self._last = (seq, b"%b%d%b" % (self._lead, seq, self._rest))
        return last[1]

    def __len__(self) -> int:
        return len(self._rest)


class Whole:
    """An `Insert` or a `Put`."""

    __slots__ = ("encoded", "key", "put", "stamp_place", "table", "values")

    def __init__(
        self, table: Table, org: str, doc: Document, encoded: Encoded, stamp: str | None, put: bool
    ) -> None:
        id = doc.get("id")
        if not isinstance(id, str):
            raise ValueError(f"{table.collection.name}: a document needs an id")
        self.table = table
        self.key: Key = (table.collection.name, org, id)
        self.encoded = encoded
        self.values = table.values(doc)
        if stamp in table.collection.sets:
            raise ValueError(f"{table.collection.name}: {stamp} is no number")
        self.stamp_place = table.places.get(stamp) if stamp is not None else None
        self.put = put

    def columns(self, seq: int) -> list[Any]:
        """What the declared columns hold."""
        if self.stamp_place is not None:
            self.values[self.stamp_place] = seq
        return self.values

    @property
    def size(self) -> int:
        """Bytes that wait for the writer."""
        return len(self.encoded)


class Patch:
    """An `Update`."""

    __slots__ = ("inc", "key", "set", "size", "stamp", "table", "where")

    def __init__(
        self,
        table: Table,
        org: str,
        id: str,
        set: Mapping[str, Any],
        inc: Mapping[str, int],
        stamp: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> None:
        if "id" in set or "id" in inc or stamp == "id":
            raise ValueError("a document's id cannot be changed")
        self.table = table
        self.key: Key = (table.collection.name, org, id)
        encoded = orjson.dumps(set)
        self.size = len(encoded)
        self.set: dict[str, Any] = orjson.loads(encoded)  # the caller may change its own
        table.values(self.set)
        self.inc = dict(inc)
        self.stamp = stamp
        self.where = where

    def applied(self, doc: Document, seq: int | None) -> Document:
        """The document as it is afterwards.

        Raises:
            TypeError: a field to add to is no number.
        """
        changed = {**doc, **self.set}
        for name, step in self.inc.items():
            changed[name] = (changed.get(name) or 0) + step
        if self.stamp is not None and seq is not None:
            changed[self.stamp] = seq
        return changed


class Removal:
    """A `Delete`."""

    __slots__ = ("key", "size", "table")

    def __init__(self, table: Table, org: str, id: str) -> None:
        self.table = table
        self.key: Key = (table.collection.name, org, id)
        self.size = 0


Prepared = Whole | Patch | Removal


def prepare_change(
    tables: Tables, org: str, change: Change, shared: Mapping[tuple[int, str | None], Encoded]
) -> Prepared:
    """Make one change ready. `shared` has objects that are encoded already, by identity and stamp."""
    table = table_of(tables, change.collection)
    if isinstance(change, (Insert, Put)):
        stamp = change.stamp if isinstance(change, Insert) else None
        encoded = shared.get((id(change.doc), stamp)) or Encoded(change.doc, stamp)
        return Whole(table, org, change.doc, encoded, stamp, isinstance(change, Put))
    if isinstance(change, Update):
        return Patch(table, org, change.id, change.set, change.inc, change.stamp)
    return Removal(table, org, change.id)


def prepare_plain(tables: Tables, org: str, changes: Sequence[Change]) -> list[Prepared]:
    """Make plain changes ready.

    Raises:
        ValueError: a stamp, which only an append can give.
    """
    for change in changes:
        if not isinstance(change, Put | Delete) and change.stamp is not None:
            raise ValueError("only an append stamps a document")
    return [prepare_change(tables, org, change, {}) for change in changes]


class PreparedAppend:
    """An `Append`, ready for the writer."""

    __slots__ = ("append", "changes", "client", "events", "guards", "needs", "redactions", "size")

    def __init__(self, tables: Tables, append: Append) -> None:
        if not append.events:
            raise ValueError("an append needs an event")
        self.append = append
        self.client: bytes | None = None
        """Digest of the actor and the client_id of its idempotency key."""
        if append.key is not None:
            actor = append.actor
            text = f"{actor.kind}:{len(actor.id)}:{actor.id}:{append.key.client_id}"
            self.client = blake2b(text.encode(), digest_size=16).digest()
        shared: dict[tuple[int, str | None], Encoded] = {}
        self.events: list[tuple[str, Encoded]] = []
        for event in append.events:
            known = (id(event.data), event.stamp)
            encoded = shared.get(known)
            if encoded is None:
                encoded = shared[known] = Encoded(event.data, event.stamp)
            self.events.append((event.type, encoded))
        self.changes = [
            prepare_change(tables, append.org, change, shared) for change in append.changes
        ]
        self.guards = [
            ((table_of(tables, guard.collection).collection.name, append.org, guard.id), guard)
            for guard in append.guards
        ]
        # What is judged or built upon. A plain insert is neither: the file refuses a second one.
        self.needs: list[Key] = [key for key, _ in self.guards]
        for change in self.changes:
            if not isinstance(change, Whole) or change.put:
                self.needs.append(change.key)
        self.size = (
            400
            + sum(len(encoded) for _, encoded in self.events)
            + sum(change.size for change in self.changes)
        )
        self.redactions: Sequence[tuple[Sequence[int], bytes]] = ()
        """Seqs, and the fields to set as JSON text."""
        if append.redactions:
            self.redactions = [
                (tuple(each.seqs), orjson.dumps({**each.set})) for each in append.redactions
            ]
            self.size += sum(8 * len(seqs) + len(fields) for seqs, fields in self.redactions)
