"""A server that is away for longer than it is waited for."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from domain.clock import SystemClock
from domain.errors import Unavailable
from domain.ids import new_id
from store.mongo import MongoBlobs
from tests.support.mongo_stores import MongoStores
from tests.support.mongod import Mongod, Scratch
from tests.support.stores import ORG, ROOMS, gathered, send, seqs

APPENDS = 30
READS = 20
ID = new_id()


@pytest.fixture
def logs() -> Iterator[LogCapture]:
    before = structlog.get_config()
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture
    structlog.configure(**before)


@pytest.mark.usefixtures("mongodb")  # says whether there can be one
async def test_appends_to_one_stream_do_not_wait_for_it_one_after_the_other(
    tmp_path: Path, logs: LogCapture
) -> None:
    mongod = Mongod(tmp_path / "mongod").start()
    database = Scratch(mongod.url)
    stores = MongoStores(database)
    engine = await stores.node(timeout=1.0)
    await send(engine, "n1")
    await asyncio.to_thread(mongod.kill)
    logs.entries.clear()
    since = time.monotonic()
    done = await gathered(*(send(engine, f"n{n}") for n in range(2, 2 + APPENDS)))
    took = time.monotonic() - since
    assert [type(result) for result in done] == [Unavailable] * APPENDS
    assert took < APPENDS / 3
    with pytest.raises(Unavailable):
        await engine.get(ORG, ROOMS, "r")

    await asyncio.to_thread(mongod.start)
    async with asyncio.timeout(20):
        while True:  # nobody looks for the server but the engine itself
            try:
                await engine.get(ORG, ROOMS, "r")
                break
            except Unavailable:
                await asyncio.sleep(0.05)
    assert [each["event"] for each in logs.entries] == ["store_away", "store_back"]
    assert "127.0.0.1" in logs.entries[0]["reason"]
    assert (await send(engine, "n0")).seq == 2
    assert await seqs(engine) == [1, 2]
    await stores.close()
    database.close()
    await asyncio.to_thread(mongod.stop)


@pytest.mark.usefixtures("mongodb")
async def test_files_do_not_wait_for_it_one_after_the_other(tmp_path: Path) -> None:
    mongod = Mongod(tmp_path / "mongod").start()
    blobs = MongoBlobs(f"{mongod.url}/files", clock=SystemClock(), timeout=1.0)
    await blobs.start()
    writer = await blobs.create(ID)
    await writer.write(b"whole")
    await writer.commit()
    await asyncio.to_thread(mongod.kill)
    since = time.monotonic()
    for _ in range(READS):
        with pytest.raises(Unavailable):
            await blobs.open(ID)
    assert time.monotonic() - since < READS / 3

    await asyncio.to_thread(mongod.start)
    async with asyncio.timeout(20):
        while True:  # nobody looks for the server but the client itself
            try:
                assert await blobs.open(ID) is not None
                break
            except Unavailable:
                await asyncio.sleep(0.05)
    await blobs.stop()
    await asyncio.to_thread(mongod.stop)
