"""A server that is away for longer than it is waited for."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from domain.clock import SystemClock
from domain.errors import Unavailable
from domain.ids import new_id
from store.engine import Engine, Key, Put
from store.mongo import MongoBlobs, MongoEngine
from tests.support.mongo_stores import MongoStores
from tests.support.mongo_wire import Fault, wire_proxy
from tests.support.mongod import Mongod, Scratch
from tests.support.stores import COLLECTIONS, ORG, ROOMS, gathered, send, seqs

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


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_retry_tells_of_an_append_whose_answer_was_lost_for_good(
    mongo: MongoStores, fault: Fault
) -> None:
    other = await mongo.node()
    async with wire_proxy(mongo.url) as (proxy, url):
        engine = MongoEngine(url, COLLECTIONS, clock=SystemClock(), timeout=0.5)
        await engine.start()
        proxy.arm(1, fault, only="insert")  # into the log
        with pytest.raises(Unavailable):
            await send(engine, "n1", key=Key("k", "d"))
        await engine.stop()
    done = await send(other, "n1", key=Key("k", "d"))
    assert (done.seq, done.replayed) == (1, fault == "after")
    assert await seqs(other) == [1]


WRITES: dict[str, Callable[[Engine], Awaitable[object]]] = {
    "insert": lambda engine: engine.insert(ORG, ROOMS, {"id": "r", "n": 1}),
    "insert_or_get": lambda engine: engine.insert_or_get(ORG, ROOMS, {"id": "r", "n": 1}),
    "update": lambda engine: engine.update(ORG, ROOMS, "r", inc={"n": 1}),
    "write": lambda engine: engine.write(ORG, [Put(ROOMS, {"id": "r", "n": 1})]),
    "delete": lambda engine: engine.delete(ORG, ROOMS, {}),
}


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("method", WRITES)
async def test_a_plain_write_whose_answer_was_lost_may_have_been_made(
    mongo: MongoStores, method: str, fault: Fault
) -> None:
    other = await mongo.node()
    if method in {"update", "delete"}:
        await other.insert(ORG, ROOMS, {"id": "r", "n": 0})
    before = await other.find(ORG, ROOMS, {})
    async with wire_proxy(mongo.url) as (proxy, url):
        engine = MongoEngine(url, COLLECTIONS, clock=SystemClock(), timeout=0.5)
        await engine.start()
        only = {"update": "update", "delete": "delete"}.get(method, "insert")
        proxy.arm(1, fault, only=only)
        with pytest.raises(Unavailable):
            await WRITES[method](engine)
        await engine.stop()
    after = [] if method == "delete" else [{"id": "r", "n": 1}]
    assert await other.find(ORG, ROOMS, {}) == (before if fault == "before" else after)
