"""Several nodes of a cluster in one process, over one store, with whatever bus is wanted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from actions.connections.clients import Client
from actions.messaging.other_nodes import Elsewhere
from actions.streams.reconcile import Reconciler
from domain.principals import Principal
from fanout.bus import Bus
from fanout.redis.sender import end
from store.engine import Engine
from store.sqlite import SqliteEngine
from tests.support.counting import CountingWorld
from tests.support.local import LocalOutlet, TurnedClock
from tests.support.messaging import COLLECTIONS


class ClusterNode(CountingWorld):
    """One node, with everything that it does by itself."""

    def __init__(self, engine: Engine, clock: TurnedClock, bus: Bus, head_check: float) -> None:
        super().__init__(engine, clock, bus, head_check)
        self.bus = bus
        self.reconciler = Reconciler(self.clients, self.rules, self.streams, self.core.user_control)
        self.streams.on_expelled.append(self.reconciler.check_user)
        self.streams.on_admitted.append(self.reconciler.check_user)
        Elsewhere(self.core.user_control, self.counts, self.moves)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.core.start()
        for service in (*self.core.services, self.reconciler.run):
            self._tasks.append(asyncio.create_task(service()))  # type: ignore[arg-type]

    async def stop(self) -> None:
        for task in self._tasks:
            await end(task)
        await self.close()
        await self.core.stop()


class Reader:
    """A user connected to one node."""

    def __init__(self, node: ClusterNode, client: Client, outlet: LocalOutlet) -> None:
        self._node = node
        self.client = client
        self.outlet = outlet

    @classmethod
    async def connect(cls, node: ClusterNode, who: Principal) -> "Reader":
        """Connect to the messages namespace."""
        return cls(node, *await node.connect(who))

    def seqs(self, stream: str) -> list[int]:
        """The seqs of a stream that it was sent, in order."""
        self._node.hub.flush()
        return [
            told["seq"]
            for name, told in self.outlet.received
            if name != "ready" and told.get("stream") == stream and "seq" in told
        ]


@asynccontextmanager
async def cluster(
    path: Path, buses: Sequence[Callable[[], Bus]], *, head_check: float = 5.0
) -> AsyncIterator[list[ClusterNode]]:
    """Started nodes, one for each bus, over one fresh store."""
    clock = TurnedClock()
    engine = SqliteEngine(path / "parley.db", COLLECTIONS, clock=clock, synchronous="NORMAL")
    await engine.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.stop)
        nodes: list[ClusterNode] = []
        for make in buses:
            node = ClusterNode(engine, clock, make(), head_check)
            await node.start()
            stack.push_async_callback(node.stop)
            nodes.append(node)
        yield nodes
