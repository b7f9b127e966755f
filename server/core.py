"""What all features are built on: the store, the way events leave a node, who is connected."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import cast

from actions.connections.clients import Clients, Outlet
from actions.ledger import Ledger
from actions.streams.streams import Rules, Streams
from domain.clock import Clock
from domain.events import StoredEvent
from domain.tracing import Tracing
from fanout.bus import Bus
from fanout.control import CHANNEL, Control
from fanout.hub import Encoder, Hub, Subscriber
from fanout.presence import CHANNELS as PRESENCE
from fanout.presence import QUESTION, PresenceRegistry
from fanout.publisher import Publisher
from fanout.repair import Repair
from fanout.sequencer import Sequencer
from fanout.user_control import CHANNEL as USER
from fanout.user_control import UserControl
from store.engine import Engine
from store.shared_log import SharedLog

REPAIR_EVENTS = 1000
REPAIR_BYTES = 4 * 1024 * 1024
REPAIRS_AT_ONCE = 16
"""Reads of the log at a time: after an interruption many streams are behind."""


class Core:
    """One node's store, hub, order of events and clients."""

    def __init__(
        self,
        engine: Engine,
        bus: Bus,
        clock: Clock,
        encode: Encoder,
        *,
        head_check: float = 5.0,
        tracing: Tracing | None = None,
    ) -> None:
        """`encode` makes an event's wire bytes. `head_check`: seconds within which what the bus
        has lost is noticed.
        """
        self.engine = engine
        self.bus = bus
        self.clock = clock
        self.hub = Hub(encode)
        self.sequencer = Sequencer(
            self.hub,
            self._fetch,
            on_follow=bus.subscribe,
            on_unfollow=bus.unsubscribe,
            on_gap=_send_away,
        )
        self.publisher = Publisher(self.hub, self.sequencer, bus, tracing)
        self.ledger = Ledger(engine, self.publisher)
        self.control = Control(bus)
        self.user_control = orders = UserControl(bus)
        self.clients = Clients(on_first=orders.follow, on_last=orders.unfollow)
        self.sequencer.connections_of = self._connections_of
        self.rules = Rules()
        self.streams = Streams(
            SharedLog(engine, clock),
            self.sequencer,
            self.publisher,
            self.rules,
            self.clients,
            self.user_control,
        )
        self.repair = Repair(self.sequencer, partial(engine.heads, returned=True), every=head_check)
        self.services: list[Callable[[], Awaitable[object]]] = (
            [] if bus.alone else [self.repair.run, self.control.run, orders.run]
        )
        """Run for as long as the node does."""
        self._reading = asyncio.Semaphore(REPAIRS_AT_ONCE)
        self._presence: PresenceRegistry | None = None
        self._listening: dict[str, Callable[[bytes], None]] = {}

    def listen(self, channel: str, receive: Callable[[bytes], None]) -> None:
        """Have what comes over a channel of the bus handed to one that is no room of clients.
        Before `start`.
        """
        self._listening[channel] = receive

    def connect_presence(self, registry: PresenceRegistry) -> None:
        """Hand a registry what comes over the bus for it."""
        self._presence = registry

    async def start(self) -> None:
        """Connect the bus."""
        await self.bus.start(self._receive, self._joined)
        self.bus.subscribe(CHANNEL)
        for channel in self._listening:
            self.bus.subscribe(channel)

    async def stop(self) -> None:
        """Disconnect the bus."""
        await self.bus.stop()

    def _connections_of(self, user: str) -> Collection[Subscriber]:
        return [client.outlet for client in self.clients.of_user(user)]

    async def _fetch(self, org: str, stream: str, after: int) -> Sequence[StoredEvent]:
        async with self._reading:
            return await self.engine.read(org, stream, after, REPAIR_EVENTS, max_bytes=REPAIR_BYTES)

    def _receive(self, channel: str, message: bytes) -> None:
        if channel == CHANNEL:
            self.control.receive(message)
        elif channel.startswith(USER):
            self.user_control.receive(channel, message)
        elif channel in self._listening:
            self._listening[channel](message)
        elif channel.startswith(PRESENCE) or message.startswith(QUESTION):
            if self._presence is not None:
                self._presence.receive(channel, message)
        else:
            self.publisher.receive(channel, message)

    def _joined(self, channels: Collection[str]) -> None:
        if CHANNEL in channels:
            self.control.may_have_missed()
        self.user_control.joined(channels)
        if self._presence is not None:
            self._presence.joined([each for each in channels if each.startswith(PRESENCE)])
        self.repair.check_soon(channels)


def _send_away(members: Collection[Subscriber]) -> None:
    """Have connections come back: what they miss is told them as a gap then."""
    for outlet in cast("Collection[Outlet]", members):
        outlet.close("slow_consumer", reconnect=True)
