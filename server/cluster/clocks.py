"""Whether this node's clock agrees with those of the store and of the other nodes.

Tokens, leases and the times of events are all by a node's own clock. One that is wrong lets tokens
live too long or ends them too early, and shows messages of tomorrow.
"""

from collections.abc import Mapping

import structlog

from domain.clock import Clock
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

TOLERATED = 5.0
"""Seconds by which clocks may differ."""

STORE = "store"
"""What the store's clock is called among those of nodes, whose names have a colon."""

TOLD_EVERY = 60.0
"""Seconds between two complaints."""


def distance(moment: float, earliest: float, latest: float) -> float:
    """How far a moment lies outside of a span: below 0 before it, above 0 after it."""
    return min(moment - earliest, 0.0) or max(moment - latest, 0.0)


class ClockCheck:
    """Compares, complains, and says whether it is this node that is wrong. The store decides that; where
    it has no clock, whether more than half of the other nodes differ. So one wrong node does not take
    the others with it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_at: float | None = None
        self._wrong = False
        self.furthest = 0.0
        """Seconds to the clock that differs most: above 0 if that one is ahead."""

    def compare(self, ahead: Mapping[str, float]) -> None:
        """Take what was seen last: by name, how many seconds a clock is ahead of this node's."""
        self.furthest = max(ahead.values(), key=abs, default=0.0)
        differ = {name: off for name, off in ahead.items() if abs(off) > TOLERATED}
        self._wrong = STORE in differ if STORE in ahead else len(differ) * 2 > len(ahead)
        if not differ:
            if self._told_at is not None:
                log.info("clocks_agree")
                self._told_at = None
            return
        now = self._clock.monotonic()
        if self._told_at is not None and now - self._told_at < TOLD_EVERY:
            return
        self._told_at = now
        log.warning(
            "clocks_differ",
            ahead={name: round(off, 1) for name, off in sorted(differ.items())},
            ready=not self._wrong,
            hint="seconds by which these clocks are ahead of this node's: have all of them set by NTP",
        )

    async def check(self) -> None:
        """For readiness.

        Raises:
            Unavailable: it is this node whose clock is wrong.
        """
        if self._wrong:
            raise Unavailable(f"the clock is {abs(self.furthest):.0f} s from those of the others")
