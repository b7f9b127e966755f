"""A messaging world in which what is unread and how far members have come is really counted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actions.connections.clients import Client
from actions.messaging.receipts import Receipts
from actions.messaging.unread import Unread
from actions.messaging.unread_totals import UnreadTotals
from actions.streams.streams import Position
from domain.messaging import conversations, messages, receipts, unread
from domain.principals import Principal
from fanout.bus import Bus
from store.engine import Engine
from store.messaging.messages import MESSAGES
from store.messaging.unread import UnreadRepository
from tests.support.local import LocalOutlet, TurnedClock, local_client
from tests.support.messaging import MessagingWorld, messaging_world

EVENTS = (*conversations.EVENTS, *messages.EVENTS, *receipts.EVENTS, *unread.EVENTS)


class CountingWorld(MessagingWorld):
    """Messages, receipts and unread counts on one node."""

    def __init__(
        self, engine: Engine, clock: TurnedClock, bus: Bus | None = None, head_check: float = 5.0
    ) -> None:
        super().__init__(engine, clock, bus, head_check)
        self.counts = Unread(
            UnreadRepository(engine),
            self.memberships,
            self.hub,
            self.clients,
            self.publisher,
            clock,
        )
        self.streams.on_expelled.append(self.counts.expelled)
        self.totals = UnreadTotals(
            self.counts, UnreadRepository(engine), self.memberships, self.sequencer
        )
        self.sequencer.observe(
            conversations.CONVERSATION_UPDATED.name, self.totals.settings_changed
        )
        self.sequencer.observe(messages.MESSAGE_CREATED.name, self.counts.sent)
        self.sequencer.observe(messages.MESSAGE_DELETED.name, self.counts.deleted)
        self.sequencer.observe(messages.MESSAGE_DELETED.name, self.totals.hidden)
        self.sequencer.observe(messages.MESSAGE_EDITED.name, self.totals.edited)
        self.moves = Receipts(
            engine,
            self.receipts,
            self.conversation_store,
            self.messages,
            self.memberships,
            self.counts,
            self.clients,
            self.publisher,
            clock,
        )

    async def connect(
        self, who: Principal, resume: Mapping[str, Position] | None = None
    ) -> tuple[Client, LocalOutlet]:
        client, outlet = local_client(who, events=EVENTS)
        self.clients.add(client)
        greeting: dict[str, Any] = {}

        async def greet() -> None:
            greeting.update(await self.totals.at_ready(client))

        await self.streams.enter(
            client,
            resume or {},
            lambda streams: outlet.emit("ready", {"streams": streams, **greeting}),
            greet,
        )
        await self.counts.entered(client, (resume or {}).keys())
        await self.totals.entered(client, (resume or {}).keys())
        await self.moves.entered(client, (resume or {}).keys())
        return client, outlet

    async def part(self, client: Client) -> None:
        """The connection has gone, as the gateway tells it."""
        self.disconnect(client)
        client.closed()
        await self.counts.left(client)
        await self.totals.left(client)
        await self.moves.left(client)

    async def unread_of(self, who: Principal, conversation: str) -> tuple[int, int]:
        """What the user has not read, as conversations show it."""
        return (await self.counts.counts(who.org, who.user, [conversation]))[conversation]

    async def recount(self, who: Principal, conversation: str, joined: int = 0) -> tuple[int, int]:
        """The same, found out by reading all messages."""
        place = await self.receipts.get(who.org, conversation, who.user)
        docs = await self.engine.find(
            who.org, MESSAGES, {"conversation": conversation}, order=("seq",), limit=None
        )
        left = [
            doc
            for doc in docs
            if doc["seq"] > max(place["read_seq"], joined)
            and doc["sender"] != who.user
            and not doc["deleted_at"]
        ]
        return len(left), sum(1 for doc in left if who.user in doc["mentions"])

    async def close(self) -> None:
        await self.counts.close()
        await self.moves.close()


@asynccontextmanager
async def counting_world(path: Path) -> AsyncIterator[CountingWorld]:
    """A world with a fresh store."""
    async with messaging_world(path) as plain:
        world = CountingWorld(plain.engine, plain.clock)
        try:
            yield world
        finally:
            await world.close()


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
