"""The first line of a message on the Redis bus: who published it, and for whom it is.

A message is a line of JSON, `{"parley":1,"node":"<id>"}`, with `"all":true` if it is for those too
who have unsubscribed a moment ago, and after it the publisher's bytes as they are. 1 is the format's
version: a node ignores what it does not understand, and finds durable events in the log.
"""

from typing import Any, NamedTuple

import orjson
import structlog

log = structlog.get_logger(__name__)

VERSION = 1


class Header(NamedTuple):
    """What the first line of a message says."""

    readable: bool
    node: str | None = None
    for_all: bool = False
    """Whether it is also for nodes that unsubscribed a moment ago."""


def write_header(node: str, *, all: bool = False) -> bytes:
    """The line with which a node begins its messages, its end included."""
    told: dict[str, Any] = {"parley": VERSION, "node": node}
    return orjson.dumps({**told, "all": True} if all else told) + b"\n"


def read_header(line: bytes) -> Header:
    """What a line says, without its end; not readable if it is of another version or none."""
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict) or told.get("parley") != VERSION:
        log.warning("bus_message_unreadable", header=line[:200])
        return Header(readable=False)
    return Header(True, told.get("node"), bool(told.get("all")))
