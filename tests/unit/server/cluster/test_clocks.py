"""A node whose clock is wrong says so and leaves readiness; those whose clocks are right stay."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from domain.errors import Unavailable
from fanout.bus import LocalBus
from server.cluster.clocks import TOLERATED, ClockCheck, distance
from server.cluster.nodes import EVERY, Neighbours
from store.cluster.nodes import COLLECTIONS, NodeRepository
from store.engine import Engine
from store.sqlite import SqliteEngine
from tests.support.local import TurnedClock
from tests.unit.server.cluster.test_nodes import looks

START = 1_800_000_000.0
WRONG = TOLERATED + 1.0


class Offset(TurnedClock):
    """As far from another one as is said, and turned with it."""

    def __init__(self, of: TurnedClock, offset: float) -> None:
        super().__init__()
        self._of = of
        self.offset = offset

    def now(self) -> float:
        return self._of.now() + self.offset

    def monotonic(self) -> float:
        return self._of.monotonic()


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock(START)


@pytest.fixture
async def engine(tmp_path: Path, clock: TurnedClock) -> AsyncIterator[Engine]:
    engine = SqliteEngine(tmp_path / "store.db", COLLECTIONS, clock=clock)
    await engine.start()
    yield engine
    await engine.stop()


class TimedNodes(NodeRepository):
    """On a store that has a clock."""

    def __init__(self, engine: Engine, clock: TurnedClock) -> None:
        super().__init__(engine)
        self._time = clock

    async def time(self) -> float | None:
        return self._time.now()


def node(nodes: NodeRepository, clock: TurnedClock, name: str) -> Neighbours:
    return Neighbours(nodes, LocalBus(), clock, name)


async def ready(node: Neighbours) -> bool:
    try:
        await node.clocks.check()
    except Unavailable:
        return False
    return True


@pytest.mark.parametrize("offset", [WRONG + EVERY, -WRONG - EVERY])
async def test_the_one_of_three_that_is_wrong_is_not_ready_until_it_is_right(
    engine: Engine, clock: TurnedClock, offset: float
) -> None:
    nodes, off = NodeRepository(engine), Offset(clock, offset)
    one, two, wrong = node(nodes, clock, "a:1"), node(nodes, clock, "b:2"), node(nodes, off, "c:3")
    with capture_logs() as logs:
        await looks(clock, 4, one, two, wrong)
    assert [await ready(each) for each in (one, two, wrong)] == [True, True, False]
    told = [each for each in logs if each["event"] == "clocks_differ"]
    assert sorted((*each["ahead"], each["ready"]) for each in told) == [
        ("a:1", "b:2", False),
        ("c:3", True),
        ("c:3", True),
    ]
    assert abs(wrong.clocks.furthest) > TOLERATED
    assert (one.clocks.furthest > 0) is (offset > 0)
    off.offset = 0.0
    with capture_logs() as logs:
        await looks(clock, 4, one, two, wrong)
    assert [await ready(each) for each in (one, two, wrong)] == [True, True, True]
    assert [each["event"] for each in logs].count("clocks_agree") == 3


async def test_between_two_the_store_decides(engine: Engine, clock: TurnedClock) -> None:
    nodes, off = TimedNodes(engine, clock), Offset(clock, WRONG)
    right, wrong = node(nodes, clock, "a:1"), node(nodes, off, "b:2")
    await looks(clock, 4, right, wrong)
    assert [await ready(each) for each in (right, wrong)] == [True, False]


async def test_one_alone_goes_by_the_store(engine: Engine, clock: TurnedClock) -> None:
    alone = node(TimedNodes(engine, Offset(clock, -WRONG)), clock, "a:1")
    await looks(clock, 1, alone)
    assert not await ready(alone)


async def test_a_row_that_was_long_under_way_is_no_wrong_clock(
    engine: Engine, clock: TurnedClock
) -> None:
    nodes, late = NodeRepository(engine), Offset(clock, 0.0)
    one, two = node(nodes, clock, "a:1"), node(nodes, late, "b:2")
    with capture_logs() as logs:
        for offset in (0.0, 0.0, 0.0, -3 * EVERY, 0.0, 0.0):
            late.offset = offset
            await two.look()
            late.offset = 0.0
            await one.look()
            clock.turn(EVERY)
            assert await ready(one)
    assert not [
        each for each in logs if each["event"] == "clocks_differ" and "b:2" in each["ahead"]
    ]


async def test_what_the_dead_left_is_not_compared(engine: Engine, clock: TurnedClock) -> None:
    nodes = NodeRepository(engine)
    await looks(clock, 3, node(nodes, Offset(clock, 10 * WRONG), "b:2"))
    one = node(nodes, clock, "a:1")
    await looks(clock, 5, one)
    assert await ready(one)
    assert one.clocks.furthest == 0.0


def test_the_distance_of_a_moment_from_a_span() -> None:
    assert [distance(moment, 2.0, 4.0) for moment in (0.0, 2.0, 3.0, 4.0, 7.0)] == [-2, 0, 0, 0, 3]


async def test_it_complains_once_a_minute(clock: TurnedClock) -> None:
    check = ClockCheck(clock)
    with capture_logs() as logs:
        for _ in range(25):
            check.compare({"store": WRONG})
            clock.turn(EVERY)
    assert len(logs) == 3
