"""Leases over every engine: one holder at a time, a fence that grows, an end by itself."""

import asyncio
import contextlib

import pytest

from domain.errors import Unavailable
from domain.ids import new_id
from store.cluster.leases import COLLECTIONS, LEASES, MARGIN, Held, LeaseRepository
from store.engine import Engine, Is
from tests.support.local import TurnedClock
from tests.support.stores import Fragile, Stores

SECONDS = 30.0


@pytest.fixture
async def engine(stores: Stores) -> Engine:
    return await stores.start(COLLECTIONS)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def leases(engine: Engine, clock: TurnedClock) -> LeaseRepository:
    return LeaseRepository(engine, clock)


async def taken(leases: LeaseRepository, holder: str, name: str = "job") -> Held:
    held = await leases.acquire(name, holder, SECONDS)
    assert held is not None
    return held


async def test_of_many_one_gets_it(leases: LeaseRepository) -> None:
    found = await asyncio.gather(*(leases.acquire("job", new_id(), SECONDS) for _ in range(20)))
    held = [each for each in found if each is not None]
    assert len(held) == 1
    assert await leases.holder("job") == held[0].holder


async def test_of_many_one_takes_over(leases: LeaseRepository, clock: TurnedClock) -> None:
    first = await taken(leases, "a")
    clock.turn(SECONDS + MARGIN)
    found = await asyncio.gather(
        *(leases.acquire("job", f"n{number}", SECONDS) for number in range(20))
    )
    held = [each for each in found if each is not None]
    assert len(held) == 1
    assert held[0].fence > first.fence


async def test_its_holder_renews_it(leases: LeaseRepository, clock: TurnedClock) -> None:
    first = await taken(leases, "a")
    for _ in range(10):
        clock.turn(SECONDS / 3)
        again = await taken(leases, "a")
        assert again.fence == first.fence
        assert again.until == clock.monotonic() + SECONDS - MARGIN
        assert await leases.acquire("job", "b", SECONDS) is None


async def test_it_ends_by_itself_and_goes_to_another_with_a_greater_fence(
    leases: LeaseRepository, clock: TurnedClock
) -> None:
    fences = []
    for holder in ("a", "b", "c", "a"):
        held = await taken(leases, holder)
        fences.append(held.fence)
        clock.turn(SECONDS - 0.001)
        assert await leases.acquire("job", "other", SECONDS) is None
        clock.turn(0.001 + MARGIN)
        assert await leases.holder("job") is None
    assert fences == sorted(set(fences))


async def test_its_holder_stops_relying_on_it_before_others_may_take_it(
    leases: LeaseRepository, clock: TurnedClock
) -> None:
    held = await taken(leases, "a")
    assert held.until == clock.monotonic() + SECONDS - MARGIN
    clock.turn(SECONDS)
    assert clock.monotonic() > held.until
    assert await leases.acquire("job", "b", SECONDS) is None


async def test_released_it_is_free_at_once(leases: LeaseRepository) -> None:
    held = await taken(leases, "a")
    await leases.release(held)
    assert await leases.holder("job") is None
    assert (await taken(leases, "b")).fence > held.fence


async def test_who_lost_it_can_neither_renew_nor_release_it(
    leases: LeaseRepository, clock: TurnedClock
) -> None:
    old = await taken(leases, "a")
    clock.turn(SECONDS + MARGIN)
    await taken(leases, "b")
    await leases.release(old)
    assert await leases.holder("job") == "b"
    assert await leases.acquire("job", "a", SECONDS) is None


async def test_released_to_rest_it_is_nobodys_for_so_long(
    leases: LeaseRepository, clock: TurnedClock
) -> None:
    held = await taken(leases, "a")
    assert await leases.release(held, 100.0)
    for holder in ("a", "b"):
        assert await leases.acquire("job", holder, SECONDS) is None
    clock.turn(99.9)
    assert await leases.acquire("job", "b", SECONDS) is None
    clock.turn(0.2)
    assert (await taken(leases, "b")).fence > held.fence


async def test_released_twice_or_when_it_was_lost_it_stays_as_it_is(
    leases: LeaseRepository, clock: TurnedClock
) -> None:
    held = await taken(leases, "a")
    assert await leases.release(held)
    assert not await leases.release(held, 100.0)
    other = await taken(leases, "b")
    assert not await leases.release(held, 100.0)
    clock.turn(SECONDS + MARGIN)
    again = await taken(leases, "b")
    assert again.fence > other.fence
    assert not await leases.release(other, 100.0)
    assert await leases.holder("job") == "b"


async def test_what_carries_the_fence_is_not_overtaken_by_an_earlier_holder(
    engine: Engine, leases: LeaseRepository, clock: TurnedClock
) -> None:
    await engine.insert("org", LEASES, {"id": "theirs", "fence": 0, "value": ""})

    async def write(held: Held, value: str) -> bool:
        changed = await engine.update(
            "org",
            LEASES,
            "theirs",
            set={"fence": held.fence, "value": value},
            where={"fence": Is("<=", held.fence)},
        )
        return changed is not None

    old = await taken(leases, "a")
    assert await write(old, "old")
    clock.turn(SECONDS + MARGIN)
    new = await taken(leases, "b")
    assert await write(new, "new")
    assert not await write(old, "late")
    assert await write(new, "newer")
    found = await engine.get("org", LEASES, "theirs")
    assert found is not None
    assert found["value"] == "newer"


async def test_names_are_apart(leases: LeaseRepository) -> None:
    await taken(leases, "a", "one")
    await taken(leases, "b", "two")
    assert await leases.holder("one") == "a"
    assert await leases.holder("nothing") is None


async def test_one_too_short_to_be_safe_is_refused(leases: LeaseRepository) -> None:
    with pytest.raises(ValueError, match="too short"):
        await leases.acquire("job", "a", 2.0)


async def test_out_of_reach_nothing_is_taken_and_what_is_held_ends_by_itself(
    fragile: Fragile, clock: TurnedClock
) -> None:
    leases = LeaseRepository(await fragile.stores.start(COLLECTIONS), clock)
    held = await taken(leases, "a")
    async with fragile.away():
        for holder in ("a", "b"):
            with pytest.raises(Unavailable):
                await leases.acquire("free", holder, SECONDS)
            with pytest.raises(Unavailable):
                await leases.acquire("job", holder, SECONDS + 1.0)
            clock.turn(SECONDS)
        with pytest.raises(Unavailable):
            await leases.release(held)
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):
                again = await leases.acquire("job", "b", SECONDS)
                break
            await asyncio.sleep(0.05)
    assert again is not None
    assert again.fence > held.fence
    assert (await taken(leases, "b", "free")).fence == 1
