"""Engines to break."""

import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from domain.clock import SystemClock
from store.engine import Collection
from store.mongo import MongoEngine
from store.sqlite import SqliteEngine
from tests.support.mongod import Scratch, scratch
from tests.support.stores import COLLECTIONS, Stores


class SqliteStores(Stores):
    """Engines on one file, with options."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options: dict[str, Any] = {"busy_timeout": 0.2}
        super().__init__(
            lambda collections: SqliteEngine(
                path, collections, clock=SystemClock(), **self.options
            ),
            lambda: shutil.rmtree(path.parent, ignore_errors=True),
        )

    async def engine(
        self, collections: tuple[Collection, ...] = COLLECTIONS, **options: Any
    ) -> SqliteEngine:
        """A started engine."""
        self.options |= options
        engine = await self.start(collections)
        assert isinstance(engine, SqliteEngine)
        return engine


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStores]:
    """Makes SQLite engines on `data/store.db`."""
    stores = SqliteStores(tmp_path / "data" / "store.db")
    yield stores
    await stores.close()


class MongoStores(Stores):
    """Engines, as of several nodes, on one database."""

    def __init__(self, database: Scratch) -> None:
        self.url = database.url
        self.options: dict[str, Any] = {}
        super().__init__(self._made, database.wipe)

    def _made(self, collections: Sequence[Collection]) -> MongoEngine:
        options = {"clock": SystemClock(), "url": self.url, **self.options}
        return MongoEngine(options.pop("url"), collections, **options)

    async def node(self, **options: Any) -> MongoEngine:
        """A started engine with these options."""
        self.options = options
        engine = await self.start()
        assert isinstance(engine, MongoEngine)
        return engine


@pytest.fixture
async def mongo(mongodb: str) -> AsyncIterator[MongoStores]:
    """Makes MongoDB engines; stops them."""
    with scratch(mongodb) as database:
        stores = MongoStores(database)
        yield stores
        await stores.close()
