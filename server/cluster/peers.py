"""What joins a node to the others of its cluster; for a node that is alone, what stands for it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from fanout.bus import Bus, LocalBus
from fanout.limits import Limit, LocalRateLimiter, RateLimiter
from fanout.presence import LocalPresenceRegistry, PresenceRegistry

ShareLimits = Callable[[LocalRateLimiter, Mapping[str, Limit | None], Limit | None], RateLimiter]
"""Given this node's limiter, its limits and the default one: the limiter to use."""


async def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Peers:
    """The ways to the other nodes."""

    bus: Bus = field(default_factory=LocalBus)
    presence: PresenceRegistry = field(default_factory=LocalPresenceRegistry)
    share_limits: ShareLimits = lambda local, _limits, _default: local
    close: Callable[[], Awaitable[None]] = _nothing
    """Called when the node has stopped."""
