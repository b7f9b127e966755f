"""From which network address a request comes, also through proxies."""

import ipaddress
import time
from collections.abc import Callable, Sequence

import structlog
from aiohttp import web

log = structlog.get_logger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WARN_EVERY = 600.0
"""Seconds between two warnings of a proxy that is not believed: strangers can write the header too."""


class Addresses:
    """Tells the callers' addresses.

    Args:
        trusted: the proxies whose `X-Forwarded-For` is believed.
        warn: say in the log if one comes from anybody else. Behind a proxy that was forgotten all
            people share one address, and its limits.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        trusted: Sequence[Network],
        *,
        warn: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trusted = trusted
        self._warn = warn
        self._clock = clock
        self._warned: float | None = None

    def of(self, request: web.BaseRequest) -> str:
        """The network address of the caller: the peer's, or, behind trusted proxies, the last entry
        of `X-Forwarded-For` that none of them wrote.
        """
        peer = _plain(request.remote or "")
        if not self._trusted or not _within(peer, self._trusted):
            if self._warn and "X-Forwarded-For" in request.headers:
                self._tell(peer)
            return peer
        # Some proxies add a line instead of an entry: all lines are one list (RFC 9110, section 5.3).
        written = ",".join(request.headers.getall("X-Forwarded-For", ()))
        hops = [_plain(_address(hop)) for hop in written.split(",")]
        for hop in reversed([hop for hop in hops if hop]):
            if not _within(hop, self._trusted):
                return hop if _is_address(hop) else peer
        return peer

    def are_many(self, address: str) -> bool:
        """Whether an address is a trusted proxy's own, behind which there are many."""
        return bool(self._trusted) and _within(_plain(address), self._trusted)

    def _tell(self, peer: str) -> None:
        now = self._clock()
        if self._warned is not None and now - self._warned < WARN_EVERY:
            return
        self._warned = now
        log.warning(
            "forwarded_for_not_believed",
            peer=peer,
            hint="if this is a proxy of yours, name it in PARLEY_TRUSTED_PROXIES: until then all who "
            "come through it count as one address",
        )


def _address(hop: str) -> str:
    """An entry without the quotes, brackets and port that some proxies write."""
    hop = hop.strip().strip('"')
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, port = hop.partition(":")
    return host if colon and port.isdigit() and "." in host else hop


def _plain(address: str) -> str:
    """An IPv4 address as itself, also if it came to a socket that takes both kinds."""
    mapped = address.removeprefix("::ffff:")
    return mapped if "." in mapped else address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
