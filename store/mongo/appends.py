"""What an append does, worked out before anything is written: the documents as it leaves them."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from store.conditions import matches
from store.engine import Append, Change, Delete, Document, Duplicate, GuardFailed, Insert, Put
from store.mongo.database import Database
from store.mongo.kinds import Kind, Row, document, live, row_id
from store.mongo.log import encoded, ordered
from store.mongo.projection import Image, Op, owned, tombstone
from store.mongo.query import changed

Key = tuple[str, str]
"""A document: its collection and `_id`."""

Snapshot = Mapping[Key, Row]
"""Rows as of the stream's head; those that are not there are left out."""


class Decided(NamedTuple):
    """What an append does to one document."""

    kind: Kind
    image: Image
    fresh: bool
    """Whether there was no such document before."""


class Prepared:
    """An append, checked, and what has to be read for it."""

    def __init__(self, database: Database, append: Append) -> None:
        """Check it.

        Raises:
            ValueError: it has no event, or something in it cannot be stored.
            TypeError: something in it is no JSON.
        """
        if not append.events:
            raise ValueError("an append needs an event")
        ordered(append, 1)
        self.append = append
        self.simple = not append.redactions
        """Whether it may go together with others: it takes nothing out of the log, and keeps no unique
        value for itself."""
        self.size = sum(len(event["data"]) for event in encoded(append, 1))
        """Bytes of its events and documents, roughly."""
        self._database = database
        org = append.org
        self.changes: list[tuple[Kind, str, Change]] = []
        for change in append.changes:
            kind = database.kind(change.collection)
            if isinstance(change, Insert | Put):
                self.size += len(kind.row(org, change.doc)["_j"])
                self.simple = self.simple and not kind.unique
                id = change.doc["id"]
            else:
                id = change.id
                if not isinstance(change, Delete):
                    if "id" in change.set or "id" in change.inc or change.stamp == "id":
                        raise ValueError("a document's id cannot be changed")
                    kind.row(org, {**change.set, "id": id})
            self.changes.append((kind, row_id(org, id), change))
        self.guards = [
            (database.kind(guard.collection), row_id(org, guard.id), guard)
            for guard in append.guards
        ]

    def judge(self, rows: Snapshot) -> None:
        """Hold the guards against what is there.

        Raises:
            GuardFailed: the first one that does not hold.
        """
        for kind, id, guard in self.guards:
            row = rows.get((kind.name, id))
            there = live(row)
            holds = (
                there
                and row is not None
                and (not guard.where or matches(document(row), guard.where))
            )
            if holds == guard.absent:
                raise GuardFailed(guard)

    def decide(self, rows: Snapshot, seq: int) -> list[Decided]:
        """The documents as the append leaves them, if its first event gets this seq.

        Raises:
            Duplicate: two new documents want the same unique value.
            ValueError: a document belongs to another stream, or a unique value would change.
            TypeError: a field to add to is no number.
        """
        drafts: dict[Key, _Draft] = {}
        for kind, id, change in self.changes:
            key = (kind.name, id)
            draft = drafts.get(key)
            if draft is None:
                draft = drafts[key] = _Draft(kind, id, rows.get(key))
            draft.make(change, seq)
        taken: set[tuple[str, str, str]] = set()
        decided = []
        for draft in drafts.values():
            image = draft.image(self.append, seq, self._database.milliseconds())
            if image is None:
                continue
            decided.append(Decided(draft.kind, image, fresh=not draft.was_there))
            for field in draft.kind.unique_fields:
                value = image.row.get(field)
                if value is not None:
                    if (draft.kind.name, field, value) in taken:
                        raise Duplicate(draft.kind.name)
                    taken.add((draft.kind.name, field, value))
        return decided


def reads(together: Iterable[Prepared]) -> dict[str, set[str]]:
    """The `_id`s to be read for appends that are decided one after the other, by collection.

    A document that is only inserted need not be: one that is there already stays.
    """
    times: dict[Key, int] = {}
    wanted: dict[str, set[str]] = {}
    inserted: list[Key] = []
    for one in together:
        for kind, id, change in one.changes:
            key = (kind.name, id)
            times[key] = times.get(key, 0) + 1
            if isinstance(change, Insert) and not kind.unique:
                inserted.append(key)
            else:
                wanted.setdefault(kind.name, set()).add(id)
        for kind, id, _ in one.guards:
            wanted.setdefault(kind.name, set()).add(id)
    for name, id in inserted:
        if times[name, id] > 1:
            wanted.setdefault(name, set()).add(id)
    return wanted


async def read_rows(database: Database, wanted: Mapping[str, set[str]]) -> dict[Key, Row]:
    """The rows of these `_id`s, by collection: one query for each, side by side."""

    async def of(name: str, ids: set[str]) -> list[Row]:
        return await database.rows(database.kinds[name]).find({"_id": {"$in": list(ids)}}).to_list()

    found = await asyncio.gather(*(of(name, ids) for name, ids in wanted.items()))
    return {
        (name, row["_id"]): row for name, rows in zip(wanted, found, strict=True) for row in rows
    }


class _Draft:
    """One document while an append's changes are made to it, one after the other."""

    def __init__(self, kind: Kind, id: str, row: Row | None) -> None:
        self.kind = kind
        self.id = id
        self._before = row if live(row) else None
        self._doc: Document | None = None if self._before is None else document(self._before)
        self._op: Op | None = None

    @property
    def was_there(self) -> bool:
        """Whether there was a document before."""
        return self._before is not None

    def make(self, change: Change, seq: int) -> None:
        """Make one change."""
        if isinstance(change, Insert):
            if self._doc is None:
                stamp = {} if change.stamp is None else {change.stamp: seq}
                self._doc = {**change.doc, **stamp}
                self._op = "new" if self._op is None else "put"
        elif isinstance(change, Put):
            self._doc = change.doc
            self._op = "put"
        elif isinstance(change, Delete):
            self._doc = None
            self._op = "gone"
        elif self._doc is not None:
            self._doc = changed(self._doc, change.set, change.inc)
            if change.stamp is not None:
                self._doc[change.stamp] = seq
            self._op = self._op or "set"

    def image(self, append: Append, seq: int, now: int) -> Image | None:
        """The document at the end; None if nothing comes of it."""
        if self._op is None or (self._doc is None and self._before is None):
            return None
        if self._doc is None:
            return tombstone(self.kind, self.id, append.stream, seq, now)
        row = self.kind.row(append.org, self._doc)
        if self._before is not None:
            self._check_unchanged(self._before, row, append)
        return Image(self.kind.name, self._op, owned(row, append.stream, seq))

    def _check_unchanged(self, before: Row, row: Row, append: Append) -> None:
        owner = before.get("_w")
        if owner is not None and owner != append.stream:
            raise ValueError(f"{self.kind.name}: {self.id} belongs to the stream {owner}")
        if any(before.get(field) != row.get(field) for field in self.kind.unique_fields):
            raise ValueError(
                f"{self.kind.name}: an append does not change the unique values of {self.id}"
            )
