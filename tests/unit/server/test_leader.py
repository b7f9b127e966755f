"""Of several nodes one leads; when it goes, another does."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.errors import Unavailable
from server.leader import SECONDS, Leader
from store.engine import Engine
from store.leases import COLLECTIONS, MARGIN, LeaseRepository
from store.sqlite import SqliteEngine
from tests.support.local import TurnedClock


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
async def engine(tmp_path: Path, clock: TurnedClock) -> AsyncIterator[Engine]:
    engine = SqliteEngine(tmp_path / "store.db", COLLECTIONS, clock=clock)
    await engine.start()
    yield engine
    await engine.stop()


def leaders(engine: Engine, clock: TurnedClock) -> list[Leader]:
    return [Leader(LeaseRepository(engine, clock), clock) for _ in range(3)]


async def test_work_is_done_by_one_of_them(engine: Engine, clock: TurnedClock) -> None:
    nodes = leaders(engine, clock)
    done: list[int] = []

    for node in nodes:
        await node.renew()
    for number in range(3):

        async def note(number: int = number) -> None:
            done.append(number)

        await nodes[number].only(note)()
    assert done == [0]


async def test_another_leads_when_one_stops(engine: Engine, clock: TurnedClock) -> None:
    first, second, _ = leaders(engine, clock)
    await first.renew()
    await second.renew()
    assert (first.leads, second.leads) == (True, False)
    await first.stop()
    await second.renew()
    assert (first.leads, second.leads) == (False, True)


async def test_another_leads_when_one_dies(engine: Engine, clock: TurnedClock) -> None:
    first, second, _ = leaders(engine, clock)
    await first.renew()
    clock.turn(SECONDS + MARGIN)
    assert not first.leads
    await second.renew()
    assert second.leads
    await first.renew()
    assert not first.leads


async def test_while_the_store_is_away_it_leads_until_its_lease_ends(
    engine: Engine, clock: TurnedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = leaders(engine, clock)[0]
    await leader.renew()

    async def away(*_: object, **__: object) -> None:
        raise Unavailable

    monkeypatch.setattr(engine, "insert_or_get", away)
    with pytest.raises(Unavailable):
        await leader.renew()
    assert leader.leads
    clock.turn(SECONDS - MARGIN)
    assert not leader.leads
