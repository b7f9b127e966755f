"""Of several nodes one does a job, each job another if need be; when it goes, another does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from domain.clock import timestamp
from domain.errors import Unavailable
from server.jobs.shared import RESTS, SECONDS, SharedJobs
from store.cluster.leases import COLLECTIONS, MARGIN, LeaseRepository
from store.engine import Engine
from store.sqlite import SqliteEngine
from tests.support.counting import until
from tests.support.local import TurnedClock

HOUR = 3600.0


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
async def engine(tmp_path: Path, clock: TurnedClock) -> AsyncIterator[Engine]:
    engine = SqliteEngine(tmp_path / "store.db", COLLECTIONS, clock=clock)
    await engine.start()
    yield engine
    await engine.stop()


class Node:
    """One that has a job every hour, and what it did."""

    def __init__(self, engine: Engine, clock: TurnedClock, name: str = "sweep") -> None:
        self.jobs = SharedJobs(LeaseRepository(engine, clock), clock, renewed=0.01)
        self.turn = self.jobs.one(name, HOUR, self.work)
        self.done = 0
        self.begun = 0
        self.cancelled = 0
        self.forgets = 0
        """How many cancellations are lost on the work."""
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.error: Exception | None = None

    async def work(self) -> None:
        self.begun += 1
        while not self.go_on.is_set():
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.cancelled > self.forgets:
                    raise
        if self.error is not None:
            raise self.error
        self.done += 1


async def until_renewed(engine: Engine, clock: TurnedClock) -> None:
    """Wait until the lease is as long as it would be if it were taken now."""
    ends = timestamp(clock.now() + SECONDS)
    async with asyncio.timeout(10):
        while (await engine.find("parley", COLLECTIONS[0], {}))[0]["ends_at"] != ends:
            await asyncio.sleep(0.002)


def done(*nodes: Node) -> list[int]:
    return [node.done for node in nodes]


async def test_one_of_them_does_it_once_in_its_interval(engine: Engine, clock: TurnedClock) -> None:
    nodes = [Node(engine, clock) for _ in range(3)]
    for _ in range(4):
        await asyncio.gather(*(node.turn() for node in nodes))
        clock.turn(HOUR / 3)
        for node in nodes:
            await node.turn()
        clock.turn(HOUR * RESTS)
    assert sum(done(*nodes)) == 4


async def test_two_jobs_are_done_by_two_nodes_at_once(engine: Engine, clock: TurnedClock) -> None:
    one, other = Node(engine, clock, "sweep"), Node(engine, clock, "trim")
    one.go_on.clear()
    working = asyncio.ensure_future(one.turn())
    await until(lambda: one.begun == 1)
    await other.turn()
    assert done(one, other) == [0, 1]
    one.go_on.set()
    await working
    assert done(one, other) == [1, 1]


async def test_while_one_works_no_other_does_however_long_it_takes(
    engine: Engine, clock: TurnedClock
) -> None:
    one, other = Node(engine, clock), Node(engine, clock)
    one.go_on.clear()
    leases = LeaseRepository(engine, clock)
    working = asyncio.ensure_future(one.turn())
    await until(lambda: one.begun == 1)
    for _ in range(5):
        clock.turn(SECONDS / 2)
        await until_renewed(engine, clock)
        await other.turn()
    assert await leases.holder("job.sweep") == one.jobs.node
    one.go_on.set()
    await working
    assert done(one, other) == [1, 0]
    assert one.cancelled == 0


async def test_another_does_what_one_that_died_had_begun(
    engine: Engine, clock: TurnedClock
) -> None:
    dead, other = Node(engine, clock), Node(engine, clock)
    await LeaseRepository(engine, clock).acquire("job.sweep", dead.jobs.node, SECONDS)
    await other.turn()
    assert other.done == 0
    clock.turn(SECONDS + MARGIN)
    await other.turn()
    assert other.done == 1


async def test_what_failed_is_another_nodes_turn_at_once(
    engine: Engine, clock: TurnedClock
) -> None:
    one, other = Node(engine, clock), Node(engine, clock)
    one.error = Unavailable()
    with pytest.raises(Unavailable):
        await one.turn()
    await other.turn()
    assert done(one, other) == [0, 1]


async def test_what_is_stopped_is_another_nodes_turn_at_once(
    engine: Engine, clock: TurnedClock
) -> None:
    one, other = Node(engine, clock), Node(engine, clock)
    one.go_on.clear()
    working = asyncio.ensure_future(one.turn())
    await until(lambda: one.begun == 1)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert one.cancelled == 1
    await other.turn()
    assert other.done == 1


async def test_work_whose_lease_was_lost_is_cancelled_and_gives_nothing_back(
    engine: Engine, clock: TurnedClock
) -> None:
    slow, other = Node(engine, clock), Node(engine, clock)
    slow.go_on.clear()
    with capture_logs() as logs:
        working = asyncio.ensure_future(slow.turn())
        await until(lambda: slow.begun == 1)
        # Another one has taken it, as if this one had stood still until its lease had ended.
        found = (await engine.find("parley", COLLECTIONS[0], {}))[0]
        await engine.update(
            "parley",
            COLLECTIONS[0],
            "job.sweep",
            set={"holder": other.jobs.node, "fence": found["fence"] + 1},
        )
        await working
    assert (slow.cancelled, slow.done) == (1, 0)
    assert [each["event"] for each in logs] == ["job_lost"]
    assert await LeaseRepository(engine, clock).holder("job.sweep") == other.jobs.node


async def test_work_that_loses_a_cancellation_is_cancelled_again(
    engine: Engine, clock: TurnedClock
) -> None:
    node = Node(engine, clock)
    node.go_on.clear()
    node.forgets = 1
    working = asyncio.ensure_future(node.turn())
    await until(lambda: node.begun == 1)
    await engine.update("parley", COLLECTIONS[0], "job.sweep", set={"holder": "another"})
    async with asyncio.timeout(10):
        await working
    assert (node.cancelled, node.done) == (2, 0)


async def test_without_the_store_work_goes_on_until_its_lease_ends(
    engine: Engine, clock: TurnedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(engine, clock)
    node.go_on.clear()
    working = asyncio.ensure_future(node.turn())
    await until(lambda: node.begun == 1)
    asked = 0

    async def away(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        raise Unavailable

    monkeypatch.setattr(engine, "insert_or_get", away)
    await until(lambda: asked > 3)
    assert node.cancelled == 0
    clock.turn(SECONDS - MARGIN)
    await working
    assert (node.cancelled, node.done) == (1, 0)


async def test_without_the_store_work_goes_on_until_the_lease_that_was_renewed_ends(
    engine: Engine, clock: TurnedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(engine, clock)
    node.go_on.clear()
    working = asyncio.ensure_future(node.turn())
    await until(lambda: node.begun == 1)
    clock.turn(SECONDS / 2)
    await until_renewed(engine, clock)
    asked = 0

    async def away(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        raise Unavailable

    monkeypatch.setattr(engine, "insert_or_get", away)
    clock.turn(SECONDS / 2)
    # The lease that was taken at first would have ended.
    await until(lambda: asked > 3 or working.done())
    assert node.cancelled == 0
    clock.turn(SECONDS / 2 - MARGIN)
    await working
    assert (node.cancelled, node.done) == (1, 0)
