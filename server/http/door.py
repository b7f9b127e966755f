"""How many connections may speak HTTP at a time, of one address and in all.

Websockets are not among them: those are counted as sessions. When there are too many, one that
waits for its next request makes room; of all addresses, that of the one that has most.
"""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from domain.accounts.accounts import network_of
from domain.errors import RateLimited, Unavailable
from domain.ids import new_id
from server.http.problems import problem
from server.transport.caller import Caller
from server.transport.crowd import Crowd
from server.transport.refusals import Refusals

LOOKED_AT = 64
"""Connections looked at for one that waits."""

PARTIES = 8
"""Addresses whose connections are looked at."""

_TOO_MANY = RateLimited("Too many connections from this address.", retry_after=5)
_FULL = Unavailable("This node has no room for another connection: try again.")


class Visitor(Protocol):
    """A connection, as the door sees it."""

    @property
    def idle(self) -> bool:
        """Whether it has no request that is handled, and none that has come whole."""
        ...

    def end(self) -> None:
        """Cut it off."""
        ...


class Door:
    """Counts connections.

    Args:
        limit: of all.
        per_address: of one network address, or one /64 network of IPv6.
        unlimited: whether an address is that of many, such as a trusted proxy: its connections
            count towards all, and towards none of its own.
        refusals: where it is said who was refused.
    """

    def __init__(
        self,
        *,
        limit: int,
        per_address: int,
        unlimited: Callable[[str], bool],
        refusals: Refusals,
    ) -> None:
        self._limit = limit
        self._per_address = per_address
        self._unlimited = unlimited
        self._refusals = refusals
        self._parties: dict[Visitor, str] = {}
        """Empty for those of an address without limit."""
        self._crowd: Crowd[Visitor] = Crowd()
        self.refused: Counter[str] = Counter()
        """By reason: `address`, `full`, `files`."""
        self.evicted = 0
        """Ended to make room for others."""

    def __len__(self) -> int:
        return len(self._parties)

    def enter(self, visitor: Visitor, address: str) -> bytes | None:
        """One comes. What it is answered if it may not come in; None: it may."""
        party = "" if self._unlimited(address) else network_of(address.removeprefix("::ffff:"))
        if party and self._crowd.count(party) >= self._per_address and not self._end_idle_of(party):
            return self.refuse("address", address)
        if len(self._parties) >= self._limit and not self.make_room():
            return self.refuse("full", address)
        self._parties[visitor] = party
        if party:
            self._crowd.add(party, visitor)
        return None

    def leave(self, visitor: Visitor) -> None:
        """One has gone; nothing happens if it is not there."""
        party = self._parties.pop(visitor, None)
        if party:
            self._crowd.remove(party, visitor)

    def make_room(self) -> bool:
        """End a connection that waits, of an address that has most; whether there was one."""
        parties = list(islice(self._crowd.descending(), PARTIES))
        return any(self._end_idle_of(party) for party in parties)

    def refuse(self, reason: str, address: str) -> bytes:
        """Account for one that is not let in; the answer that it gets."""
        self.refused[reason] += 1
        self._refusals.say("connection_refused", reason, Caller(address, "", "", ""))
        return _answer(reason)

    def _end_idle_of(self, party: str) -> bool:
        for _ in range(min(self._crowd.count(party), LOOKED_AT)):
            visitor = next(self._crowd.of(party))
            self._crowd.remove(party, visitor)
            if visitor.idle:
                del self._parties[visitor]
                self.evicted += 1
                visitor.end()
                return True
            self._crowd.add(party, visitor)  # the next look begins with others
        return False


def _answer(reason: str) -> bytes:
    """A whole response, for a connection whose request nobody reads."""
    error = _TOO_MANY if reason == "address" else _FULL
    response = problem(error, new_id())
    head = [f"HTTP/1.1 {response.status} {error.title}", "Connection: close", "Server: Parley"]
    head += [f"{name}: {value}" for name, value in response.headers.items()]
    body = response.body
    assert isinstance(body, bytes)
    head += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body
