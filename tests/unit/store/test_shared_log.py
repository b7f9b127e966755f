"""The log as many read it who come back at the same time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.events import Actor
from domain.streams import Head
from store.engine import Append, NewEvent
from store.shared_log import KEPT_SECONDS, SharedLog
from store.sqlite import SqliteEngine
from tests.support.local import TurnedClock

ORG = "default"


class Counting(SqliteEngine):
    """Counts the reads of its log."""

    reads = 0

    async def read(self, *args: Any, **options: Any) -> Any:
        self.reads += 1
        return await super().read(*args, **options)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Counting]:
    engine = Counting(tmp_path / "parley.db", (), clock=TurnedClock(), synchronous="NORMAL")
    await engine.start()
    yield engine
    await engine.stop()


async def append(engine: SqliteEngine, stream: str, text: str) -> None:
    event = NewEvent("message.created", {"body": text})
    at = "2026-01-01T00:00:00.000Z"
    await engine.append(Append(ORG, stream, Actor("ann"), at, [event]))


async def head_of(log: SharedLog, stream: str) -> Head:
    return (await log.heads(ORG, [stream]))[stream]


async def seqs(log: SharedLog, stream: str, after: int, head: Head, room: int = 10**6) -> list[int]:
    return [event.seq for event in await log.gap(ORG, stream, after, head, room)]


async def test_a_gap_is_read_once_for_all_who_have_it(engine: Counting) -> None:
    log = SharedLog(engine, TurnedClock())
    for number in range(10):
        await append(engine, "messages/1", str(number))
    head = await head_of(log, "messages/1")
    gaps = await asyncio.gather(*(seqs(log, "messages/1", 4, head) for _ in range(50)))
    assert gaps == [[5, 6, 7, 8, 9, 10]] * 50
    assert await seqs(log, "messages/1", 8, head) == [9, 10]
    assert engine.reads == 1
    # One who was away longer than all before.
    assert await seqs(log, "messages/1", 1, head) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert await seqs(log, "messages/1", 4, head) == [5, 6, 7, 8, 9, 10]
    assert engine.reads == 2


async def test_of_another_head_nothing_is_taken(engine: Counting) -> None:
    log = SharedLog(engine, TurnedClock())
    await append(engine, "messages/1", "one")
    old = await head_of(log, "messages/1")
    await seqs(log, "messages/1", 0, old)
    await append(engine, "messages/1", "two")
    new = await head_of(log, "messages/1")
    assert await seqs(log, "messages/1", 0, new) == [1, 2]
    assert await seqs(log, "messages/1", 0, old) == [1]
    assert engine.reads == 3


async def test_it_is_kept_for_a_short_while(engine: Counting) -> None:
    clock = TurnedClock()
    log = SharedLog(engine, clock)
    await append(engine, "messages/1", "one")
    head = await head_of(log, "messages/1")
    await seqs(log, "messages/1", 0, head)
    clock.turn(KEPT_SECONDS + 1)
    await seqs(log, "messages/1", 0, head)
    assert engine.reads == 2


async def test_no_more_is_given_than_there_is_room_for(engine: Counting) -> None:
    log = SharedLog(engine, TurnedClock())
    for _ in range(3):
        await append(engine, "messages/1", "x" * 1000)
    head = await head_of(log, "messages/1")
    assert await seqs(log, "messages/1", 0, head) == [1, 2, 3]
    assert await seqs(log, "messages/1", 0, head, 2500) == [1, 2]


async def test_memory_is_bounded(engine: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.shared_log.KEPT_BYTES", 5000)
    log = SharedLog(engine, TurnedClock())
    for number in range(10):
        stream = f"messages/{number}"
        await append(engine, stream, "x" * 1000)
        await seqs(log, stream, 0, await head_of(log, stream))
    before = engine.reads
    for number in range(10):
        stream = f"messages/{number}"
        await seqs(log, stream, 0, await head_of(log, stream))
    assert engine.reads - before >= 6
