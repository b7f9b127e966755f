"""A node on a real MongoDB whose clock is wrong."""

from domain.clock import SystemClock
from fanout.bus import LocalBus
from server.cluster.clocks import TOLERATED
from server.cluster.nodes import Neighbours
from server.health import Health
from store.cluster.nodes import COLLECTIONS, NodeRepository
from tests.support.mongo_stores import MongoStores


class OffsetClock(SystemClock):
    """The machine's clock, some seconds off."""

    def __init__(self, offset: float) -> None:
        self.offset = offset

    def now(self) -> float:
        return super().now() + self.offset


async def test_a_node_goes_by_the_clock_of_mongodb(mongo: MongoStores) -> None:
    engine = await mongo.start(COLLECTIONS)
    clock = OffsetClock(0.0)
    node = Neighbours(NodeRepository(engine), LocalBus(), clock, "a:1")
    health = Health({"clock": node.clocks.check})
    for offset, good in ((0.0, True), (TOLERATED + 2, False), (0.0, True), (-TOLERATED - 2, False)):
        clock.offset = offset
        await node.look()
        told = (await health.parts())["clock"]
        assert (told == "ok") is good, told
        assert abs(node.clocks.furthest + offset) < TOLERATED


async def test_the_store_has_a_time(mongo: MongoStores) -> None:
    engine = await mongo.start(COLLECTIONS)
    time = await engine.time()
    assert time is not None
    assert abs(time - SystemClock().now()) < TOLERATED
