"""Backup while in use, restore, and what clients can tell afterwards."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from domain.errors import Unavailable
from store.engine import Key, StoreError
from store.sqlite import backup, restore
from tests.support.stores import NOTES, ORG, ROOMS, send, seqs
from tests.unit.store.conftest import SqliteStores

STREAM = "messages/r1"


async def test_a_copy_taken_under_load_is_one_moment(sqlite: SqliteStores, tmp_path: Path) -> None:
    engine = await sqlite.engine()
    for n in range(300):
        await engine.insert(ORG, ROOMS, {"id": f"fill{n}", "text": "x" * 5000})
    running = True
    sent = 0

    async def write() -> None:
        nonlocal sent
        while running:
            await send(engine, f"n{sent:05}")
            sent += 1

    writing = asyncio.create_task(write())
    while sent < 5:
        await asyncio.sleep(0.001)
    before = sent
    await engine.backup(tmp_path / "copy.db")
    while sent < before + 20:
        await asyncio.sleep(0.001)
    running = False
    await writing
    await sqlite.stop(engine)

    copy = SqliteStores(tmp_path / "elsewhere" / "store.db")
    restore(tmp_path / "copy.db", copy.path)
    restored = await copy.engine()
    got = await seqs(restored)
    assert got == list(range(1, len(got) + 1))
    assert before <= len(got) < sent
    assert await restored.count(ORG, NOTES, {}) == len(got)
    assert await restored.count(ORG, ROOMS, {}) == 300
    await copy.close()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"data", "copy.db", "elsewhere"}, "nothing half done is left"


async def test_restore_brings_back_the_copy_under_a_new_epoch(
    sqlite: SqliteStores, tmp_path: Path
) -> None:
    engine = await sqlite.engine()
    for n in range(3):
        await send(engine, f"n{n}", key=Key(f"k{n}", "d"), body="before")
    old = await engine.head(ORG, STREAM)
    await engine.backup(tmp_path / "copy.db")
    await send(engine, "n3", body="after")
    await sqlite.stop(engine)
    restore(tmp_path / "copy.db", sqlite.path)

    engine = await sqlite.engine()
    new = await engine.head(ORG, STREAM)
    assert old is not None
    assert new is not None
    assert new.seq == old.seq == 3
    assert new.epoch != old.epoch
    assert await engine.get(ORG, NOTES, "n3") is None
    assert len(await engine.search(ORG, NOTES, "before", {}, limit=10)) == 3
    assert await engine.search(ORG, NOTES, "after", {}, limit=10) == []
    assert (await send(engine, "n1", key=Key("k1", "d"))).replayed
    assert (await send(engine, "n9")).seq == 4


async def test_backup_takes_the_place_of_an_older_one(sqlite: SqliteStores, tmp_path: Path) -> None:
    engine = await sqlite.engine()
    await send(engine, "n1")
    await engine.backup(tmp_path / "copy.db")
    await send(engine, "n2")
    await engine.backup(tmp_path / "copy.db")
    db = sqlite3.connect(tmp_path / "copy.db")
    assert db.execute("SELECT count(*) FROM events").fetchone() == (2,)
    db.close()


async def test_backup_by_another_process_while_it_runs(
    sqlite: SqliteStores, tmp_path: Path
) -> None:
    engine = await sqlite.engine()
    await send(engine, "n1")
    await asyncio.to_thread(backup, sqlite.path, tmp_path / "copy.db")
    await send(engine, "n2")
    assert (tmp_path / "copy.db").exists()


async def test_a_backup_that_cannot_be_written(sqlite: SqliteStores, tmp_path: Path) -> None:
    engine = await sqlite.engine()
    with pytest.raises(Unavailable):
        await engine.backup(tmp_path / "nowhere" / "copy.db")
    with pytest.raises(Unavailable):
        backup(tmp_path / "nothing.db", tmp_path / "copy.db")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


async def test_restore_refuses_while_a_server_runs(sqlite: SqliteStores, tmp_path: Path) -> None:
    engine = await sqlite.engine()
    await send(engine, "n1")
    await engine.backup(tmp_path / "copy.db")
    with pytest.raises(StoreError, match="in use"):
        restore(tmp_path / "copy.db", sqlite.path)
    assert await seqs(engine) == [1]


async def test_restore_refuses_what_is_no_whole_backup(
    sqlite: SqliteStores, tmp_path: Path
) -> None:
    engine = await sqlite.engine()
    for n in range(50):
        await send(engine, f"n{n}", body="x" * 2000)
    await engine.backup(tmp_path / "good.db")
    await sqlite.stop(engine)
    whole = (tmp_path / "good.db").read_bytes()
    (tmp_path / "garbage.db").write_bytes(os.urandom(50_000))
    (tmp_path / "text.db").write_text("hello")
    (tmp_path / "empty.db").write_bytes(b"")
    damaged = bytearray(whole)
    damaged[20_000:60_000] = os.urandom(40_000)
    (tmp_path / "damaged.db").write_bytes(damaged)
    (tmp_path / "cut.db").write_bytes(whole[: len(whole) // 2])
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    names = ("garbage", "text", "empty", "damaged", "cut", "other", "missing")
    for name in names:
        with pytest.raises(StoreError):
            restore(tmp_path / f"{name}.db", sqlite.path)
    engine = await sqlite.engine()
    assert len(await seqs(engine)) == 50, "what was there is untouched"
