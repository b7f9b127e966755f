"""Retention: finding what may go from the logs. The writer lets it go, step by step."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from store.sqlite.transaction import UsedKey

STREAMS = 500
"""Streams looked at in one read."""

STEP = 500
"""Events, or keys, dropped in one write."""

KEYS = 5000
"""Keys looked at in one read."""


class Cut(NamedTuple):
    """A stream and how far its log may go."""

    stream: str
    first: int
    """Its oldest event."""
    upto: int
    """The last event to drop."""


def cuts(
    start: int, keep: int, before: str
) -> Callable[[sqlite3.Connection], tuple[int | None, list[Cut]]]:
    """Of the streams with an id greater than `start`, the next few: where to look on (None at the
    end), and what may go.

    The log stays contiguous: by age goes only what has nothing younger before it.
    """

    def read(db: sqlite3.Connection) -> tuple[int | None, list[Cut]]:
        rows = db.execute(
            "SELECT s.id, s.name, "
            "(SELECT min(e.seq) FROM events AS e WHERE e.stream = s.id), "
            "(SELECT max(e.seq) FROM events AS e WHERE e.stream = s.id) "
            "FROM streams AS s WHERE s.id > ? ORDER BY s.id LIMIT ?",
            (start, STREAMS),
        ).fetchall()
        found = []
        for id, name, oldest, newest in rows:
            if oldest is None or oldest == newest:
                continue
            young = db.execute(
                "SELECT seq FROM events WHERE stream = ? AND at >= ? ORDER BY seq LIMIT 1",
                (id, before),
            ).fetchone()
            aged = newest if young is None else young[0] - 1
            upto = min(max(aged, newest - keep), newest - 1)
            if upto >= oldest:
                found.append(Cut(name, oldest, upto))
        return (rows[-1][0] if len(rows) == STREAMS else None), found

    return read


def batches(cuts: Iterable[Cut]) -> Iterator[list[tuple[str, int]]]:
    """The cuts in steps of about `STEP` events each: streams, and up to where."""
    step: list[tuple[str, int]] = []
    room = STEP
    for cut in cuts:
        done = cut.first - 1
        while done < cut.upto:
            end = min(cut.upto, done + room)
            step.append((cut.stream, end))
            room -= end - done
            done = end
            if room == 0:
                yield step
                step, room = [], STEP
    if step:
        yield step


def old_keys(
    start: UsedKey | None, before: str
) -> Callable[[sqlite3.Connection], tuple[UsedKey | None, list[UsedKey]]]:
    """Of the keys behind `start`, the next few: where to look on (None at the end), and those
    older than `before`.
    """

    def read(db: sqlite3.Connection) -> tuple[UsedKey | None, list[UsedKey]]:
        rows = db.execute(
            "SELECT stream, client, at FROM keys WHERE (stream, client) > (?, ?) "
            "ORDER BY stream, client LIMIT ?",
            (*(start or (0, b"")), KEYS),
        ).fetchall()
        last: UsedKey | None = rows[-1][:2] if len(rows) == KEYS else None
        return last, [row[:2] for row in rows if row[2] < before]

    return read
