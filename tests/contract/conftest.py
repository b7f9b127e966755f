"""Each engine under the same tests."""

import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from domain.clock import SystemClock
from store.engine import Collection, Engine
from store.mongo import MongoEngine
from store.sqlite import SqliteEngine
from tests.support.door import door_to_mongodb
from tests.support.mongod import Scratch, scratch
from tests.support.stores import Fragile, Inside, Stores

IMPATIENT = 0.5
"""Seconds after which an engine believes that its store is away."""


def in_file(path: Path) -> Stores:
    """SQLite engines; the file is in a directory of its own."""

    def make(collections: Sequence[Collection]) -> Engine:
        return SqliteEngine(path, collections, clock=SystemClock(), busy_timeout=IMPATIENT)

    def records() -> str:
        db = sqlite3.connect(path)
        tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        rows = [
            row
            for (name,) in tables
            if not name.startswith("fts_")  # the index's own form
            for row in db.execute(f'SELECT * FROM "{name}"')
        ]
        db.close()
        return repr(rows)

    def make_newer() -> None:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("UPDATE schema_version SET version = version + 1")
        db.close()

    def wipe() -> None:
        shutil.rmtree(path.parent, ignore_errors=True)

    return Stores(make, wipe, Inside(records, make_newer))


def in_mongodb(database: Scratch, url: str | None = None, **options: Any) -> Stores:
    """MongoDB engines; `url`: how they reach the database, if by a way of their own."""

    def make(collections: Sequence[Collection]) -> Engine:
        return MongoEngine(url or database.url, collections, clock=SystemClock(), **options)

    def records() -> str:
        with MongoClient[dict[str, Any]](database.url) as client:
            data = client.get_default_database()
            return repr([row for name in data.list_collection_names() for row in data[name].find()])

    def make_newer() -> None:
        with MongoClient[dict[str, Any]](database.url) as client:
            layout = client.get_default_database()["meta"]
            assert layout.update_one({"_id": "layout"}, {"$inc": {"version": 1}}).matched_count

    return Stores(make, database.wipe, Inside(records, make_newer))


@pytest.fixture(params=["sqlite", "mongo"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """Makes engines over the same, at first empty data."""
    if request.param == "sqlite":
        stores = in_file(tmp_path / "data" / "store.db")
        yield stores
        await stores.close()
        return
    with scratch(request.getfixturevalue("mongodb")) as database:
        stores = in_mongodb(database)
        yield stores
        await stores.close()


@pytest.fixture
async def engine(stores: Stores) -> Engine:
    """A started engine without data."""
    return await stores.start()


@pytest.fixture(params=["sqlite", "mongo"])
async def fragile(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fragile]:
    """As `stores`, and the store can be taken away."""
    if request.param == "sqlite":
        directory = tmp_path / "data"

        @asynccontextmanager
        async def renamed() -> AsyncIterator[None]:
            directory.rename(tmp_path / "away")
            directory.touch()  # nor can another be made
            yield
            directory.unlink()
            (tmp_path / "away").rename(directory)

        stores = in_file(directory / "store.db")
        # The open file is still the file.
        yield Fragile(stores, renamed, reads_too=False)
        await stores.close()
        return
    with scratch(request.getfixturevalue("mongodb")) as database:
        async with door_to_mongodb(database.url) as (way, url):
            stores = in_mongodb(database, url, timeout=IMPATIENT)
            yield Fragile(stores, way.away, reads_too=True)
            await stores.close()
