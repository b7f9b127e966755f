"""Streams: the unit of order. `<namespace>/<id>`, e.g. `messages/<conversation>`."""

import re
from typing import NamedTuple

_STREAM = re.compile(r"(?P<namespace>[a-z]{1,32})/(?P<id>[A-Za-z0-9_.:-]{1,160})\Z")


class Head(NamedTuple):
    """Where a stream stands."""

    epoch: str
    """Changes when the history is no longer the same history."""
    seq: int
    """Of its last event; 0 for a stream with none."""
    trimmed: int
    """Events up to and including this seq are no longer in the log."""


class StreamName(NamedTuple):
    """A stream's name in its two parts."""

    namespace: str
    """Without slash, e.g. `messages`."""
    id: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.id}"


def parse_stream(text: str) -> StreamName | None:
    """The parts of a stream's name, or None if it is no such name."""
    found = _STREAM.match(text)
    return StreamName(found["namespace"], found["id"]) if found else None
