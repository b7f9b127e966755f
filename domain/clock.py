"""Time, passed in wherever it is needed so that tests can turn it."""

import functools
import math
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
    whole, milliseconds = divmod(math.floor(seconds * 1000), 1000)
    return f"{_second(whole)}.{milliseconds:03d}Z"


@functools.lru_cache(maxsize=8)
def _second(whole: int) -> str:
    """Many times are written within one second."""
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse_timestamp(text: str) -> float:
    """Unix seconds of an RFC 3339 time.

    Raises:
        ValueError: not a time, or one without a zone.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("no RFC 3339 time, e.g. 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone, e.g. 2026-01-31T12:00:00Z")
    return moment.timestamp()
