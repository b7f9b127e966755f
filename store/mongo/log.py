"""The log's rows. An append is one row, so that it is there as a whole or not at all: its events,
its idempotency key, and, until it is applied, the documents and redactions that it decided.

The row's `_id` is the stream and the seq of its first event. Whoever inserts it has that place.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from domain.events import Actor, StoredEvent
from store.engine import Append
from store.mongo.kinds import Row

PENDING = "yes"
"""Value of `pending`: perhaps not applied yet. A row that surely is has no such field."""


def slot(stream: str, seq: int) -> str:
    """The `_id` of the row whose first event has this seq."""
    return f"{stream}#{seq}"


def key_of(append: Append) -> str | None:
    """The append's idempotency key as one text; None if it has none."""
    if append.key is None:
        return None
    actor = append.actor
    return orjson.dumps([append.stream, actor.kind, actor.id, append.key.client_id]).decode()


def encoded(append: Append, seq: int) -> list[dict[str, str]]:
    """The events, the first of which has this seq.

    Raises:
        TypeError: an event's data is no JSON.
    """
    events = []
    for place, event in enumerate(append.events, seq):
        data = event.data if event.stamp is None else {**event.data, event.stamp: place}
        events.append({"type": event.type, "data": orjson.dumps(data).decode()})
    return events


def ordered(append: Append, seq: int) -> list[dict[str, Any]]:
    """The redactions, for `store.mongo.redaction`, of an append whose first event has this seq.

    Raises:
        TypeError: a value is no JSON.
    """
    return [
        {
            "seqs": [each for each in redaction.seqs if 0 < each < seq],
            "set": orjson.dumps({**redaction.set}).decode(),
        }
        for redaction in append.redactions
    ]


def new_row(
    append: Append, seq: int, base: str, token: str, changes: Sequence[dict[str, Any]]
) -> Row:
    """The row of an append at its place. `base` is kept for the stream, if it is new."""
    row: Row = {
        "_id": slot(append.stream, seq),
        "stream": append.stream,
        "org": append.org,
        "base": base,
        "seq": seq,
        "last": seq + len(append.events) - 1,
        "at": append.at,
        "actor": append.actor.id,
        "kind": append.actor.kind,
        "events": encoded(append, seq),
        "token": token,
        "changes": list(changes),
        "pending": PENDING,
    }
    if append.redactions:
        row["redactions"] = ordered(append, seq)
    key = key_of(append)
    if key is not None and append.key is not None:
        row |= {"key": key, "digest": append.key.digest}
    return row


def is_append(row: Row | None) -> bool:
    """Whether a place in the log is taken: not empty, not barred, not trimmed."""
    return row is not None and "stream" in row


def stored(row: Row, epoch: str, after: int = 0) -> list[StoredEvent]:
    """A row's events with seq > `after`."""
    actor = Actor(row["actor"], row["kind"])
    return [
        StoredEvent(row["stream"], epoch, seq, one["type"], row["at"], actor, one["data"].encode())
        for seq, one in enumerate(row["events"], int(row["seq"]))
        if seq > after
    ]
