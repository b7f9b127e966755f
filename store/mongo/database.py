"""The connection, and what everything in this package shares."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from domain.clock import Clock
from domain.errors import Unavailable
from domain.ids import key_digest
from store.engine import Collection, StoreError
from store.mongo.faults import AWAY, reaching
from store.mongo.kinds import Kind, Row

log = structlog.get_logger(__name__)

Rows = AsyncCollection[Row]

# At level DEBUG the client logs whole commands: with what people wrote, and with tokens' hashes.
logging.getLogger("pymongo").setLevel(logging.WARNING)

DEFAULT_NAME = "parley"

CLOSED = "The store is closed."


class Database:
    """One database of a server or replica set.

    Reads go to the primary, writes are acknowledged by a majority's journals: what was read or
    acknowledged is not rolled back by a failover.
    """

    def __init__(
        self,
        url: str,
        collections: Sequence[Collection],
        *,
        clock: Clock,
        timeout: float,
        pool: int,
    ) -> None:
        milliseconds = max(1, int(timeout * 1000))
        self._url = url
        self._options: Mapping[str, Any] = {
            "maxPoolSize": pool,
            "serverSelectionTimeoutMS": milliseconds,
            "connectTimeoutMS": milliseconds,
            "socketTimeoutMS": milliseconds,
            "waitQueueTimeoutMS": milliseconds,
            "heartbeatFrequencyMS": 5000,
            "appname": "parley",
            "tz_aware": True,
        }
        self.clock = clock
        self.timeout = timeout
        self.kinds = {collection.name: Kind(collection) for collection in collections}
        self.generation = ""
        """Is a part of every stream's epoch: changed, it changes all of them."""
        self._away_since: float | None = None
        """By the clock, since when the client knows of no server to write to."""
        self._client: AsyncMongoClient[Row] | None = None
        self._database: AsyncDatabase[Row] | None = None
        self._open: dict[str, Rows] = {}
        self._closing = True
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def connect(self) -> None:
        """Reach the server.

        Raises:
            Unavailable: it does not answer.
            StoreError: the URL is no good, or the server does not let us in.
        """
        try:
            client: AsyncMongoClient[Row] = AsyncMongoClient(self._url, **self._options)
        except (ConfigurationError, ValueError) as error:
            raise StoreError(f"the URL of MongoDB cannot be used: {error}") from error
        try:
            with reaching():
                hello = await client.admin.command("hello")
                await client.get_default_database(DEFAULT_NAME).command("ping")
        except (ConfigurationError, OperationFailure) as error:
            await client.close()
            raise StoreError(f"MongoDB refuses: {error}") from error
        except BaseException:
            await client.close()
            raise
        # Whatever the URL says: a secondary may not have what was acknowledged.
        concerns: dict[str, Any] = {
            "read_preference": ReadPreference.PRIMARY,
            "write_concern": WriteConcern(
                w="majority", j=True, wtimeout=max(1, int(self.timeout * 1000))
            ),
        }
        if "setName" in hello or hello.get("msg") == "isdbgrid":
            concerns["read_concern"] = ReadConcern("majority")
        self._client = client
        self._database = client.get_default_database(DEFAULT_NAME).with_options(**concerns)
        self._closing = False

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Around something that `close` waits for.

        Raises:
            Unavailable: the store is out of reach, full or busy; or it is not open.
        """
        if self._closing:
            raise Unavailable(CLOSED)
        self._under_way += 1
        self._idle.clear()
        try:
            with reaching():
                yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def close(self) -> None:
        """Wait until nothing is under way, `timeout` seconds at most, and close all connections."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timeout):
                await self._idle.wait()
        client, self._client, self._database = self._client, None, None
        self._open.clear()
        if client is not None:
            await client.close()

    @property
    def database(self) -> AsyncDatabase[Row]:
        """The database itself. Its commands look for the server each time; those of the
        collections below are `Unavailable` at once when it has been away for `timeout`.

        Raises:
            Unavailable: it is not open.
        """
        if self._database is None:
            raise Unavailable(CLOSED)
        return self._database

    def _check_there(self) -> None:
        """A short outage, as of a failover, is waited for. In a longer one each command would wait
        as long, one after the other where they take turns; so then none does.
        """
        if self._client is None or self._client.topology_description.has_writable_server():
            if self._away_since is not None:
                away = self.clock.monotonic() - self._away_since
                log.info("store_back", seconds=round(away, 1))
            self._away_since = None
            return
        now = self.clock.monotonic()
        if self._away_since is None:
            self._away_since = now
            servers = self._client.topology_description.server_descriptions().values()
            errors = {str(each.error) for each in servers if each.error is not None}
            log.warning("store_away", reason="; ".join(sorted(errors)) or "no primary")
        if now - self._away_since > self.timeout:
            raise Unavailable(AWAY)

    def named(self, name: str) -> Rows:
        """A collection by its name in the database."""
        self._check_there()
        rows = self._open.get(name)
        if rows is None:
            rows = self._open[name] = self.database[name]
        return rows

    @property
    def log(self) -> Rows:
        """One row for each append."""
        return self.named("log")

    @property
    def streams(self) -> Rows:
        """One row for each stream: how far its log is applied."""
        return self.named("streams")

    @property
    def meta(self) -> Rows:
        """What the engine keeps for itself."""
        return self.named("meta")

    def rows(self, kind: Kind) -> Rows:
        """A collection's documents."""
        return self.named("c_" + kind.name)

    def kind(self, collection: Collection) -> Kind:
        """How a collection is kept.

        Raises:
            ValueError: it was not declared to the engine.
        """
        kind = self.kinds.get(collection.name)
        if kind is None:
            raise ValueError(f"the engine was not given the collection {collection.name}")
        return kind

    def milliseconds(self) -> int:
        """The time as rows have it."""
        return int(self.clock.now() * 1000)

    def epoch(self, base: str) -> str:
        """The epoch of a stream that was made with this base."""
        return key_digest(base, self.generation)[:12]
