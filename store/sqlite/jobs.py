"""Operations that wait for the writer, and how each is decided within a transaction."""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from domain.events import StoredEvent
from domain.streams import Head
from store.conditions import matches
from store.engine import Appended, ForeignStream, GuardFailed, KeyReused
from store.sqlite.cache import Key, Place
from store.sqlite.prepare import Patch, Prepared, PreparedAppend, Whole
from store.sqlite.query import Source, Sql
from store.sqlite.reads import ORGS
from store.sqlite.rows import text_of
from store.sqlite.tables import Table
from store.sqlite.transaction import Transaction, UsedKey, new_epoch


class Job(ABC):
    """One operation: made by a caller, decided by the writer, settled in the event loop."""

    __slots__ = ("error", "future", "result", "since", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        """About how many bytes it keeps waiting."""
        self.since = 0.0
        """When it was submitted, by the monotonic clock."""
        self.future: asyncio.Future[Any] | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    def rows(self) -> Iterable[Key]:
        """The documents to load before it is decided."""
        return ()

    @property
    def stream(self) -> str | None:
        """The stream to load before it is decided."""
        return None

    @abstractmethod
    def decide(self, tx: Transaction) -> Any:
        """Judge, change the transaction, return the result. What it raises is the caller's, and
        then it must have changed nothing but documents.
        """


class Barrier(Job):
    """An operation that works on the file itself: what was decided before it is written first."""

    __slots__ = ()


class Replay(NamedTuple):
    """The answer to an append whose key was used before."""

    head: Head
    seq: int
    length: int


class AppendJob(Job):
    """`Engine.append`."""

    __slots__ = ("prepared",)

    def __init__(self, prepared: PreparedAppend) -> None:
        super().__init__(prepared.size)
        self.prepared = prepared

    def rows(self) -> Iterable[Key]:
        return self.prepared.needs

    @property
    def stream(self) -> str | None:
        return self.prepared.append.stream

    def used_key(self, tx: Transaction) -> UsedKey | None:
        """Its idempotency key, if it has one and its stream is there."""
        client = self.prepared.client
        if client is None:
            return None
        place = tx.stream(self.prepared.append.stream)
        return None if place is None else (place.id, client)

    def decide(self, tx: Transaction) -> Appended | Replay:
        prepared, append = self.prepared, self.prepared.append
        place = tx.stream(append.stream)
        if place is not None and place.org != append.org:
            raise ForeignStream(append.stream)
        client = prepared.client
        if place is not None and client is not None and append.key is not None:
            used = tx.used((place.id, client))
            if used is not None:
                first, length, digest = used
                if digest != append.key.digest:
                    raise KeyReused(append.key.client_id)
                return Replay(place.head, first, length)
        for guarded, guard in prepared.guards:
            row = tx.row(guarded)
            doc = row.document() if row is not None else None
            found = doc is not None and (not guard.where or matches(doc, guard.where))
            if found == guard.absent:
                raise GuardFailed(guard)

        first = place.head.seq + 1 if place is not None else 1
        owner = tx.stream_id(append.stream)
        for change in prepared.changes:
            tx.apply(change, first, strict=False, owner=owner)
        tx.check_owned(owner)

        place = tx.open_stream(append.stream, append.org)
        actor, at, epoch = append.actor, append.at, place.head.epoch
        events: list[StoredEvent] = []
        rows: list[tuple[Any, ...]] = []
        for seq, (type, encoded) in enumerate(prepared.events, first):
            text = encoded.text(seq)
            rows.append((place.id, seq, type, at, actor.id, actor.kind, text))
            events.append(StoredEvent(append.stream, epoch, seq, type, at, actor, text))
        tx.advance(append.stream, place, rows)
        for seqs, fields in prepared.redactions:
            tx.redact([(place.id, seq) for seq in seqs if seq < first], fields)
        if client is not None and append.key is not None:
            tx.use_key((place.id, client), first, len(rows), append.key.digest, at)
        return Appended(epoch, first, events)


class WriteJob(Job):
    """`Engine.write`, `Engine.insert`."""

    __slots__ = ("_changes",)

    def __init__(self, changes: Sequence[Prepared]) -> None:
        super().__init__(200 + sum(change.size for change in changes))
        self._changes = changes

    def rows(self) -> Iterable[Key]:
        return (change.key for change in self._changes)

    def decide(self, tx: Transaction) -> None:
        for change in self._changes:
            tx.apply(change, None, strict=True)


class InsertOrGetJob(Job):
    """`Engine.insert_or_get`: the result is the document's text."""

    __slots__ = ("_change",)

    def __init__(self, change: Whole) -> None:
        super().__init__(200 + change.size)
        self._change = change

    def rows(self) -> Iterable[Key]:
        return (self._change.key,)

    def decide(self, tx: Transaction) -> bytes:
        tx.apply(self._change, None, strict=False)
        row = tx.row(self._change.key)
        assert row is not None
        assert row.text is not None
        return row.text


class UpdateJob(Job):
    """`Engine.update`: the result is the document's text, or None."""

    __slots__ = ("_change",)

    def __init__(self, change: Patch) -> None:
        super().__init__(200 + change.size)
        self._change = change

    def rows(self) -> Iterable[Key]:
        return (self._change.key,)

    def decide(self, tx: Transaction) -> bytes | None:
        row = tx.row(self._change.key)
        doc = row.document() if row is not None else None
        if row is None or doc is None or not matches(doc, self._change.where or {}):
            return None
        tx.apply(self._change, None, strict=True)
        return row.text


class DeleteJob(Barrier):
    """`Engine.delete` and `delete_any_org`, at most `limit` at a time: the result is how many."""

    __slots__ = ("_limit", "_org", "_source", "_where")

    def __init__(self, source: Source, org: str | None, where: Sql, limit: int) -> None:
        super().__init__(200)
        self._source = source
        self._org = org
        self._where = where
        self._limit = limit

    def decide(self, tx: Transaction) -> int:
        table = self._source.table
        name = table.collection.name
        every = f"t._org IN {ORGS.format(table=table.name)}"
        owner = every if self._org is None else f"{self._source.org} = ?"
        params = [] if self._org is None else [self._org]
        found = tx.db.execute(
            f"SELECT t._rowid, t._org, t.id, CAST(t._doc AS BLOB) FROM {self._source.text} "
            f"WHERE {owner}{self._where.text} LIMIT ?",
            [*params, *self._where.params, self._limit],
        ).fetchall()
        if table.collection.text is not None:
            indexed = tx.indexed[name]
            texts = [(row[0], text_of(row[3], table.collection.text)) for row in found]
            old = [(rowid, text) for rowid, text in texts if rowid <= indexed and text is not None]
            table.forget.run(tx.db, old)
        table.delete.run(tx.db, [(row[0],) for row in found])
        tx.drop_known(name)
        for _, org, id, _ in found:
            tx.committed((name, org, id), None)
        return len(found)


class TrimJob(Barrier):
    """One step of `Engine.trim`: the result is how many events were dropped."""

    __slots__ = ("_cuts", "_keys")

    def __init__(
        self, cuts: Sequence[tuple[str, int]], keys: Sequence[UsedKey] = (), *, size: int = 200
    ) -> None:
        """`cuts` are streams and the seq up to which their events go."""
        super().__init__(size)
        self._cuts = cuts
        self._keys = keys

    def decide(self, tx: Transaction) -> int:
        dropped = 0
        tx.load_streams(name for name, _ in self._cuts)
        for name, upto in self._cuts:
            place = tx.stream(name)
            if place is None or upto <= place.head.trimmed:
                continue
            dropped += tx.db.execute(
                "DELETE FROM events WHERE stream = ? AND seq <= ?", (place.id, upto)
            ).rowcount
            tx.db.execute("UPDATE streams SET trimmed = ? WHERE id = ?", (upto, place.id))
            tx.move(name, Place(place.id, place.org, place.head._replace(trimmed=upto)))
        tx.db.executemany("DELETE FROM keys WHERE stream = ? AND client = ?", self._keys)
        for key in self._keys:
            tx.forget_key(key)
        return dropped


class NewEpochJob(Barrier):
    """`Engine.new_epoch`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(50)

    def decide(self, tx: Transaction) -> None:
        give_new_epochs(tx)


def give_new_epochs(tx: Transaction) -> None:
    """Rename the history of every stream."""
    renamed = [(new_epoch(), id) for (id,) in tx.db.execute("SELECT id FROM streams").fetchall()]
    tx.db.executemany("UPDATE streams SET epoch = ? WHERE id = ?", renamed)
    tx.forget_streams()


class IndexJob(Barrier):
    """Bring up to `limit` rows of a collection into its search index."""

    __slots__ = ("_limit", "_table")

    def __init__(self, table: Table, limit: int) -> None:
        super().__init__(200)
        self._table = table
        self._limit = limit

    def decide(self, tx: Transaction) -> None:
        table = self._table
        name, field = table.collection.name, table.collection.text
        upto = tx.indexed[name]
        found = tx.db.execute(
            f"SELECT _rowid, CAST(_doc AS BLOB) FROM {table.name} WHERE _rowid > ? "
            "ORDER BY _rowid LIMIT ?",
            (upto, self._limit),
        ).fetchall()
        texts = [(rowid, text_of(doc, field or "")) for rowid, doc in found]
        table.learn.run(tx.db, [(rowid, text) for rowid, text in texts if text is not None])
        # Rows that were removed before their turn leave nothing to find.
        last = found[-1][0] if found else tx.counters.rows[name]
        tx.db.execute("UPDATE search SET upto = ? WHERE collection = ?", (last, name))
        tx.indexed[name] = last


class PingJob(Barrier):
    """Write something small, or, with `room`, so many bytes, to see whether they fit."""

    __slots__ = ("room",)

    def __init__(self, room: int = 0) -> None:
        super().__init__(50 + room)
        self.room = room

    def decide(self, tx: Transaction) -> None:
        if self.room:
            tx.db.execute("INSERT OR REPLACE INTO pings VALUES (2, zeroblob(?))", (self.room,))
        else:
            tx.db.execute("DELETE FROM pings WHERE id = 2")
        tx.db.execute(
            "INSERT INTO pings VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET count = count + 1"
        )
