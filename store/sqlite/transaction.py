"""One commit's worth of writes: decided in memory one after the other, written all at once.

What the operations need to know is read beforehand in a few statements; what they change is kept
here until `flush` writes it in a few statements. So the file sees the sum of a batch.
"""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import secrets
import sqlite3
from collections.abc import Iterable
from typing import Any

import orjson

from domain.streams import Head
from store.engine import Document, Duplicate
from store.sqlite.bulk import Bulk
from store.sqlite.cache import Documents, Entry, Heads, Key, Place
from store.sqlite.prepare import Patch, Prepared, Tables, Whole
from store.sqlite.rows import Row, State, check_owned, check_plain, text_of
from store.sqlite.tables import Table

INSERT_EVENTS = Bulk(
    "INSERT INTO events (stream, seq, type, at, actor, actor_kind, data) "
    "SELECT stream, seq, type, at, actor, actor_kind, json FROM {rows}",
    "stream seq type at actor actor_kind json",
)
LOAD_EVENTS = Bulk(
    "SELECT e._rowid_, CAST(e.data AS BLOB) FROM {rows} AS v "
    "CROSS JOIN events AS e ON e.stream = v.stream AND e.seq = v.seq",
    "stream seq",
)
INSERT_KEYS = Bulk(
    "INSERT INTO keys (stream, client, seq, count, digest, at) SELECT * FROM {rows}",
    "stream client seq count digest at",
)
LOAD_KEYS = Bulk(
    "SELECT k.stream, k.client, k.seq, k.count, k.digest FROM {rows} AS v "
    "CROSS JOIN keys AS k ON k.stream = v.stream AND k.client = v.client",
    "stream client",
)
LOAD_STREAMS = Bulk(
    "SELECT s.name, s.id, s.org, s.epoch, s.trimmed, "
    "(SELECT max(e.seq) FROM events AS e WHERE e.stream = s.id) "
    "FROM {rows} AS v CROSS JOIN streams AS s ON s.name = v.name",
    "name",
)
INSERT_STREAMS = Bulk(
    "INSERT INTO streams (id, org, name, epoch, trimmed) SELECT *, 0 FROM {rows}",
    "id org name epoch",
)

UsedKey = tuple[int, bytes]
"""Stream, digest of actor and client_id."""


def new_epoch() -> str:
    """A name for a history that no other history has."""
    return secrets.token_hex(6)


def place_of(id: int, org: str, epoch: str, trimmed: int, newest: int | None) -> Place:
    """A stream's place as its row and its newest event say."""
    return Place(id, org, Head(epoch, newest or trimmed, trimmed))


class Counters:
    """What the writer counts on over commits; read anew from the file when in doubt."""

    def __init__(self, db: sqlite3.Connection, tables: Tables) -> None:
        row = db.execute("SELECT coalesce(max(id), 0) FROM streams").fetchone()
        self.stream: int = row[0]
        self.indexed: dict[str, int] = dict(
            db.execute("SELECT collection, upto FROM search").fetchall()
        )
        """How far each collection with text is in its search index, by rowid."""
        self.rows: dict[str, int] = {}
        for name, table in tables.items():
            sql = f"SELECT coalesce(max(_rowid), 0) FROM {table.name}"
            newest = db.execute(sql).fetchone()[0]
            # A rowid that the search index has seen is never given again.
            self.rows[name] = max(newest, self.indexed.get(name, 0))


class Transaction:
    """Between BEGIN and COMMIT. Used by the writer's thread alone."""

    def __init__(
        self,
        db: sqlite3.Connection,
        tables: Tables,
        counters: Counters,
        heads: Heads,
        documents: Documents,
    ) -> None:
        self.db = db
        self.tables = tables
        self.counters = counters
        self._heads = heads
        self._documents = documents
        self._rows: dict[Key, Row] = {}
        self._changed: dict[Key, Row] = {}
        self._undo: list[tuple[Key, Row, State, bool, bool]] = []
        """What the operation changed: how each document was, and whether it was changed by an
        earlier one, and known."""
        self._streams: dict[str, Place] = {}
        self._moved: dict[str, Place] = {}
        self._new_streams: list[tuple[int, str, str, str]] = []
        self._keys: dict[UsedKey, tuple[int, int, str]] = {}
        self._new_keys: list[tuple[Any, ...]] = []
        self._events: list[tuple[Any, ...]] = []
        self._redactions: list[tuple[list[tuple[int, int]], bytes]] = []
        self._committed: dict[Key, Entry | None] = {}
        self._reread: set[str] = set()
        """Collections of which only the file knows what is there by now."""
        self.place: str = ""
        """The collection being written, for naming a conflict."""
        self.indexed = dict(counters.indexed)
        """As `Counters.indexed`, true after the commit."""
        self._streams_renamed = False

    # -- reading ------------------------------------------------------------------------------

    def load_rows(self, keys: Iterable[Key]) -> None:
        """Make documents known to `row`, from memory or from the file."""
        missing: dict[str, list[tuple[str, str]]] = {}
        for key in keys:
            if key in self._rows:
                continue
            entry = None if key[0] in self._reread else self._documents.get(key)
            if entry is None:
                self._rows[key] = Row()
                missing.setdefault(key[0], []).append(key[1:])
            else:
                row = self._rows[key] = Row(entry.rowid, entry.text, entry.owner)
                if entry.doc is None:
                    entry.doc = orjson.loads(entry.text)
                row.doc = entry.doc
        for name, wanted in missing.items():
            for org, id, rowid, text, owner in self.tables[name].load.select(self.db, wanted):
                self._rows[name, org, id] = Row(rowid, text, owner)
                self._committed.setdefault((name, org, id), Entry(rowid, text, owner))

    def load_streams(self, names: Iterable[str]) -> None:
        """Make streams known to `stream`."""
        missing = []
        for name in dict.fromkeys(names):
            if name not in self._streams:
                place = None if self._streams_renamed else self._heads.get(name)
                if place is None:
                    missing.append((name,))
                else:
                    self._streams[name] = place
        if missing:
            for name, id, org, epoch, trimmed, newest in LOAD_STREAMS.select(self.db, missing):
                self._streams[name] = place_of(id, org, epoch, trimmed, newest)

    def load_keys(self, keys: Iterable[UsedKey]) -> None:
        """Make idempotency keys known to `used`."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._keys]
        for stream, client, *used in LOAD_KEYS.select(self.db, missing):
            self._keys[stream, client] = (used[0], used[1], used[2])

    def row(self, key: Key) -> Row | None:
        """A document that was loaded or written; None if neither."""
        return self._rows.get(key)

    def stream(self, name: str) -> Place | None:
        """A loaded stream as decided so far."""
        return self._streams.get(name)

    def used(self, key: UsedKey) -> tuple[int, int, str] | None:
        """First seq, count and digest of what a key was used for."""
        return self._keys.get(key)

    # -- deciding -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Start an operation, the unit of `undo`."""
        self._undo.clear()

    def undo(self) -> None:
        """Take back what the operation changed in documents."""
        for key, row, before, changed, known in reversed(self._undo):
            row.restore(before)
            if not changed:
                self._changed.pop(key, None)
            if not known:
                self._rows.pop(key, None)
        self._undo.clear()

    def apply(
        self, change: Prepared, seq: int | None, *, strict: bool, owner: int | None = None
    ) -> None:
        """Make one change. An insert of what is there already does nothing, or with `strict`
        raises `Duplicate`. `owner` is the stream that the document belongs to from now on; None
        for a plain change.

        Raises:
            ValueError: a plain change of what belongs to a stream.
        """
        if isinstance(change, Whole):
            row = self._rows.get(change.key)
            if row is not None and row.text is not None and not change.put:
                if strict:
                    raise Duplicate(change.key[0])
                return
            check_plain(change.key, row, owner)
            text = change.encoded.text(seq or 0)
            self.write(change.key, text, None, change.columns(seq or 0), owner)
        elif isinstance(change, Patch):
            row = self._rows[change.key]
            doc = row.document()
            if doc is not None:
                check_plain(change.key, row, owner)
                changed = change.applied(doc, seq)
                columns = change.table.values(changed)
                self.write(change.key, orjson.dumps(changed), changed, columns, owner)
        elif self._rows[change.key].text is not None:
            self.write(change.key, None, None, None)

    def check_owned(self, owner: int) -> None:
        """Hold what the operation changed against what the documents were before it.

        Raises:
            ValueError: one belongs to another stream, or has other unique values now.
        """
        seen: set[Key] = set()
        for key, row, before, _, _ in self._undo:
            if key not in seen:
                seen.add(key)
                check_owned(self.tables[key[0]], key, before, row, owner)

    def write(
        self,
        key: Key,
        text: bytes | None,
        doc: Document | None,
        columns: list[Any] | None,
        owner: int | None = None,
    ) -> None:
        """Decide what a document is from now on; None: it is not."""
        row = self._rows.get(key)
        known = row is not None
        if row is None:
            row = self._rows[key] = Row()
        self._undo.append((key, row, row.state(), key in self._changed, known))
        row.text, row.doc, row.columns = text, doc, columns
        if text is None:
            row.owner = None
        elif owner is not None:
            row.owner = owner
        self._changed[key] = row

    def stream_id(self, name: str) -> int:
        """What a loaded stream is known by, or will be once `open_stream` has made it."""
        place = self._streams.get(name)
        return self.counters.stream + 1 if place is None else place.id

    def open_stream(self, name: str, org: str) -> Place:
        """A stream's place; a new one for a name that is not there yet."""
        place = self._streams.get(name)
        if place is None:
            self.counters.stream += 1
            place = Place(self.counters.stream, org, Head(new_epoch(), 0, 0))
            self._new_streams.append((place.id, org, name, place.head.epoch))
            self._streams[name] = place
        return place

    def advance(
        self,
        name: str,
        place: Place,
        events: list[tuple[Any, ...]],
    ) -> None:
        """Add event rows that follow the stream's head."""
        self._events += events
        epoch, seq, trimmed = place.head
        moved = Place(place.id, place.org, Head(epoch, seq + len(events), trimmed))
        self._streams[name] = self._moved[name] = moved

    def redact(self, events: list[tuple[int, int]], fields: bytes) -> None:
        """Set fields, given as JSON text, in the data of events, given by stream and seq."""
        self._redactions.append((events, fields))

    def use_key(self, key: UsedKey, seq: int, count: int, digest: str, at: str) -> None:
        """Remember what an idempotency key was used for."""
        self._keys[key] = (seq, count, digest)
        self._new_keys.append((*key, seq, count, digest, at))

    def drop_known(self, collection: str) -> None:
        """Believe nothing of what was read of a collection before: not here, and not what memory
        has from before this transaction.
        """
        self._reread.add(collection)
        for key in [key for key in self._rows if key[0] == collection]:
            del self._rows[key]
        for key in self._committed:
            if key[0] == collection:
                self._committed[key] = None

    def forget_streams(self) -> None:
        """Believe nothing of what was known of streams, nor let anyone after the commit."""
        self._streams_renamed = True
        self._streams.clear()
        self._moved.clear()

    def forget_key(self, key: UsedKey) -> None:
        """An idempotency key was removed from the file."""
        self._keys.pop(key, None)

    def committed(self, key: Key, entry: Entry | None) -> None:
        """Say what a document will be after the commit, for what was written past this class."""
        self._committed[key] = entry

    # -- writing ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was decided since the last time.

        Raises:
            sqlite3.IntegrityError: a unique index is in the way; `place` has the collection.
        """
        self.place = ""
        if self._new_streams:
            INSERT_STREAMS.run(self.db, self._new_streams)
            self._new_streams.clear()
        if self._events:
            INSERT_EVENTS.run(self.db, self._events)
            self._events.clear()
        if self._redactions:
            for events, fields in self._redactions:
                self._redact(events, orjson.loads(fields))
            self._redactions.clear()
        if self._new_keys:
            INSERT_KEYS.run(self.db, self._new_keys)
            self._new_keys.clear()
        if self._changed:
            by_table: dict[str, list[tuple[Key, Row]]] = {}
            for key, row in self._changed.items():
                by_table.setdefault(key[0], []).append((key, row))
            for name, rows in by_table.items():
                self.place = name
                self._flush_table(self.tables[name], rows)
            self.place = ""
            self._changed.clear()

    def _redact(self, events: list[tuple[int, int]], fields: Document) -> None:
        rows = [
            (orjson.dumps({**orjson.loads(data), **fields}), rowid)
            for rowid, data in LOAD_EVENTS.select(self.db, list(dict.fromkeys(events)))
        ]
        self.db.executemany("UPDATE events SET data = CAST(? AS TEXT) WHERE _rowid_ = ?", rows)

    def _flush_table(self, table: Table, rows: list[tuple[Key, Row]]) -> None:
        removed, touched, moved, added = [], [], [], []
        name = table.collection.name
        for key, row in rows:
            if row.stored is not None:
                if row.text is None:
                    removed.append((row.rowid,))
                    self._committed[key] = None
                    continue
                columns = (
                    row.columns if row.columns is not None else table.values(row.document() or {})
                )
                if row.owner == row.stored_owner and columns == table.values(
                    orjson.loads(row.stored), old=True
                ):
                    touched.append((row.rowid, row.text))
                else:
                    moved.append((row.rowid, *columns, row.owner, row.text))
                self._committed[key] = Entry(row.rowid, row.text, row.owner)
            elif row.text is not None:
                self.counters.rows[name] += 1
                row.rowid = self.counters.rows[name]
                columns = (
                    row.columns if row.columns is not None else table.values(row.document() or {})
                )
                added.append((row.rowid, key[1], key[2], *columns, row.owner, row.text))
                self._committed[key] = None
        if table.collection.text is not None:
            self._flush_text(table, rows)
        if removed:
            table.delete.run(self.db, removed)
        if moved:
            table.update_all.run(self.db, moved)
        if touched:
            table.update_doc.run(self.db, touched)
        if added:
            written = table.insert.run(self.db, added)
            if written != len(added):  # some were there: which ones, the file knows
                for key, row in rows:
                    if row.stored is None:
                        self._rows.pop(key, None)
        for _, row in rows:
            row.stored, row.stored_owner = row.text, row.owner

    def _flush_text(self, table: Table, rows: list[tuple[Key, Row]]) -> None:
        """Correct what the search index has of rows that change; it gets new rows later."""
        indexed = self.indexed[table.collection.name]
        field = table.collection.text or ""
        old, new = [], []
        for _, row in rows:
            if row.stored is not None and row.rowid <= indexed:
                before = text_of(row.stored, field)
                after = text_of(row.text, field)
                if before != after:
                    if before is not None:
                        old.append((row.rowid, before))
                    if after is not None:
                        new.append((row.rowid, after))
        if old:
            table.forget.run(self.db, old)
        if new:
            table.learn.run(self.db, new)

    # -- after the commit ---------------------------------------------------------------------

    def about_to_commit(self) -> None:
        """Let nobody be told from memory what the commit changes."""
        self._documents.forget(self._committed)
        self._heads.forget(self._moved)

    def after_commit(self) -> None:
        """Tell memory what is true now."""
        self.counters.indexed = self.indexed
        self._documents.publish(self._committed.items())
        if self._streams_renamed:
            self._heads.clear()
        self._heads.publish(self._moved.items())

    def move(self, name: str, place: Place) -> None:
        """Say where a stream stands, for what was written past this class."""
        self._streams[name] = self._moved[name] = place
