"""What each node does by itself, every few seconds: marks what is applied, and looks after what
other nodes left when they died.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from domain.errors import Unavailable
from store.mongo.database import Database
from store.mongo.faults import reaching
from store.mongo.kinds import Row
from store.mongo.log import PENDING
from store.mongo.schema import others_write, read_generation, reshape
from store.mongo.streams import Streams

log = structlog.get_logger(__name__)

MARK_EVERY = 0.1
"""Seconds between marks; not needed for anything but saving space and the sweeper's work."""

MARKED = 1000
"""Rows marked at once."""

KEPT = 100_000
"""Rows that may wait for their mark while the store is away; the sweeper finds the others."""

STALE = 1000
"""Rows of the log looked at in one sweep."""


class Sweeper:
    """Runs from `start` to `stop`."""

    def __init__(self, database: Database, streams: Streams, *, every: float) -> None:
        self._database = database
        self._streams = streams
        self._every = every
        self._applied: list[str] = []
        self._seen: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = asyncio.Event()

    def applied(self, row: Row) -> None:
        """A row of the log was applied by this node."""
        if len(self._applied) < KEPT:
            self._applied.append(row["_id"])

    async def start(self) -> None:
        """Begin, with everything that was left behind."""
        self._ending.clear()
        await self.catch_up(0)
        self._tasks = [
            asyncio.create_task(self._repeat(self.mark, MARK_EVERY)),
            asyncio.create_task(self._repeat(self.sweep, self._every)),
        ]

    async def stop(self) -> None:
        """End, with everything marked."""
        # Not by cancelling: the client may lose that, and each command is short anyway.
        self._ending.set()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        with contextlib.suppress(Unavailable):  # the sweeper of another node marks it
            await self.mark()

    async def _repeat(self, work: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), every)
                return
            try:
                await work()
            except Unavailable:
                continue  # the next round will do it
            except Exception:
                # Whatever it is, it must not be the last round: nobody else looks.
                log.exception("store_sweep_failed", work=work.__name__)

    async def mark(self) -> None:
        """Take from applied rows what only applying needs."""
        while self._applied:
            ids = self._applied[:MARKED]
            with reaching():
                await self._database.log.update_many(
                    {"_id": {"$in": ids}},
                    {"$unset": {"pending": "", "changes": "", "redactions": ""}},
                )
            del self._applied[:MARKED]

    async def sweep(self) -> None:
        """Look once."""
        with reaching():
            generation = await read_generation(self._database)
            if generation != self._database.generation:
                self._database.generation = generation
                self._streams.clear()
            await self.catch_up(self._every)
            if await others_write(self._database):
                for kind in self._database.kinds.values():
                    await reshape(self._database, kind)

    async def catch_up(self, age: float) -> None:
        """Apply what stayed behind. What is younger than a sweep is somebody's work at hand."""
        with reaching():
            rows = (
                await self._database.log.find({"pending": PENDING}, {"stream": 1})
                .limit(STALE)
                .to_list()
            )
            found = {row["_id"]: row["stream"] for row in rows}
            old = {id for id in found if not age or id in self._seen}
            for stream in {found[id] for id in old}:
                await self._streams.place(stream)
            self._applied += old
            self._seen = found.keys() - old
