"""Answers that wait for peers to take them: one bound for all of them together."""

import time
from collections.abc import Callable
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

TELL_EVERY = 60.0
"""Seconds between two lines in the log that say that some were cut off."""


class Waiting(Protocol):
    """A connection whose peer does not take its answer as fast as it is given."""

    def end(self) -> None:
        """Cut it off."""
        ...


class Departing:
    """Counts the bytes of answers that wait for their peers: whoever asks for much on many
    connections, and reads nothing, makes others hold it.

    When there are too many, whoever waits for longest is cut off: those who take what they asked
    for are soon gone from here.

    Args:
        limit: bytes, of all together.
        clock: seconds, monotonic.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.held = 0
        """Bytes, now."""
        self.cut = 0
        """Connections cut off, since the start."""
        self._limit = limit
        self._clock = clock
        self._waiting: dict[Waiting, int] = {}
        self._told: float | None = None
        self._not_told = 0

    def hold(self, waiting: Waiting, size: int) -> None:
        """So many bytes wait for this one; it keeps its place among the others."""
        self.held += size - self._waiting.get(waiting, 0)
        self._waiting[waiting] = size
        while self.held > self._limit:
            oldest = next(iter(self._waiting))
            self.leave(oldest)
            self.cut += 1
            self._tell()
            oldest.end()

    def leave(self, waiting: Waiting) -> None:
        """Its peer took it, or is gone. Again is nothing."""
        self.held -= self._waiting.pop(waiting, 0)

    def _tell(self) -> None:
        now = self._clock()
        if self._told is not None and now - self._told < TELL_EVERY:
            self._not_told += 1
            return
        log.warning("too_much_departing", limit=self._limit, not_logged=self._not_told)
        self._told = now
        self._not_told = 0
