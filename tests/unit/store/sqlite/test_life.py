"""Starting, stopping, versions of the file, and how much may wait."""

import asyncio
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from domain.errors import Unavailable
from store.engine import Collection, Document, Index, StoreError, Update
from store.sqlite import search
from tests.support.stores import NOTES, ORG, ROOMS, appending, gathered, note, send
from tests.unit.store.conftest import SqliteStores
from tests.unit.store.sqlite.test_outage import locked


async def test_a_second_process_is_refused(sqlite: SqliteStores) -> None:
    engine = await sqlite.engine()
    with pytest.raises(StoreError, match="in use"):
        await sqlite.engine()
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from domain.clock import SystemClock; from store.engine import StoreError\n"
        "from store.sqlite import SqliteEngine\n"
        "try: asyncio.run(SqliteEngine(Path(sys.argv[1]), [], clock=SystemClock()).start())\n"
        "except StoreError as error: print(error)\n"
    )
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, str(sqlite.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "in use" in run.stdout
    await engine.ping()
    await sqlite.stop(engine)
    await sqlite.engine()


async def test_a_search_index_of_other_words_is_made_anew(sqlite: SqliteStores) -> None:
    engine = await sqlite.engine()
    await engine.insert(ORG, NOTES, note("n1", body="Straße"))
    assert await engine.search(ORG, NOTES, "strasse", {}, limit=9)
    await sqlite.stop(engine)
    with sqlite3.connect(sqlite.path) as db:  # as the first version wrote it
        db.execute("DROP TABLE fts_notes")
        db.execute(
            "CREATE VIRTUAL TABLE fts_notes USING fts5 "
            "(text, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2')"
        )
        db.execute("INSERT INTO fts_notes (rowid, text) VALUES (1, 'Straße')")
        db.execute("UPDATE search SET field = 'body' WHERE collection = 'notes'")
    db.close()
    engine = await sqlite.engine()
    assert [doc["id"] for doc in await engine.search(ORG, NOTES, "strasse", {}, limit=9)] == ["n1"]
    await engine.update(ORG, NOTES, "n1", set={"body": "Weg"})
    assert await engine.search(ORG, NOTES, "strasse", {}, limit=9) == []


async def test_what_an_older_version_wrote_belongs_to_whoever_writes_it_next(
    sqlite: SqliteStores,
) -> None:
    engine = await sqlite.engine()
    await send(engine, "n1", stream="messages/a")
    await sqlite.stop(engine)
    with sqlite3.connect(sqlite.path) as db:
        db.execute("ALTER TABLE c_notes DROP COLUMN _stream")
    db.close()
    engine = await sqlite.engine()
    edit = Update(NOTES, "n1", set={"body": "new"})
    await engine.append(appending("messages/b", changes=[edit]))
    with pytest.raises(ValueError, match="n1 belongs"):
        await engine.append(appending("messages/a", changes=[edit]))


async def test_some_other_programs_database(sqlite: SqliteStores) -> None:
    sqlite.path.parent.mkdir()
    with sqlite3.connect(sqlite.path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(StoreError, match="other program"):
        await sqlite.engine()


async def test_a_unique_index_that_the_data_does_not_allow(sqlite: SqliteStores) -> None:
    loose = Collection("people", fields=("email",))
    engine = await sqlite.engine((loose,))
    await engine.insert(ORG, loose, {"id": "a", "email": "x"})
    await engine.insert(ORG, loose, {"id": "b", "email": "x"})
    await sqlite.stop(engine)
    strict = Collection("people", indexes=(Index(("email",), unique=True),))
    with pytest.raises(StoreError, match="schema"):
        await sqlite.engine((strict,))
    engine = await sqlite.engine((loose,))
    assert await engine.count(ORG, loose, {}) == 2, "a refused start changes nothing"


async def test_a_start_after_a_failed_one(sqlite: SqliteStores) -> None:
    with pytest.raises(ValueError, match="two collections"):
        await sqlite.engine((ROOMS, Collection("rooms")))
    for bad in (
        Collection("a b"),
        Collection("a", fields=("_org",)),
        Collection("a", fields=("X", "x")),
    ):
        with pytest.raises(ValueError, match="a"):
            await sqlite.engine((bad,))
    await (await sqlite.engine()).ping()


async def test_what_may_wait_is_bounded_in_number(sqlite: SqliteStores) -> None:
    engine = await sqlite.engine(queue_limit=10, busy_timeout=20)
    with locked(sqlite.path):
        tasks = [asyncio.create_task(send(engine, f"n{n}")) for n in range(25)]
        while sum(task.done() for task in tasks) < 15:
            await asyncio.sleep(0.01)
        assert engine.queued == 10
        assert engine.queued_bytes > 0
    done = await gathered(*tasks)
    assert [isinstance(result, Unavailable) for result in done] == [False] * 10 + [True] * 15
    assert (engine.queued, engine.queued_bytes) == (0, 0)
    await send(engine, "later")


async def test_what_may_wait_is_bounded_in_bytes(sqlite: SqliteStores) -> None:
    engine = await sqlite.engine(queue_bytes=100_000, busy_timeout=20)
    with locked(sqlite.path):
        tasks = [asyncio.create_task(send(engine, f"n{n}", body="x" * 10_000)) for n in range(30)]
        while not any(task.done() for task in tasks):
            await asyncio.sleep(0.01)
        assert engine.queued_bytes <= 100_000
    done = await gathered(*tasks)
    stored = sum(not isinstance(result, Unavailable) for result in done)
    assert 1 <= stored < 10
    assert await engine.count(ORG, NOTES, {}) == stored


async def test_the_observer_is_told(sqlite: SqliteStores) -> None:
    class Told:
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.sizes: list[int] = []

        def append(self, seconds: float) -> None:
            self.seconds.append(seconds)

        def batch(self, size: int) -> None:
            self.sizes.append(size)

    told = Told()
    engine = await sqlite.engine(observer=told)
    await asyncio.gather(*(send(engine, f"n{n}") for n in range(50)))
    await engine.ping()
    assert len(told.seconds) == 50
    assert all(0 < seconds < 30 for seconds in told.seconds)
    assert sum(told.sizes) == 51
    assert max(told.sizes) > 1, "what queues up is committed together"


async def test_a_loop_that_is_never_idle_does_not_starve_the_writer(sqlite: SqliteStores) -> None:
    """Each callback lets go of the interpreter for a system call, and has it back at once."""
    engine = await sqlite.engine()
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)

    def busy() -> None:
        there.recv(1)
        end = time.perf_counter() + 0.0001
        while time.perf_counter() < end:
            pass
        here.send(b"x")

    loop.add_reader(there, busy)
    here.send(b"x")
    waits = []
    try:
        for turn in range(20):
            start = time.monotonic()
            await asyncio.gather(*(send(engine, f"n{turn}-{n}") for n in range(5)))
            waits.append(time.monotonic() - start)
    finally:
        loop.remove_reader(there)
        here.close()
        there.close()
    assert sorted(waits)[len(waits) // 2] < 0.25, waits


async def test_every_list_has_an_index(sqlite: SqliteStores) -> None:
    """Lists by the fields of an index neither scan the table nor sort."""
    await sqlite.stop(await sqlite.engine())
    db = sqlite3.connect(sqlite.path)
    try:
        for where, order in (
            ("t._org = 'o'", "t.id"),
            ("t._org = 'o' AND t.room = 'r'", "t.seq, t.id"),
            ("t._org = 'o' AND t.room = 'r' AND (t.seq, t.id) > (1, 'x')", "t.seq, t.id"),
            ("t._org = 'o' AND t.room = 'r' AND t.seq < 9", "t.seq DESC, t.id DESC"),
            ("t._org = 'o' AND t.author = 'a' AND t.pinned = 1", "t.at, t.id"),
        ):
            sql = f"EXPLAIN QUERY PLAN SELECT _doc FROM c_notes AS t WHERE {where} ORDER BY {order}"
            plan = " / ".join(row[3] for row in db.execute(sql))
            assert plan.startswith("SEARCH t USING INDEX"), plan
            assert "TEMP B-TREE" not in plan, plan
    finally:
        db.close()


async def test_no_other_read_waits_for_a_long_search(
    sqlite: SqliteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await sqlite.engine()
    await send(engine, "n1", body="hello")
    end = threading.Event()

    def long_search(_: sqlite3.Connection) -> list[Document]:
        end.wait(30)
        return []

    monkeypatch.setattr(search, "search", lambda *_: long_search)
    searches = [
        asyncio.create_task(engine.search(ORG, NOTES, "hello", {}, limit=10)) for _ in range(20)
    ]
    try:
        for _ in range(20):
            found = await asyncio.gather(*(engine.find(ORG, NOTES, {}) for _ in range(10)))
            assert all(len(each) == 1 for each in found)
        assert not any(each.done() for each in searches)
    finally:
        end.set()
    assert await asyncio.gather(*searches) == [[]] * 20
