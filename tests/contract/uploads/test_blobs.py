"""What every place for blobs promises (`store.uploads.blobs`)."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from domain.clock import SystemClock
from domain.errors import Unavailable
from domain.ids import new_id
from store.mongo import MongoBlobs
from store.uploads.blobs import Blobs
from store.uploads.blobs_disk import DiskBlobs
from tests.support.door import door_to_mongodb
from tests.support.mongo_wire import wire_proxy
from tests.support.mongod import scratch


class Shelf(NamedTuple):
    """A place for blobs, and what only its maker can do and see."""

    blobs: Blobs
    age: Callable[[], Awaitable[None]]
    """Let an hour and a half pass for what is being written."""
    left: Callable[[], Awaitable[int]]
    """How many pieces of unfinished or whole blobs there are."""


async def on_disk(path: Path) -> AsyncIterator[Shelf]:
    place = DiskBlobs(path / "uploads")
    await place.start()

    async def age() -> None:
        for file in files(path / "uploads" / "tmp"):
            os.utime(file, (time.time() - 5400,) * 2)

    async def left() -> int:
        return len(files(path))

    yield Shelf(place, age, left)
    await place.stop()


async def in_mongodb(server: str) -> AsyncIterator[Shelf]:
    with scratch(server) as database:
        place = MongoBlobs(database.url, clock=SystemClock())
        await place.start()

        async def age() -> None:
            await place.begun.update_many({}, {"$inc": {"at": -5400.0}})

        async def left() -> int:
            counts = [
                await rows.count_documents({}) for rows in (place.files, place.chunks, place.begun)
            ]
            return sum(counts)

        yield Shelf(place, age, left)
        await place.stop()


@pytest.fixture(params=["disk", "mongo"])
async def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shelf]:
    if request.param == "disk":
        made = on_disk(tmp_path)
    else:
        made = in_mongodb(request.getfixturevalue("mongodb"))
    async for shelf in made:
        yield shelf


class FragileShelf(NamedTuple):
    """A place for blobs that can be taken away."""

    blobs: Blobs
    away: Callable[[], contextlib.AbstractAsyncContextManager[None]]
    reads_too: bool
    """Whether what is open already is out of reach too."""


@pytest.fixture(params=["disk", "mongo"])
async def fragile_shelf(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[FragileShelf]:
    if request.param == "disk":
        disk = DiskBlobs(tmp_path / "uploads")
        await disk.start()

        @contextlib.asynccontextmanager
        async def renamed() -> AsyncIterator[None]:
            (tmp_path / "uploads").rename(tmp_path / "away")
            yield
            (tmp_path / "away").rename(tmp_path / "uploads")

        yield FragileShelf(disk, renamed, reads_too=False)
        await disk.stop()
        return
    with scratch(request.getfixturevalue("mongodb")) as database:
        async with door_to_mongodb(database.url) as (way, url):
            mongo = MongoBlobs(url, clock=SystemClock(), timeout=0.5)
            await mongo.start()
            yield FragileShelf(mongo, way.away, reads_too=True)
            await mongo.stop()


@pytest.fixture
def blobs(shelf: Shelf) -> Blobs:
    return shelf.blobs


def files(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()]


async def put(blobs: Blobs, *chunks: bytes) -> str:
    id = new_id()
    writer = await blobs.create(id)
    for chunk in chunks:
        await writer.write(chunk)
    await writer.commit()
    return id


async def get(blobs: Blobs, id: str, start: int = 0, length: int | None = None) -> bytes | None:
    reader = await blobs.open(id)
    if reader is None:
        return None
    try:
        wanted = reader.size - start if length is None else length
        return b"".join([piece async for piece in reader.read(start, wanted)])
    finally:
        await reader.close()


async def test_what_was_committed_is_read(blobs: Blobs) -> None:
    data = os.urandom(1_000_000)
    id = await put(blobs, data[:10], data[10:600_000], data[600_000:])
    assert await get(blobs, id) == data
    assert await get(blobs, id, 10, 5) == data[10:15]
    assert await get(blobs, id, 999_990) == data[-10:]
    assert await get(blobs, id, 5, 0) == b""


async def test_nothing_is_read_before_the_commit_or_after_an_abort(blobs: Blobs) -> None:
    id = new_id()
    writer = await blobs.create(id)
    await writer.write(b"half")
    assert await blobs.open(id) is None
    await writer.abort()
    await writer.abort()
    assert await blobs.open(id) is None


async def test_an_abort_after_the_commit_does_nothing(shelf: Shelf) -> None:
    id = new_id()
    writer = await shelf.blobs.create(id)
    await writer.write(b"whole")
    await writer.commit()
    before = await shelf.left()
    await writer.abort()
    assert await get(shelf.blobs, id) == b"whole"
    assert await shelf.left() == before


async def test_a_deleted_blob_is_read_to_its_end_by_who_has_it_open(blobs: Blobs) -> None:
    id = await put(blobs, b"still there")
    reader = await blobs.open(id)
    assert reader is not None
    await blobs.delete(id)
    await blobs.delete(id)
    assert await blobs.open(id) is None
    assert b"".join([piece async for piece in reader.read(0, reader.size)]) == b"still there"
    await reader.close()


async def test_delete_takes_what_was_never_finished(shelf: Shelf) -> None:
    id = new_id()
    writer = await shelf.blobs.create(id)
    await writer.write(b"half")
    await shelf.blobs.delete(id)
    assert await shelf.left() == 0
    await writer.abort()


async def test_sweep_takes_only_what_was_left_long_ago(shelf: Shelf) -> None:
    blobs = shelf.blobs
    whole = await put(blobs, b"whole")
    old = await blobs.create(new_id())
    await old.write(b"old")
    await shelf.age()
    fresh = await blobs.create(new_id())
    await fresh.write(b"fresh")
    assert await blobs.sweep(time.time() - 3600) == 1
    await fresh.commit()
    assert await get(blobs, whole) == b"whole"
    await old.abort()


@pytest.mark.parametrize("id", ["../../etc/passwd", "", "a/b", "ABCDEFGH", "x" * 100, "12345678\n"])
async def test_what_is_no_id_reaches_no_file(blobs: Blobs, id: str) -> None:
    calls: list[Callable[[str], Awaitable[object]]] = [blobs.create, blobs.open, blobs.delete]
    for call in calls:
        with pytest.raises(ValueError, match="no id"):
            await call(id)


async def test_many_at_once(blobs: Blobs) -> None:
    ids = await asyncio.gather(*(put(blobs, bytes([n]) * 1000) for n in range(50)))
    found = await asyncio.gather(*(get(blobs, id) for id in ids))
    assert found == [bytes([n]) * 1000 for n in range(50)]


async def test_stop_finishes_what_was_accepted(shelf: Shelf) -> None:
    blobs, data = shelf.blobs, os.urandom(300_000)
    ids = [new_id() for _ in range(8)]
    writers = [await blobs.create(id) for id in ids]
    for writer in writers:
        await writer.write(data)
    accepted = asyncio.gather(*(writer.commit() for writer in writers), return_exceptions=True)
    await asyncio.sleep(0)
    await blobs.stop()
    assert await accepted == [None] * len(ids)
    with pytest.raises(Unavailable):
        await blobs.create(new_id())
    with pytest.raises(Unavailable):
        await blobs.ping()
    await blobs.start()
    assert [await get(blobs, id) == data for id in ids] == [True] * len(ids)


async def test_a_place_out_of_reach_is_unavailable_and_heals(fragile_shelf: FragileShelf) -> None:
    blobs = fragile_shelf.blobs
    id = await put(blobs, b"whole")
    reader, writer = await blobs.open(id), await blobs.create(new_id())
    assert reader is not None
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "ping": blobs.ping,
        "create": lambda: blobs.create(new_id()),
        "open": lambda: blobs.open(id),
        "delete": lambda: blobs.delete(new_id()),
        "sweep": lambda: blobs.sweep(0.0),
        "commit": writer.commit,
    }
    if fragile_shelf.reads_too:
        calls["read"] = lambda: anext(reader.read(0, 5))
        calls["write"] = lambda: writer.write(bytes(1_000_000))
    async with fragile_shelf.away():
        done = await asyncio.gather(*(each() for each in calls.values()), return_exceptions=True)
        kinds = {name: type(each) for name, each in zip(calls, done, strict=True)}
        assert kinds == dict.fromkeys(calls, Unavailable)
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):
                await blobs.ping()
                break
            await asyncio.sleep(0.05)
    await writer.abort()
    await reader.close()
    assert await get(blobs, id) == b"whole"
    assert await get(blobs, await put(blobs, b"another")) == b"another"


def test_every_method_is_asked_while_out_of_reach() -> None:
    asked = {"ping", "create", "open", "delete", "sweep"}
    assert asked | {"start", "stop"} == Blobs.__abstractmethods__


async def test_on_disk_a_commit_returns_when_all_of_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = DiskBlobs(tmp_path / "uploads")
    await place.start()
    synced: list[tuple[int, int, bool]] = []
    real, id = os.fsync, new_id()

    def there() -> bool:
        return any(each.name == id and each.parent.name != "tmp" for each in files(tmp_path))

    def fsync(descriptor: int) -> None:
        real(descriptor)
        about = os.fstat(descriptor)
        synced.append((about.st_ino, about.st_size, there()))

    monkeypatch.setattr(os, "fsync", fsync)
    writer = await place.create(id)
    await writer.write(bytes(100_000))
    await writer.commit()
    (path,) = (each for each in files(tmp_path) if each.name == id)
    assert synced[0] == (path.stat().st_ino, 100_000, False), "whole before it has its name"
    named = {inode for inode, _, named in synced[1:] if named}
    kept = tmp_path / "uploads"
    on_the_way = [each for each in path.parents if each == kept or kept in each.parents]
    assert named == {each.stat().st_ino for each in on_the_way}
    await place.stop()


async def test_in_mongodb_a_commit_returns_when_a_majority_has_it_in_its_journal(
    mongodb: str,
) -> None:
    with scratch(mongodb) as database:
        async with wire_proxy(database.url) as (proxy, url):
            place = MongoBlobs(url, clock=SystemClock())
            await place.start()
            proxy.arm(0, "before")
            await put(place, os.urandom(600_000))
            written = [each for each in proxy.bodies if "insert" in each or "update" in each]
            assert {each.get("insert") for each in written} >= {"uploads.files", "uploads.chunks"}
            for each in written:
                assert each["writeConcern"]["w"] == "majority"
                assert each["writeConcern"]["j"] is True
            await place.stop()


async def test_whether_a_blob_could_be_written(shelf: Shelf) -> None:
    await shelf.blobs.ping()
    assert await shelf.left() == 0
