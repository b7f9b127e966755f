"""The storage engine on one SQLite file: for one process, with nothing to install."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from domain.clock import Clock
from domain.errors import Unavailable
from domain.events import StoredEvent
from domain.streams import Head
from store.engine import (
    Append,
    Appended,
    Change,
    Collection,
    Document,
    Engine,
    Filter,
    Insert,
    Value,
)
from store.sqlite import copies, query, reads, search, trim
from store.sqlite.cache import Documents, Heads, Key, Place
from store.sqlite.committer import INDEX_STEP, Committer
from store.sqlite.jobs import (
    AppendJob,
    DeleteJob,
    IndexJob,
    InsertOrGetJob,
    NewEpochJob,
    PingJob,
    Replay,
    TrimJob,
    UpdateJob,
    WriteJob,
)
from store.sqlite.lock import FileLock
from store.sqlite.prepare import Patch, PreparedAppend, Whole, prepare_plain, table_of
from store.sqlite.readers import Readers
from store.sqlite.tables import Table, tables
from store.sqlite.transaction import UsedKey
from store.sqlite.writer import Observer, Writer

DELETE_STEP = 500
"""Documents removed in one go by `delete`; other writes come in between."""

PING_ROOM = 64 * 1024
"""Bytes that a ping writes after a write was refused: on a full disk the little that a ping needs
may still fit where nothing else does.
"""


SEARCH_LIMIT = 100
"""Searches that may wait; more are `Unavailable` at once."""


class SqliteEngine(Engine):
    """Streams and documents in one SQLite file.

    One thread writes and commits together what has queued up; a few threads read; what is needed
    over and over (heads, documents lately used) is answered from memory. Searches have a thread of
    their own: a word that is in many texts takes long, and no other read shall wait for it.
    """

    shared = False

    def __init__(
        self,
        path: Path,
        collections: Sequence[Collection],
        *,
        clock: Clock,
        synchronous: str = "FULL",
        busy_timeout: float = 5.0,
        queue_limit: int = 10_000,
        queue_bytes: int = 64 * 1024 * 1024,
        readers: int = 3,
        read_limit: int = 10_000,
        cache_bytes: int = 32 * 1024 * 1024,
        page_bytes: int = 64 * 1024 * 1024,
        cached_heads: int = 200_000,
        observer: Observer | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            path: the database file; made by `start`, with its directory.
            collections: all that will be used.
            synchronous: `FULL`, acknowledged is on disk; `NORMAL`, a power cut may take the last
                commits back, a crash of the process does not.
            busy_timeout: seconds to wait for a file that something else has locked.
            queue_limit: writes that may wait; more are `Unavailable` at once.
            queue_bytes: bytes of writes that may wait; more are `Unavailable` at once.
            readers: reading threads.
            read_limit: reads that may wait; more are `Unavailable` at once.
            cache_bytes: about how much memory the documents lately used may take.
            page_bytes: how much memory the pages lately used may take: a half for writing, a half
                for the readers together. What is not there is mostly in the system's cache.
            cached_heads: streams whose head is kept in memory.
            observer: is told about appends and commits.
        """
        if synchronous.upper() not in {"FULL", "NORMAL"}:
            raise ValueError("synchronous is FULL or NORMAL")
        self._path = path
        self._tables = tables(tuple(collections))
        self._heads = Heads(cached_heads)
        self._documents = Documents(cache_bytes)
        self._lock = FileLock(path)
        self._trimming = asyncio.Lock()
        each = page_bytes // 2 // (readers + 1)
        self._readers = Readers(path, readers, limit=read_limit, page_bytes=each)
        self._searchers = Readers(path, 1, limit=SEARCH_LIMIT, page_bytes=each)
        self._committer = Committer(
            path,
            self._tables,
            self._heads,
            self._documents,
            synchronous=synchronous.upper(),
            busy_timeout=busy_timeout,
            page_bytes=page_bytes // 2,
            on_replaced=self._reopen,
        )
        self._writer = Writer(
            self._committer,
            clock=clock,
            queue_limit=queue_limit,
            queue_bytes=queue_bytes,
            observer=observer,
        )

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """As the interface says.

        Raises:
            StoreError: also if another process uses the file.
        """
        self._lock.acquire()
        try:
            await asyncio.to_thread(self._committer.open)
            loop = asyncio.get_running_loop()
            self._writer.start(loop)
            self._readers.start(loop)
            self._searchers.start(loop)
        except BaseException:
            self._writer.refuse()
            self._committer.close()
            self._lock.release()
            raise

    async def stop(self) -> None:
        self._writer.refuse()
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self._searchers.close)
        await asyncio.to_thread(self._committer.close)
        self._lock.release()

    def _reopen(self) -> None:
        self._readers.reopen()
        self._searchers.reopen()

    async def ping(self) -> None:
        await self._writer.submit(PingJob(PING_ROOM if self._committer.in_doubt else 0))
        await self._readers.run(lambda db: db.execute("SELECT count FROM pings").fetchone())

    async def size(self) -> int:
        """Of the file and of what stands in the log beside it."""
        return await asyncio.to_thread(_size_of, self._path)

    @property
    def queued(self) -> int:
        """Writes that wait for their commit."""
        return self._writer.waiting

    @property
    def queued_bytes(self) -> int:
        """Bytes of writes that wait for their commit."""
        return self._writer.waiting_bytes

    # -- streams ------------------------------------------------------------------------------

    async def append(self, append: Append) -> Appended:
        """As the interface says. If the caller is cancelled, the append may or may not happen;
        a retry with its key tells.
        """
        done = await self._writer.submit(AppendJob(PreparedAppend(self._tables, append)))
        if isinstance(done, Replay):
            events = await self._readers.run(
                reads.events(append.org, append.stream, done.seq - 1, done.length, None)
            )
            whole = [event.seq for event in events] == list(range(done.seq, done.seq + done.length))
            return Appended(done.head.epoch, done.seq, events if whole else (), replayed=True)
        assert isinstance(done, Appended)
        return done

    async def head(self, org: str, stream: str) -> Head | None:
        return (await self.heads(org, (stream,))).get(stream)

    async def heads(
        self, org: str, streams: Sequence[str], *, returned: bool = False
    ) -> dict[str, Head]:
        known: dict[str, Place] = {}
        missing: list[str] = []
        for stream in streams:
            place = self._heads.get(stream)
            if place is None:
                missing.append(stream)
            else:
                known[stream] = place
        if missing:
            generation = self._heads.generation
            found = await self._readers.run(reads.places(missing))
            for stream, place in found.items():
                self._heads.offer(generation, stream, place)
            known |= found
        return {
            stream: known[stream].head
            for stream in streams
            if stream in known and known[stream].org == org
        }

    async def read(
        self, org: str, stream: str, after: int, limit: int, max_bytes: int | None = None
    ) -> list[StoredEvent]:
        place = self._heads.get(stream)
        if limit <= 0 or (place is not None and (place.org != org or after >= place.head.seq)):
            return []
        return await self._readers.run(reads.events(org, stream, after, limit, max_bytes))

    async def trim(self, *, keep: int, before: str) -> int:
        async with self._trimming:
            dropped = 0
            start: int | None = 0
            while start is not None:
                start, cuts = await self._readers.run(trim.cuts(start, max(keep, 1), before))
                for step in trim.batches(cuts):
                    dropped += await self._writer.submit(TrimJob(step))
            last: UsedKey | None = None
            while True:
                last, old = await self._readers.run(trim.old_keys(last, before))
                for place in range(0, len(old), trim.STEP):
                    await self._writer.submit(TrimJob((), old[place : place + trim.STEP]))
                if last is None:
                    return dropped

    async def trim_stream(self, org: str, stream: str) -> None:
        async with self._trimming:
            head = await self.head(org, stream)
            oldest = await self.read(org, stream, 0, 1)
            if head is None or not oldest or oldest[0].seq == head.seq:
                return
            for step in trim.batches([trim.Cut(stream, oldest[0].seq, head.seq - 1)]):
                await self._writer.submit(TrimJob(step))

    # -- documents ----------------------------------------------------------------------------

    async def get(self, org: str, collection: Collection, id: str) -> Document | None:
        table = table_of(self._tables, collection)
        key: Key = (collection.name, org, id)
        entry = self._documents.get(key)
        if entry is None:
            token = self._documents.filling(key)
            try:
                entry = await self._readers.run(reads.get(table, org, id))
            finally:
                self._documents.fill(key, token, entry)
        return None if entry is None else _loaded(entry.text)

    async def get_many(
        self, org: str, collection: Collection, ids: Sequence[str]
    ) -> dict[str, Document]:
        table = table_of(self._tables, collection)
        known: dict[str, bytes] = {}
        missing: dict[str, object] = {}
        for id in ids:
            key: Key = (collection.name, org, id)
            entry = self._documents.get(key)
            if entry is None:
                missing[id] = self._documents.filling(key)
            else:
                known[id] = entry.text
        if missing:
            found: dict[str, Any] = {}
            try:
                found = await self._readers.run(reads.get_many(table, org, list(missing)))
            finally:
                for id, token in missing.items():
                    self._documents.fill((collection.name, org, id), token, found.get(id))
            known |= {id: entry.text for id, entry in found.items()}
        return {id: _loaded(known[id]) for id in ids if id in known}

    async def find(
        self,
        org: str,
        collection: Collection,
        where: Filter,
        *,
        order: Sequence[str] = ("id",),
        after: Sequence[Value] | None = None,
        limit: int | None = 1000,
    ) -> list[Document]:
        table = table_of(self._tables, collection)
        return await self._readers.run(reads.find(table, org, where, order, after, limit))

    async def count(self, org: str, collection: Collection, where: Filter) -> int:
        table = table_of(self._tables, collection)
        return await self._readers.run(reads.aggregate(table, org, "count(*)", where))

    async def count_each(
        self, org: str, collection: Collection, wheres: Sequence[Filter], at_most: int
    ) -> list[int]:
        table = table_of(self._tables, collection)
        return await self._readers.run(reads.count_each(table, org, wheres, at_most))

    async def count_groups(
        self,
        org: str,
        collection: Collection,
        fields: Sequence[str],
        where: Filter,
        *,
        at_most: int = 1000,
    ) -> dict[tuple[Value, ...], int]:
        table = table_of(self._tables, collection)
        return await self._readers.run(reads.count_groups(table, org, fields, where, at_most))

    async def sum(self, org: str, collection: Collection, field: str, where: Filter) -> int:
        table = table_of(self._tables, collection)
        what = f"coalesce(sum(t.{table.column(field)}), 0)"
        return await self._readers.run(reads.aggregate(table, org, what, where))

    async def find_any_org(
        self,
        collection: Collection,
        where: Filter,
        limit: int = 10,
        *,
        order: Sequence[str] | None = None,
        after: Sequence[Value] | None = None,
    ) -> list[Document]:
        table = table_of(self._tables, collection)
        read = reads.find_any_org(table, where, limit, order, after)
        found: list[Document] = await self._readers.run(read)
        return found

    async def insert(self, org: str, collection: Collection, doc: Document) -> None:
        await self.write(org, [Insert(collection, doc)])

    async def insert_or_get(self, org: str, collection: Collection, doc: Document) -> Document:
        (change,) = prepare_plain(self._tables, org, [Insert(collection, doc)])
        assert isinstance(change, Whole)
        return _loaded(await self._writer.submit(InsertOrGetJob(change)))

    async def update(
        self,
        org: str,
        collection: Collection,
        id: str,
        *,
        set: Mapping[str, Any] | None = None,
        inc: Mapping[str, int] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Document | None:
        table = table_of(self._tables, collection)
        patch = Patch(table, org, id, set or {}, inc or {}, where=where)
        text = await self._writer.submit(UpdateJob(patch))
        return None if text is None else _loaded(text)

    async def write(self, org: str, changes: Sequence[Change]) -> None:
        """As the interface says; here all of them are one atomic step."""
        if changes:
            await self._writer.submit(WriteJob(prepare_plain(self._tables, org, changes)))

    async def delete(self, org: str, collection: Collection, where: Filter) -> int:
        return await self._delete(table_of(self._tables, collection), org, where)

    async def delete_any_org(self, collection: Collection, where: Filter) -> int:
        return await self._delete(table_of(self._tables, collection), None, where)

    async def _delete(self, table: Table, org: str | None, where: Filter) -> int:
        source = query.Source(table) if org is None else query.source(table, where)
        matching = query.condition(table, where, source)
        removed = 0
        while True:
            step: int = await self._writer.submit(DeleteJob(source, org, matching, DELETE_STEP))
            removed += step
            if step < DELETE_STEP:
                return removed

    # -- search -------------------------------------------------------------------------------

    async def search(
        self,
        org: str,
        collection: Collection,
        text: str,
        where: Filter,
        *,
        limit: int,
        before: str | None = None,
    ) -> list[Document]:
        table = table_of(self._tables, collection)
        if table.fts is None:
            raise ValueError(f"{collection.name} has no text to search in")
        read = search.search(table, org, text, where, limit, before)
        if read is None:
            return []
        committer, name = self._committer, collection.name
        newest = committer.newest.get(name)
        while newest is None or committer.indexed[name] < newest:
            await self._writer.submit(IndexJob(table, INDEX_STEP))
            newest = committer.newest[name] if newest is None else newest
        return await self._searchers.run(read)

    # -- copies -------------------------------------------------------------------------------

    async def new_epoch(self) -> None:
        await self._writer.submit(NewEpochJob())

    async def backup(self, path: Path) -> None:
        """Copy the database to a file while it is in use, as of one moment.

        Raises:
            Unavailable: the file cannot be written.
        """
        if not self._path.exists():
            raise Unavailable("The store cannot be reached.")
        await asyncio.to_thread(copies.backup, self._path, path)


def _loaded(text: bytes) -> Document:
    doc: Document = orjson.loads(text)
    return doc


def _size_of(path: Path) -> int:
    try:
        log = path.with_name(path.name + "-wal")
        return path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    except OSError as error:
        raise Unavailable(f"The store cannot be read: {error}") from error
