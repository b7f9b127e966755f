"""A node notices others on its store that it does not hear, and says so."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fanout.bus import Bus, LocalBus
from server.cluster.nodes import CHANNEL, EVERY, FORGOTTEN, LIVES, TOLD_EVERY, UNHEARD, Neighbours
from store.cluster.nodes import COLLECTIONS, NodeRepository
from store.engine import Engine
from store.sqlite import SqliteEngine
from tests.support.bus import LossyBus, Wire
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


async def joined(engine: Engine, bus: LossyBus, clock: TurnedClock, name: str) -> Neighbours:
    node = Neighbours(NodeRepository(engine), bus, clock, name)
    await bus.start(lambda _channel, message: node.receive(message), lambda _channels: None)
    bus.subscribe(CHANNEL)
    return node


def apart(engine: Engine, clock: TurnedClock, name: str, bus: Bus | None = None) -> Neighbours:
    return Neighbours(NodeRepository(engine), bus or LocalBus(), clock, name)


async def looks(clock: TurnedClock, count: int, *nodes: Neighbours) -> None:
    for _ in range(count):
        for node in nodes:
            await node.look()
        clock.turn(EVERY)


async def test_two_without_a_bus_both_complain_of_each_other(
    engine: Engine, clock: TurnedClock
) -> None:
    one, two = apart(engine, clock, "a:1"), apart(engine, clock, "b:2")
    with capture_logs() as logs:
        await looks(clock, 3, one, two)
    told = [(each["event"], each["log_level"], each["nodes"]) for each in logs]
    assert sorted(told) == [
        ("nodes_not_joined", "error", ["a:1"]),
        ("nodes_not_joined", "error", ["b:2"]),
    ]
    assert (one.others, one.apart) == (two.others, two.apart) == (1, 1)


async def test_the_complaint_comes_once_a_minute_until_it_is_over(
    engine: Engine, clock: TurnedClock
) -> None:
    one, two = apart(engine, clock, "a:1"), apart(engine, clock, "b:2")
    minutes = 3
    with capture_logs() as logs:
        await looks(clock, 3 + int(minutes * TOLD_EVERY / EVERY), one, two)
        about_two = [each for each in logs if each.get("nodes") == ["b:2"]]
        assert len(about_two) == minutes + 1
        await two.leave()
        await looks(clock, 1, one)
    assert logs[-1]["event"] == "nodes_joined"
    assert (one.others, one.apart) == (0, 0)


async def test_one_that_is_alone_says_nothing_whatever_dead_ones_left(
    engine: Engine, clock: TurnedClock
) -> None:
    dead = apart(engine, clock, "a:1")
    await looks(clock, 3, dead)
    with capture_logs() as logs:
        one = apart(engine, clock, "a:1")
        await looks(clock, 20, one)
        assert logs == []
        assert len(await NodeRepository(engine).all()) == 2
        clock.turn(FORGOTTEN)
        await looks(clock, 1, one)
    assert [each["id"] for each in await NodeRepository(engine).all()] == [one.node]


async def test_nodes_that_hear_each_other_say_nothing(engine: Engine, clock: TurnedClock) -> None:
    wire = Wire()
    one = await joined(engine, LossyBus(wire), clock, "a:1")
    two = await joined(engine, LossyBus(wire), clock, "b:2")
    with capture_logs() as logs:
        await looks(clock, 10, one, two)
        assert (one.others, one.apart) == (1, 0)
        assert logs == []
        # One that dies is not heard any more, but lives no more either.
        await looks(clock, 10, one)
    assert [(each["event"], each["nodes"]) for each in logs] == [("nodes_died", ["b:2"])]
    assert one.others == 0


async def test_nodes_on_different_buses_complain(engine: Engine, clock: TurnedClock) -> None:
    one = await joined(engine, LossyBus(Wire()), clock, "a:1")
    two = await joined(engine, LossyBus(Wire()), clock, "b:2")
    with capture_logs() as logs:
        await looks(clock, UNHEARD, one, two)
        assert logs == []
        await looks(clock, 2, one, two)
    assert {each["nodes"][0] for each in logs} == {"a:1", "b:2"}


async def test_an_outage_of_the_bus_is_not_taken_for_it(engine: Engine, clock: TurnedClock) -> None:
    wire = Wire()
    one = await joined(engine, LossyBus(wire), clock, "a:1")
    two = await joined(engine, LossyBus(wire), clock, "b:2")
    with capture_logs() as logs:
        await looks(clock, 3, one, two)
        wire.cut = True
        await looks(clock, 5 * UNHEARD, one, two)
        wire.cut = False
        await looks(clock, 5 * UNHEARD, one, two)
    assert logs == []


async def test_looks_that_drift_make_no_node_come_and_go(
    engine: Engine, clock: TurnedClock
) -> None:
    one, two = apart(engine, clock, "a:1"), apart(engine, clock, "b:2")
    await looks(clock, 3, one, two)
    for _ in range(5):
        await looks(clock, LIVES, one)
        assert one.apart == 1
        await looks(clock, 1, two, one)
        assert one.apart == 1


async def test_a_node_that_dies_is_told_of_once_and_one_that_ends_is_not(
    engine: Engine, clock: TurnedClock
) -> None:
    wire = Wire()
    one, two, three = [
        await joined(engine, LossyBus(wire), clock, name) for name in ("a:1", "b:2", "c:3")
    ]
    died: list[str] = []
    one.on_died.append(lambda: died.append("somebody"))
    await looks(clock, 3, one, two, three)
    await two.leave()
    await looks(clock, 5, one, three)
    assert died == []
    await looks(clock, 5, one)
    assert died == ["somebody"]


async def test_a_node_that_ends_deaf_is_taken_for_dead(engine: Engine, clock: TurnedClock) -> None:
    wire = Wire()
    one, two = [await joined(engine, LossyBus(wire), clock, name) for name in ("a:1", "b:2")]
    died: list[str] = []
    one.on_died.append(lambda: died.append("somebody"))
    await looks(clock, 3, one, two)
    wire.cut = True
    await two.leave()
    wire.cut = False
    await looks(clock, 5, one)
    assert died == ["somebody"]
