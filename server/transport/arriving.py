"""What is on its way into this process: one bound for all of it together."""

import time
from collections.abc import Callable
from types import TracebackType

import structlog

log = structlog.get_logger(__name__)

TELL_EVERY = 60.0
"""Seconds between two lines in the log that say that something was refused."""


class Crowded(Exception):
    """Too much is on its way here already, of all together: what is refused may be sent again."""

    def __init__(self) -> None:
        super().__init__("Too many requests are on their way here at once: try again.")


class Arriving:
    """Counts the bytes that are held of requests which have not come whole yet: whoever sends
    slowly, or stops in the middle, makes others hold what it sent so far.

    What comes whole at once is never counted, and never refused.

    Args:
        limit: bytes, of all together. Those whom nobody knows may have half of it, so that they
            cannot keep the others out.
        clock: seconds, monotonic.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.held = 0
        """Bytes, now."""
        self.refused = 0
        """Since the start."""
        self._strange = 0
        """Of those, whom nobody knows."""
        self._limit = limit
        self._clock = clock
        self._told: float | None = None
        self._not_told = 0

    def share(self, *, stranger: bool) -> "Share":
        """The part of one request, whose sender is known or not."""
        return Share(self, stranger)

    def resize(self, before: int, after: int, *, stranger: bool) -> None:
        """For `Share`: one holds `after` bytes instead of `before`.

        Raises:
            Crowded: it would be more than there may be; nothing has changed.
        """
        more = after - before
        if more > 0 and (
            self.held + more > self._limit or (stranger and self._strange + more > self._limit // 2)
        ):
            self.refused += 1
            self._tell()
            raise Crowded()
        self.held += more
        if stranger:
            self._strange += more

    def _tell(self) -> None:
        now = self._clock()
        if self._told is not None and now - self._told < TELL_EVERY:
            self._not_told += 1
            return
        log.warning("too_much_arriving", limit=self._limit, not_logged=self._not_told)
        self._told = now
        self._not_told = 0


class Share:
    """What is held of one request."""

    __slots__ = ("_all", "_held", "_stranger")

    def __init__(self, everything: Arriving, stranger: bool) -> None:
        self._all = everything
        self._stranger = stranger
        self._held = 0

    def hold(self, size: int) -> None:
        """So many bytes of it are held from now on; call it before waiting for more.

        Raises:
            Crowded: too much is held already, of all together.
        """
        if size != self._held:
            self._all.resize(self._held, size, stranger=self._stranger)
            self._held = size

    def leave(self) -> None:
        """It has come whole, or is given up. Again is nothing."""
        self.hold(0)

    def __enter__(self) -> "Share":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()
