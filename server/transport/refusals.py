"""Refused is said: whoever sets a client up finds in the log why it is not let in."""

import time
from collections.abc import Callable

import structlog

from server.transport.caller import Caller

log = structlog.get_logger(__name__)

LINES = 10
WINDOW_SECONDS = 60.0
"""So many lines of one kind in that time: anybody can have requests refused."""


class Refusals:
    """Logs refusals, a bounded number of each kind; the metrics count them all."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}
        """By kind: when its window began, and how many there were since."""

    def say(
        self, event: str, reason: str, caller: Caller, *, warn: bool = False, **more: object
    ) -> None:
        """Log one. `event` and `reason` are its kind, of which there must be few.

        `warn`: probably a setting is wrong, not the caller.
        """
        now = self._monotonic()
        began, count = self._windows.get((event, reason), (now, 0))
        if now - began >= WINDOW_SECONDS:
            if count > LINES:
                more["not_logged"] = count - LINES
            began, count = now, 0
        self._windows[event, reason] = began, count + 1
        if count >= LINES:
            return
        (log.warning if warn else log.info)(
            event,
            reason=reason,
            origin=caller.origin or None,
            host=caller.host,
            address=caller.address,
            **more,
        )
