"""CONNECT packets beyond `max_frame`: they carry `resume`, which grows with what a user follows.

Any peer may send one before anybody knows who it is. So a node takes only so many at a time, a
session only a few without success, and what is refused is read and passed over, never kept: the
client gets `connect_error` and stays connected. A close would make it come back with the same.
"""

PREFIX = b"40"
"""How the packet begins: an Engine.IO message, a Socket.IO CONNECT."""

HEAD = 256
"""Bytes kept of a packet that is passed over: its namespace is in them."""

MAX_PASSED_OVER = 16 * 1024 * 1024
"""Bytes of the largest packet that is passed over; a larger one ends the session."""

MAX_FAILURES = 4
"""Large packets of one session in a row of which none was accepted; one more ends the session."""


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
