"""Time, passed in wherever it is needed so that tests can turn it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What time it is, for the wall and for measuring."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards, from an arbitrary start."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some point, unaffected by clock changes."""
        return time.monotonic()


def timestamp(seconds: float) -> str:
    """RFC 3339, UTC, milliseconds: the only form of a time on the wire and in the store.

    Fixed width, so that times compare as strings.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def parse_timestamp(text: str) -> float:
    """Unix seconds of an RFC 3339 time.

    Raises:
        ValueError: not a time, or one without a zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone, e.g. 2026-01-31T12:00:00Z")
    return moment.timestamp()
