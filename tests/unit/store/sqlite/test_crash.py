"""`kill -9` in the middle of writing: what was acknowledged is there, once, with its state."""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from store.engine import Key
from tests.support.stores import NOTES, ORG, send
from tests.unit.store.conftest import SqliteStores

STREAMS = 5

WRITER = """
import asyncio, itertools, os, sys
from pathlib import Path
from domain.clock import SystemClock
from store.engine import Key
from store.sqlite import SqliteEngine
from tests.support.stores import COLLECTIONS, send

async def main(path, run):
    engine = SqliteEngine(Path(path), COLLECTIONS, clock=SystemClock())
    await engine.start()
    numbers = itertools.count()

    async def caller():
        for n in numbers:
            id = f"{run}-{n:06}"
            stream = f"messages/{n % 5}"
            done = await send(engine, id, stream=stream, key=Key(id, "d"), body=f"body of {n}")
            os.write(1, f"{id} {stream} {done.seq}\\n".encode())

    await asyncio.gather(*(caller() for _ in range(20)))

asyncio.run(main(*sys.argv[1:]))
"""


async def killed_run(path: Path, run: int) -> dict[str, tuple[str, int]]:
    """Let a process write and kill it; returns what it was told is stored."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), str(run), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged: dict[str, tuple[str, int]] = {}
    last = random.randint(1, 1500)
    killed = False
    try:
        while line := await process.stdout.readline():
            if line.endswith(b"\n"):
                id, stream, seq = line.decode().split()
                acknowledged[id] = (stream, int(seq))
            if len(acknowledged) == last and not killed:
                killed = True
                os.kill(process.pid, signal.SIGKILL)
    finally:
        if not killed:
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    assert killed, "the process ended before it was killed"
    assert len(acknowledged) >= last
    return acknowledged


async def test_nothing_acknowledged_is_lost(sqlite: SqliteStores, full: bool) -> None:
    acknowledged: dict[str, tuple[str, int]] = {}
    for run in range(20 if full else 5):
        acknowledged |= await killed_run(sqlite.path, run)
        engine = await sqlite.engine()
        stored: dict[str, tuple[str, int]] = {}
        for number in range(STREAMS):
            stream = f"messages/{number}"
            events = await engine.read(ORG, stream, 0, 1_000_000)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            for event in events:
                id = event.content()["id"]
                assert id not in stored
                stored[id] = (stream, event.seq)
        assert acknowledged.items() <= stored.items()
        notes = {doc["id"]: doc for doc in await engine.find(ORG, NOTES, {}, limit=None)}
        assert {id: (doc["room"], doc["seq"]) for id, doc in notes.items()} == stored
        for id in random.sample(sorted(acknowledged), min(20, len(acknowledged))):
            again = await send(engine, id, stream=stored[id][0], key=Key(id, "d"))
            assert (again.replayed, again.seq) == (True, stored[id][1])
            assert len(await engine.search(ORG, NOTES, f"body of {int(id[-6:])}", {}, limit=9)) >= 1
        await sqlite.stop(engine)
