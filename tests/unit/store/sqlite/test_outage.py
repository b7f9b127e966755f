"""A full, locked, broken or missing file: `Unavailable`, nothing half done, and it heals."""

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domain.errors import Unavailable
from store.engine import Insert, Key
from store.sqlite import SqliteEngine, committer, schema
from tests.support.stores import NOTES, ORG, ROOMS, appending, gathered, send, seqs
from tests.unit.store.conftest import SqliteStores

STREAM = "messages/r1"


async def refuses(engine: SqliteEngine) -> None:
    """All kinds of writes are unavailable."""
    done = await gathered(
        engine.append(appending(key=Key("k", "d"), changes=[Insert(ROOMS, {"id": "half"})])),
        engine.insert(ORG, ROOMS, {"id": "half"}),
        engine.update(ORG, ROOMS, "r", set={"n": 2}),
        engine.delete(ORG, ROOMS, {}),
        engine.ping(),
    )
    assert [type(result) for result in done] == [Unavailable] * 5


async def works(engine: SqliteEngine, expected: list[int]) -> None:
    """It works, and of what was refused nothing is there."""
    await engine.ping()
    assert await seqs(engine) == expected
    assert await engine.find(ORG, ROOMS, {}) == [{"id": "r", "n": 1}]
    done = await engine.append(appending(key=Key("k", "d")))
    assert not done.replayed
    assert done.seq == len(expected) + 1
    head = await engine.head(ORG, STREAM)
    assert head is not None
    assert head.seq == done.seq


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the file."""
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


async def prepared(stores: SqliteStores) -> SqliteEngine:
    engine = await stores.engine()
    await engine.insert(ORG, ROOMS, {"id": "r", "n": 1})
    await send(engine, "n1")
    return engine


async def test_a_locked_file(sqlite: SqliteStores) -> None:
    engine = await prepared(sqlite)
    with locked(sqlite.path):
        await refuses(engine)
    await works(engine, [1])


async def test_a_short_lock_is_waited_for(sqlite: SqliteStores) -> None:
    engine = await sqlite.engine(busy_timeout=20)
    with locked(sqlite.path):
        waiting = asyncio.create_task(send(engine, "n1"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    assert (await waiting).seq == 1


async def test_reads_go_on_while_the_writer_cannot(sqlite: SqliteStores) -> None:
    engine = await sqlite.engine(busy_timeout=20)
    await engine.insert(ORG, ROOMS, {"id": "r", "n": 1})
    await send(engine, "n1")
    with locked(sqlite.path):
        waiting = asyncio.create_task(send(engine, "n2"))
        for _ in range(20):
            assert await engine.find(ORG, NOTES, {"room": STREAM}) != []
            assert len(await engine.read(ORG, STREAM, 0, 10)) == 1
            assert await engine.get(ORG, ROOMS, "r") is not None
        assert not waiting.done()
    await waiting


async def test_a_full_database(sqlite: SqliteStores, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await prepared(sqlite)
    opened: list[sqlite3.Connection] = []

    def small(*args: object, **options: object) -> sqlite3.Connection:
        db = schema.open_writer(*args, **options)  # type: ignore[arg-type]
        db.execute("PRAGMA max_page_count = 1").fetchall()  # no more than it has
        opened.append(db)
        return db

    monkeypatch.setattr(committer, "open_writer", small)
    await engine.stop()
    await engine.start()
    big = "x" * 200_000
    done = await gathered(*(send(engine, f"big{n}", body=big) for n in range(20)))
    assert all(isinstance(result, Unavailable) for result in done)
    assert len(await engine.find(ORG, NOTES, {})) == 1
    with pytest.raises(Unavailable):
        await engine.ping()  # there is room for it, but not for what others want to write
    opened[-1].execute("PRAGMA max_page_count = 1000000").fetchall()
    await works(engine, [1])
    await engine.ping()
    assert (await send(engine, "big", body=big)).seq == 3


async def test_a_disk_that_cannot_be_written(sqlite: SqliteStores) -> None:
    engine = await prepared(sqlite)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        await refuses(engine)
        assert len(await engine.find(ORG, NOTES, {})) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await works(engine, [1])


async def test_a_directory_that_goes_away_and_comes_back(sqlite: SqliteStores) -> None:
    engine = await prepared(sqlite)
    away = sqlite.path.parent.with_name("away")
    sqlite.path.parent.rename(away)
    await refuses(engine)
    await refuses(engine)
    away.rename(sqlite.path.parent)
    await works(engine, [1])


async def test_a_file_that_was_removed_is_not_written_on(sqlite: SqliteStores) -> None:
    engine = await prepared(sqlite)
    kept = sqlite.path.with_name("kept")
    sqlite.path.rename(kept)
    await refuses(engine)
    assert not sqlite.path.exists(), "an empty database must not take its place"
    kept.rename(sqlite.path)
    await works(engine, [1])


async def test_start_makes_the_directory(sqlite: SqliteStores) -> None:
    assert not sqlite.path.parent.exists()
    await works(await prepared(sqlite), [1])


async def test_start_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a directory")
    with pytest.raises(Unavailable):
        await SqliteStores(tmp_path / "data" / "store.db").engine()


async def test_many_callers_through_an_outage(sqlite: SqliteStores) -> None:
    """Every append that was acknowledged is there, none twice, whatever the others met."""
    engine = await sqlite.engine(busy_timeout=0.02)
    acknowledged: set[str] = set()
    met = 0

    async def caller(number: int) -> None:
        nonlocal met
        for turn in range(12):
            id = f"n{number}-{turn}"
            for _ in range(1000):
                try:
                    await send(engine, id, key=Key(id, "d"), stream=f"messages/{number % 3}")
                except Unavailable:
                    met += 1
                    await asyncio.sleep(0.01)
                else:
                    acknowledged.add(id)
                    break

    async def disturb() -> None:
        for _ in range(6):
            with locked(sqlite.path):
                seen = met
                while met == seen:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)

    callers = [asyncio.create_task(caller(number)) for number in range(20)]
    disturbing = asyncio.create_task(disturb())
    await asyncio.gather(*callers)
    disturbing.cancel()
    assert met > 0
    assert len(acknowledged) == 240
    total = 0
    for number in range(3):
        got = await seqs(engine, f"messages/{number}")
        assert got == list(range(1, len(got) + 1))
        total += len(got)
    assert total == await engine.count(ORG, NOTES, {}) == 240


async def test_damage_is_told_and_nothing_is_overwritten(sqlite: SqliteStores) -> None:
    sqlite.path.parent.mkdir()
    sqlite.path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(Unavailable):
        await sqlite.engine()
    assert sqlite.path.read_bytes().startswith(b"this is no database")


async def test_a_stopped_engine_is_unavailable(sqlite: SqliteStores) -> None:
    engine = await prepared(sqlite)
    await sqlite.stop(engine)
    await refuses(engine)
    with pytest.raises(Unavailable):
        await engine.find(ORG, ROOMS, {})
