"""Packets beyond `max_frame`.

An event is passed over and answered `too_large`: a close would make the client come back with the
same. CONNECT packets carry `resume`, which grows with what a user follows, and may be larger.

Any peer may send one before anybody knows who it is. So a node takes only so many at a time, a
session only a few without success, and what is refused is read and passed over, never kept: the
client gets `connect_error` and stays connected. A close would make it come back with the same.
"""

PREFIX = b"40"
"""How the packet begins: an Engine.IO message, a Socket.IO CONNECT."""

ANSWERED = (PREFIX, b"42", b"43", b"45", b"46")
"""How packets begin that are passed over if they are too large: besides CONNECT events and acks."""

HEAD = 256
"""Bytes kept of a packet that is passed over: its namespace and its ack's id are in them."""

MAX_PASSED_TOTAL = 64 * 1024 * 1024
"""Bytes of one session that are passed over within `PASSED_SECONDS`; more is `flood`."""

PASSED_SECONDS = 60.0

MAX_PASSED_OVER = 16 * 1024 * 1024
"""Bytes of the largest packet that is passed over; a larger one ends the session."""

MAX_FAILURES = 4
"""Large packets of one session in a row of which none was accepted; one more ends the session."""


class Passed:
    """What one session sent that was passed over."""

    __slots__ = ("_since", "_total")

    def __init__(self, now: float) -> None:
        self._since = now
        self._total = 0

    def add(self, size: int, now: float) -> bool:
        """Whether it is still to be borne."""
        if now - self._since > PASSED_SECONDS:
            self._since, self._total = now, 0
        self._total += size
        return self._total <= MAX_PASSED_TOTAL


class Places:
    """So many large packets may be received or handled at a time."""

    def __init__(self, number: int) -> None:
        self.free = number

    def take(self) -> "Place | None":
        """A place, or None if all are taken."""
        if not self.free:
            return None
        self.free -= 1
        return Place(self)


class Place:
    """Taken from the first bytes of a large packet until it is handled."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places: Places | None = places

    def leave(self) -> None:
        """The packet takes no memory any more. Again is nothing."""
        places, self._places = self._places, None
        if places is not None:
            places.free += 1
