"""What every place for blobs promises (`store.blobs`)."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from domain.clock import SystemClock
from domain.errors import Unavailable
from domain.ids import new_id
from store.blobs import Blobs
from store.blobs_disk import DiskBlobs
from store.mongo import MongoBlobs
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


async def test_a_place_that_is_closed_or_lost_is_unavailable(tmp_path: Path) -> None:
    place = DiskBlobs(tmp_path / "uploads")
    with pytest.raises(Unavailable):
        await place.create(new_id())
    await place.start()
    (tmp_path / "uploads" / "tmp").rmdir()
    with pytest.raises(Unavailable):
        await place.create(new_id())
    (tmp_path / "uploads" / "tmp").mkdir()
    await put(place, b"healed")
    await place.stop()


async def test_whether_a_blob_could_be_written(shelf: Shelf) -> None:
    await shelf.blobs.ping()
    assert await shelf.left() == 0
