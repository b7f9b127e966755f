"""What is appended is told at once, and what a guard says travels with it."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import cast

import pytest

from actions.ledger import Ledger, Must
from domain.clock import SystemClock
from domain.errors import Conflict, Forbidden, NotFound, ParleyError
from domain.events import StoredEvent
from fanout.publisher import Publisher
from store.engine import Appended, Guard, GuardFailed, Key, KeyReused, NewEvent
from store.sqlite import SqliteEngine
from tests.support.stores import ADA, AT, COLLECTIONS, ORG, ROOMS

STREAM = "messages/r1"
EVENTS = (NewEvent("x", {}),)
MISSING = Guard(ROOMS, "missing")


class Told:
    """A publisher that notes what it is given."""

    def __init__(self) -> None:
        self.seqs: list[int] = []

    def stored(self, events: Iterable[StoredEvent]) -> None:
        self.seqs += [event.seq for event in events]


class Desk:
    """A ledger over a real store."""

    def __init__(self, engine: SqliteEngine) -> None:
        self.told = Told()
        self.ledger = Ledger(engine, cast(Publisher, self.told))

    async def append(self, *guards: Guard | Must, digest: str | None = None) -> Appended:
        key = Key("k", digest) if digest is not None else None
        return await self.ledger.append(ORG, STREAM, ADA, AT, EVENTS, guards=guards, key=key)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    engine = SqliteEngine(tmp_path / "data.db", COLLECTIONS, clock=SystemClock())
    await engine.start()
    yield Desk(engine)
    await engine.stop()


def missing() -> ParleyError:
    return NotFound("missing")


async def forbidden() -> ParleyError:
    return Forbidden("forbidden")


async def test_what_is_stored_is_told_once_and_a_retry_tells_nothing(desk: Desk) -> None:
    assert not (await desk.append(digest="d")).replayed
    again = await desk.append(digest="d")
    assert again.replayed
    assert again.seq == 1
    await desk.append()
    assert desk.told.seqs == [1, 2]


async def test_who_is_to_follow_does_so_before_it_is_told(desk: Desk) -> None:
    seen: list[tuple[int, list[int]]] = []

    def first(appended: Appended) -> None:
        seen.append((appended.seq, list(desk.told.seqs)))

    for _ in range(2):  # the second is a retry
        await desk.ledger.append(ORG, STREAM, ADA, AT, EVENTS, key=Key("k", "d"), first=first)
    assert seen == [(1, [])]
    assert desk.told.seqs == [1]


async def test_the_first_guard_that_does_not_hold_says_so(desk: Desk) -> None:
    held = Guard(ROOMS, "other", absent=True)
    with pytest.raises(NotFound, match="missing"):
        await desk.append(Must(held, forbidden), Must(MISSING, missing), Must(MISSING, forbidden))
    with pytest.raises(Forbidden, match="forbidden"):
        await desk.append(held, Must(MISSING, forbidden), MISSING)
    with pytest.raises(GuardFailed) as failed:
        await desk.append(held, MISSING, Must(MISSING, missing))
    assert failed.value.guard == MISSING
    assert desk.told.seqs == []


async def test_a_key_of_something_else_says_what_it_is_told_to(desk: Desk) -> None:
    await desk.append(digest="d")
    with pytest.raises(KeyReused):
        await desk.append(digest="e")
    with pytest.raises(Conflict, match="other"):
        await desk.ledger.append(
            ORG, STREAM, ADA, AT, EVENTS, key=Key("k", "e"), reused=lambda: Conflict("other")
        )
    assert desk.told.seqs == [1]
