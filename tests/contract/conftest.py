"""Each engine under the same tests."""

import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from domain.clock import SystemClock
from store.engine import Collection, Engine
from store.mongo import MongoEngine
from store.sqlite import SqliteEngine
from tests.support.mongod import scratch
from tests.support.stores import Stores


@pytest.fixture(params=["sqlite", "mongo"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """Makes engines over the same, at first empty data."""
    if request.param == "sqlite":

        def sqlite(collections: Sequence[Collection]) -> Engine:
            return SqliteEngine(tmp_path / "data" / "store.db", collections, clock=SystemClock())

        def wipe() -> None:
            shutil.rmtree(tmp_path / "data", ignore_errors=True)

        stores = Stores(sqlite, wipe)
        yield stores
        await stores.close()
        return
    with scratch(request.getfixturevalue("mongodb")) as database:

        def mongo(collections: Sequence[Collection]) -> Engine:
            return MongoEngine(database.url, collections, clock=SystemClock())

        stores = Stores(mongo, database.wipe)
        yield stores
        await stores.close()


@pytest.fixture
async def engine(stores: Stores) -> Engine:
    """A started engine without data."""
    return await stores.start()
