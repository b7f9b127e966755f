"""What all features are built on: the store, the way events leave a node, who is connected."""

from collections.abc import Sequence

from actions.clients import Clients
from actions.control import CHANNEL, Control
from actions.streams import Rules, Streams
from domain.clock import Clock
from domain.events import StoredEvent
from fanout.bus import Bus
from fanout.hub import Encoder, Hub
from fanout.publisher import Publisher
from fanout.sequencer import Sequencer
from store.engine import Engine

REPAIR_EVENTS = 1000
REPAIR_BYTES = 4 * 1024 * 1024


class Fabric:
    """One node's store, hub, order of events and clients."""

    def __init__(self, engine: Engine, bus: Bus, clock: Clock, encode: Encoder) -> None:
        """`encode` makes an event's wire bytes."""
        self.engine = engine
        self.bus = bus
        self.clock = clock
        self.hub = Hub(encode)
        self.sequencer = Sequencer(
            self.hub, self._fetch, on_follow=bus.subscribe, on_unfollow=bus.unsubscribe
        )
        self.publisher = Publisher(self.hub, self.sequencer)
        self.clients = Clients()
        self.control = Control(bus)
        self.rules = Rules()
        self.streams = Streams(
            engine, self.sequencer, self.publisher, self.rules, self.clients, self.control
        )

    async def start(self) -> None:
        """Connect the bus."""
        await self.bus.start(self._receive)
        self.bus.subscribe(CHANNEL)

    async def stop(self) -> None:
        """Disconnect the bus."""
        await self.bus.stop()

    async def _fetch(self, org: str, stream: str, after: int) -> Sequence[StoredEvent]:
        return await self.engine.read(org, stream, after, REPAIR_EVENTS, max_bytes=REPAIR_BYTES)

    def _receive(self, channel: str, message: bytes) -> None:
        if channel == CHANNEL:
            self.control.receive(message)
