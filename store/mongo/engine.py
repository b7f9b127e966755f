"""The storage engine on MongoDB: for any number of nodes. A standalone server will do, no
transaction is used.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

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
    Duplicate,
    Engine,
    Filter,
    Value,
)
from store.mongo import schema
from store.mongo.appender import Appender
from store.mongo.conflicts import Conflicts
from store.mongo.database import Database
from store.mongo.documents import Documents
from store.mongo.faults import reaching
from store.mongo.log import stored
from store.mongo.query import condition
from store.mongo.search import search
from store.mongo.streams import Place, Streams
from store.mongo.sweeper import Sweeper
from store.mongo.trim import trim, trim_stream

Result = TypeVar("Result")

MOST = 1_000_000
"""Events read at once, whatever is asked for."""


class Observer(Protocol):
    """Is told what the engine does, in the event loop."""

    def append(self, seconds: float) -> None:
        """One append took this long, from the call to being safe."""


class MongoEngine(Engine):
    """Streams and documents in one database of MongoDB 5 or later."""

    shared = True

    def __init__(
        self,
        url: str,
        collections: Sequence[Collection],
        *,
        clock: Clock,
        timeout: float = 5.0,
        pool: int = 50,
        queue_limit: int = 10_000,
        cached_heads: int = 200_000,
        sweep_every: float = 5.0,
        observer: Observer | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            url: `mongodb://` or `mongodb+srv://`, with the database's name (`parley` if without).
            collections: all that will be used.
            timeout: seconds that an answer of the server is waited for.
            pool: connections to each server.
            queue_limit: appends that may wait; more are `Unavailable` at once.
            cached_heads: streams whose head is kept in memory.
            sweep_every: seconds after which what a dead node left behind is looked for.
            observer: is told about appends.
        """
        self._clock = clock
        self._queue_limit = queue_limit
        self._observer = observer
        self._database = Database(url, collections, clock=clock, timeout=timeout, pool=pool)
        self._streams = Streams(self._database, cached_heads)
        self._conflicts = Conflicts(self._database, self._streams)
        self._documents = Documents(self._database, self._conflicts)
        self._sweeper = Sweeper(self._database, self._streams, every=sweep_every)
        self._appender = Appender(
            self._database, self._streams, self._conflicts, self._sweeper.applied
        )
        self._appends: set[asyncio.Task[Appended]] = set()
        self._running = False

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        await self._database.connect()
        try:
            with reaching():
                await schema.prepare(self._database)
                self._database.generation = await schema.read_generation(self._database)
                await self._sweeper.start()
        except BaseException:
            await self._database.close()
            raise
        self._running = True

    async def stop(self) -> None:
        self._running = False
        if self._appends:
            await asyncio.wait(self._appends)
        await self._sweeper.stop()
        await self._database.close()

    async def ping(self) -> None:
        with self._database.working():
            meta = self._database.database["meta"]
            await meta.update_one({"_id": "ping"}, {"$inc": {"count": 1}}, upsert=True)
            await meta.find_one({"_id": "ping"})

    async def time(self) -> float | None:
        with self._database.working():
            hello = await self._database.database.command("hello")
        at = hello.get("localTime")
        if not isinstance(at, datetime):
            return None
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()

    async def size(self) -> int:
        with self._database.working():
            stats = await self._database.database.command("dbStats")
        return int(stats["storageSize"]) + int(stats.get("indexSize", 0))

    @property
    def queued(self) -> int:
        """Appends under way or waiting for their turn."""
        return len(self._appends)

    # -- streams ------------------------------------------------------------------------------

    async def append(self, append: Append) -> Appended:
        """As the interface says. If the caller is cancelled, the append may or may not happen;
        a retry with its key tells.

        Raises:
            Unavailable: nothing was written; or the store went away at the very moment, and a
                retry with the key tells.
        """
        if not self._running:
            raise Unavailable("The store is closed.")
        if len(self._appends) >= self._queue_limit:
            raise Unavailable("Too many writes wait for the store.")
        since = self._clock.monotonic()
        done = await asyncio.shield(self._accepted(self._reaching(self._appender.append(append))))
        if self._observer is not None:
            self._observer.append(self._clock.monotonic() - since)
        return done

    def _accepted(self, work: Coroutine[Any, Any, Appended]) -> "asyncio.Task[Appended]":
        task = asyncio.create_task(work)
        self._appends.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: "asyncio.Task[Appended]") -> None:
        self._appends.discard(task)
        if not task.cancelled():
            task.exception()  # its caller has it, or was cancelled and does not want it

    @staticmethod
    async def _reaching(work: Coroutine[Any, Any, Result]) -> Result:
        with reaching():
            return await work

    async def head(self, org: str, stream: str) -> Head | None:
        with self._database.working():
            place = await self._streams.place(stream)
        return self._streams.head(place) if place.seq and place.org == org else None

    async def heads(
        self, org: str, streams: Sequence[str], *, returned: bool = False
    ) -> dict[str, Head]:
        if not streams:
            return {}
        with self._database.working():
            places = await (
                self._streams.applied(streams) if returned else self._streams.places(streams)
            )
        return {
            stream: self._streams.head(places[stream])
            for stream in streams
            if stream in places and places[stream].org == org
        }

    async def read(
        self, org: str, stream: str, after: int, limit: int, max_bytes: int | None = None
    ) -> list[StoredEvent]:
        if limit <= 0:
            return []
        with self._database.working():
            # What is known to be applied stays so. Who asks for no more need not ask where it stands.
            place = self._streams.known(stream)
            if place is None or place.seq < after + limit:
                place = await self._streams.place(stream)
            if not place.seq or place.org != org or after >= place.seq:
                return []
            return await self._events(stream, place, after, limit, max_bytes)

    async def _events(
        self, stream: str, place: Place, after: int, limit: int, max_bytes: int | None
    ) -> list[StoredEvent]:
        first = max(after, place.trimmed)
        epoch = self._database.epoch(place.base)
        limit = min(limit, MOST)
        found: list[StoredEvent] = []
        size = 0
        rows = self._database.log.find({"stream": stream, "last": {"$gt": first}}, {"changes": 0})
        async with rows.sort([("last", 1)]).limit(limit) as cursor:
            async for row in cursor:
                if row["seq"] > place.seq:
                    break  # not applied yet: nobody may see it before the documents
                for event in stored(row, epoch, first):
                    size += len(event.data)
                    if max_bytes is not None and size > max_bytes and found:
                        return found
                    found.append(event)
                    if len(found) == limit:
                        return found
        return found

    async def trim(self, *, keep: int, before: str) -> int:
        with self._database.working():
            await self._sweeper.mark()
            return await trim(self._database, self._conflicts, keep, before)

    async def trim_stream(self, org: str, stream: str) -> None:
        if await self.head(org, stream) is not None:
            with self._database.working():
                await self._sweeper.mark()
                await trim_stream(self._database, stream)

    # -- documents ----------------------------------------------------------------------------

    async def get(self, org: str, collection: Collection, id: str) -> Document | None:
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.get(kind, org, id)

    async def get_many(
        self, org: str, collection: Collection, ids: Sequence[str]
    ) -> dict[str, Document]:
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.get_many(kind, org, ids)

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
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.find(kind, org, where, order, after, limit)

    async def count(self, org: str, collection: Collection, where: Filter) -> int:
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.count(kind, org, where)

    async def count_each(
        self, org: str, collection: Collection, wheres: Sequence[Filter], at_most: int
    ) -> list[int]:
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.count_each(kind, org, wheres, at_most)

    async def count_groups(
        self,
        org: str,
        collection: Collection,
        fields: Sequence[str],
        where: Filter,
        *,
        at_most: int = 1000,
    ) -> dict[tuple[Value, ...], int]:
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.count_groups(kind, org, fields, where, at_most)

    async def sum(self, org: str, collection: Collection, field: str, where: Filter) -> int:
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.sum(kind, org, field, where)

    async def find_any_org(
        self,
        collection: Collection,
        where: Filter,
        limit: int = 10,
        *,
        order: Sequence[str] | None = None,
        after: Sequence[Value] | None = None,
    ) -> list[Document]:
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.find_any_org(kind, where, limit, order, after)

    async def insert(self, org: str, collection: Collection, doc: Document) -> None:
        kind = self._database.kind(collection)
        with self._database.working():
            if await self._documents.insert(kind, org, doc) is not None:
                raise Duplicate(collection.name)

    async def insert_or_get(self, org: str, collection: Collection, doc: Document) -> Document:
        kind = self._database.kind(collection)
        with self._database.working():
            there = await self._documents.insert(kind, org, doc)
            return there if there is not None else orjson.loads(orjson.dumps(doc))

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
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.update(kind, org, id, set or {}, inc or {}, where or {})

    async def write(self, org: str, changes: Sequence[Change]) -> None:
        with self._database.working():
            await self._documents.write(org, changes)

    async def delete(self, org: str, collection: Collection, where: Filter) -> int:
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.delete(kind, condition(kind, where, org))

    async def delete_any_org(self, collection: Collection, where: Filter) -> int:
        kind = self._database.kind(collection)
        with self._database.working():
            return await self._documents.delete(kind, condition(kind, where, None))

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
        kind = self._database.kind(collection)
        with self._database.working():
            return await search(self._database, kind, org, text, where, limit, before)

    # -- copies -------------------------------------------------------------------------------

    async def new_epoch(self) -> None:
        """As the interface says; other nodes follow within `sweep_every` seconds."""
        with self._database.working():
            self._database.generation = await schema.new_generation(self._database)
