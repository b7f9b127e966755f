"""Whether a node hears itself over Redis: over every server that it listens to, it publishes
something to itself now and then.
"""

from collections.abc import Callable

from domain.clock import Clock
from domain.errors import Unavailable
from fanout.redis.servers import Address

DEAF_AFTER = 5.0
"""Seconds without hearing itself after which a node is not ready."""

_TRIES = 10_000
"""Names tried until one is at a certain server of a cluster: about as many as it has servers."""


class Canaries:
    """The channels of one node that nobody else listens to, and when each was last heard."""

    def __init__(self, prefix: str, node: str, clock: Clock) -> None:
        self._name = f"{prefix}:node:{node}"
        self._clock = clock
        self.first = self._name.encode()
        """The one that is always there."""
        self._since: dict[bytes, float] = {}
        """When each was heard, or was made if it was not heard yet."""
        self._reached = False

    def __contains__(self, wire: bytes) -> bool:
        return wire in self._since

    @property
    def wires(self) -> list[bytes]:
        """All of them."""
        return list(self._since)

    def add(self, wire: bytes) -> None:
        """Expect to hear one from now on."""
        self._since[wire] = self._clock.monotonic()

    def discard(self, wire: bytes) -> None:
        """Expect it no longer."""
        self._since.pop(wire, None)

    def heard(self, wire: bytes) -> None:
        """It was heard."""
        self._since[wire] = self._clock.monotonic()
        self._reached = True

    def named_for(self, address: Address, address_of: Callable[[bytes], Address]) -> bytes | None:
        """A new one that goes through this server; None if there is none."""
        names = (f"{self._name}:{number}".encode() for number in range(_TRIES))
        fresh = (name for name in names if name not in self._since)
        return next((name for name in fresh if address_of(name) == address), None)

    def check(self, address_of: Callable[[bytes], Address | None]) -> None:
        """Returns if every one was heard lately.

        Raises:
            Unavailable: one was not; with the server that it goes through.
        """
        if not self._reached:
            raise Unavailable("Redis has not been reached yet.")
        if not self._since:
            return
        wire = min(self._since, key=lambda each: self._since[each])
        silence = self._clock.monotonic() - self._since[wire]
        if silence > DEAF_AFTER:
            server = address_of(wire)
            at = "" if server is None else f" at {server}"
            raise Unavailable(f"Nothing was heard over Redis{at} for {silence:.0f} s.")
