"""SQLite engines to break."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.clock import SystemClock
from store.engine import Collection
from store.sqlite import SqliteEngine
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
