"""Each engine under the same tests."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from domain.clock import SystemClock
from store.engine import Collection, Engine
from store.sqlite import SqliteEngine
from tests.support.stores import Stores


@pytest.fixture(params=["sqlite"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """Makes engines over the same, at first empty data."""

    def sqlite(collections: Sequence[Collection]) -> Engine:
        return SqliteEngine(tmp_path / "data" / "store.db", collections, clock=SystemClock())

    stores = Stores({"sqlite": sqlite}[request.param])
    yield stores
    await stores.close()


@pytest.fixture
async def engine(stores: Stores) -> Engine:
    """A started engine without data."""
    return await stores.start()
