"""The end of tokens: connections hear of it beforehand, and are closed when it comes.

One table for all connections, by the second at which something is due, in place of a timer each.
"""

import asyncio
import math
from collections.abc import Collection
from dataclasses import dataclass, field

import structlog

from actions.accounts.access import Authenticator
from actions.connections.clients import Client
from domain.accounts.accounts import EXPIRING_BEFORE, expiry
from domain.clock import Clock
from domain.principals import Principal

log = structlog.get_logger(__name__)

EXPIRING = "auth.expiring"


@dataclass(slots=True)
class _Warning:
    """Of one end, which one transport was told."""

    end: float
    told: Client
    others: dict[Client, None] = field(default_factory=dict)
    """Its further connections."""


class Expirations:
    """Knows when each connection's token ends. A follower of the gateway."""

    def __init__(self, authenticator: Authenticator, clock: Clock) -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._due: dict[int, dict[Client, None]] = {}
        self._next = 0
        """What is due before this second was looked at already."""
        self._warned: dict[tuple[str, str, str], _Warning] = {}
        """Who was warned of which end that is still to come. A transport is told once, not in each
        namespace that was opened over it, because `auth.refresh` in one holds for all. If the namespace
        it was told in is left, another one is told: who listens there alone has not heard it.
        """

    async def entered(self, client: Client, resumed: Collection[str]) -> None:
        """A connection is in. What changed about its access since it was authenticated counts.

        Raises:
            Unauthenticated: its access has ended meanwhile.
        """
        now = await self._authenticator.confirm(client.principal)
        if now.role is not client.principal.role:
            client.outlet.close("revoked", reconnect=True)
        self.add(client)

    async def left(self, client: Client) -> None:
        """A connection has gone."""
        self.remove(client)

    def add(self, client: Client) -> None:
        """Watch a connection."""
        if client.principal.expires_at != math.inf:
            self._put(client, _warned_at(client.principal))

    def remove(self, client: Client) -> None:
        """Watch a connection no longer; nothing happens if it is not watched."""
        self._unwatch(client)
        warned = self._warned.get(_whose(client))
        if warned is None:
            return
        warned.others.pop(client, None)
        if warned.told is client:
            del self._warned[_whose(client)]
            now = self._clock.now()
            for other in warned.others:
                if other.principal.expires_at > now:
                    self._warn(other, now)

    def _unwatch(self, client: Client) -> None:
        if client.principal.expires_at == math.inf:
            return
        for second in (_warned_at(client.principal), _ended_at(client.principal)):
            due = self._due.get(second)
            if due is not None and client in due:
                del due[client]
                if not due:
                    del self._due[second]

    def update(self, client: Client, principal: Principal) -> None:
        """The connection has a token with another end."""
        warned = self._warned.get(_whose(client))
        if warned is not None and warned.end < principal.expires_at:
            del self._warned[_whose(client)]
        self._unwatch(client)
        client.principal = principal
        self.add(client)

    @property
    def watched(self) -> int:
        """How many connections are watched."""
        return sum(map(len, self._due.values()))

    def check(self) -> None:
        """Do what is due by now: warn, close."""
        now = self._clock.now()
        last = math.floor(now)
        self._next = last + 1
        for second in sorted(second for second in self._due if second <= last):
            for client in self._due.pop(second):
                self._act(client, now)
        for whose in [each for each, warned in self._warned.items() if warned.end <= now]:
            del self._warned[whose]

    def _act(self, client: Client, now: float) -> None:
        expires_at = client.principal.expires_at
        if expires_at <= now:
            client.outlet.close("token_expired", reconnect=True)
            return
        self._warn(client, now)
        self._put(client, _ended_at(client.principal))

    def _warn(self, client: Client, now: float) -> None:
        """Tell a transport, if it was not told already."""
        end, whose = client.principal.expires_at, _whose(client)
        warned = self._warned.get(whose)
        if warned is not None and warned.end <= end:
            warned.others[client] = None
            return
        self._warned[whose] = _Warning(end, client)
        client.outlet.emit(EXPIRING, expiry(end, now))

    def _put(self, client: Client, second: int) -> None:
        if second < self._next:
            self._act(client, self._clock.now())
        else:
            self._due.setdefault(second, {})[client] = None

    async def run(self) -> None:
        """Check every second for as long as the server runs."""
        while True:
            await asyncio.sleep(1.0 - self._clock.now() % 1.0)
            try:
                self.check()
            except Exception:
                log.exception("expiry_check_failed")


def _whose(client: Client) -> tuple[str, str, str]:
    """The transport, and the login session that it shows: others may share the transport."""
    return client.outlet.session_id, client.principal.user, client.principal.session


def _warned_at(principal: Principal) -> int:
    return math.floor(principal.expires_at - EXPIRING_BEFORE)


def _ended_at(principal: Principal) -> int:
    return math.ceil(principal.expires_at)
