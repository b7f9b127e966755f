"""Each engine under the same tests."""

import shutil
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

    def wipe() -> None:
        shutil.rmtree(tmp_path / "data", ignore_errors=True)

    stores = Stores({"sqlite": sqlite}[request.param], wipe)
    yield stores
    await stores.close()


@pytest.fixture
async def engine(stores: Stores) -> Engine:
    """A started engine without data."""
    return await stores.start()
