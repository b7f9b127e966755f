"""Presence registries of one cluster, or the one of a node that is alone."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import AsyncExitStack
from typing import Any

from domain.clock import SystemClock
from domain.presence.presence import Device
from fanout.bus import LocalBus
from fanout.presence import CHANNELS, QUESTION, LocalPresenceRegistry, PresenceRegistry
from fanout.redis.bus import RedisBus
from fanout.redis.presence import RedisPresenceRegistry
from fanout.redis.servers import RedisServers, open_servers

DEAD_AFTER = 1.0


def device(id: str, since: int = 0, **more: Any) -> Device:
    """A device; later ones have a greater `since`."""
    return Device(id, f"login-{id}", f"2027-01-01T00:00:{since:02d}.000Z", True)._replace(**more)


class RegistryNode:
    """One node's registry, and what it told."""

    def __init__(self, registry: PresenceRegistry, bus: RedisBus | LocalBus) -> None:
        self.registry = registry
        self.bus = bus
        self.changed: list[tuple[str, str]] = []
        self.following: dict[str, list[str]] = {}
        self.joined: set[str] = set()
        self.received: list[str] = []

    async def start(self) -> None:
        self.registry.start(self._changed, self._following)
        await self.bus.start(self._receive, self._joined)

    def _changed(self, org: str, user: str) -> None:
        self.changed.append((org, user))

    async def follow(self, stream: str, *users: str) -> None:
        """Have users follow a stream here, and wait until others can ask for them."""
        self.following[stream] = list(users)
        self.bus.subscribe(stream)
        while not self.bus.hears(stream):
            await asyncio.sleep(0.005)

    def _following(self, stream: str) -> Iterable[str]:
        return self.following.get(stream, ())

    def _receive(self, channel: str, message: bytes) -> None:
        if channel.startswith(CHANNELS) or message.startswith(QUESTION):
            self.received.append(channel)
            self.registry.receive(channel, message)

    def _joined(self, channels: Collection[str]) -> None:
        self.joined.update(channels)
        self.registry.joined(channels)

    async def ids(self, user: str = "ann", org: str = "org") -> set[str]:
        """The devices of a user, by id."""
        return {each.id for each in (await self.registry.devices(org, [user])).get(user, ())}

    async def device(self, id: str, user: str = "ann") -> Device | None:
        """One device of a user."""
        found = (await self.registry.devices("org", [user])).get(user, ())
        return next((each for each in found if each.id == id), None)


class Registries:
    """Makes them."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self._stack = AsyncExitStack()

    async def add(
        self,
        *,
        dead_after: float = DEAD_AFTER,
        settled_after: float = 0.0,
        looked_again: float = 30.0,
        doubted: float = 3.0,
        wrap: Callable[[RedisServers], RedisServers] = lambda servers: servers,
    ) -> RegistryNode:
        """A started node, which lives."""
        if self.url is None:
            node = RegistryNode(LocalPresenceRegistry(), LocalBus())
            await node.start()
            return node
        servers = wrap(open_servers(self.url))
        self._stack.push_async_callback(servers.close)
        bus = RedisBus(servers, SystemClock())
        self._stack.push_async_callback(bus.stop)
        registry = RedisPresenceRegistry(
            servers,
            bus,
            SystemClock(),
            dead_after=dead_after,
            settled_after=settled_after,
            looked_again=looked_again,
            doubted=doubted,
        )
        self._stack.push_async_callback(registry.leave, 0.0)
        node = RegistryNode(registry, bus)
        await node.start()
        await registry.renew()
        return node

    async def close(self) -> None:
        await self._stack.aclose()
