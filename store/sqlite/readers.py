"""A few threads that read. Each has its own connection and sees the last commit, whatever the
writer is doing.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog

from domain.errors import Unavailable
from store.sqlite.faults import is_outage, unavailable
from store.sqlite.schema import READER_PAGES, open_reader
from store.sqlite.turns import CHECK, READ, REST, STUCK

log = structlog.get_logger(__name__)

T = TypeVar("T")
Read = Callable[[sqlite3.Connection], Any]
_Job = tuple[Read, "asyncio.Future[Any]"]
_Done = tuple["asyncio.Future[Any]", Any, BaseException | None]

SHARE = 8
"""Reads that one thread takes at a time: their results travel back together."""


class Readers:
    """Runs reads in threads."""

    def __init__(
        self, path: Path, threads: int, *, limit: int, page_bytes: int = READER_PAGES
    ) -> None:
        """`page_bytes`: of pages that each thread keeps in memory."""
        self._path = path
        self._count = threads
        self._limit = limit
        self._page_bytes = page_bytes
        self._waiting = 0
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accepting = False
        self._opening = 0
        self._done = threading.Event()
        self._watching = False
        self._progress = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take reads."""
        self._loop = loop
        self._accepting = True
        for number in range(self._count):
            thread = threading.Thread(target=self._run, name=f"sqlite-reader-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Finish what was accepted, then close the files. Blocks."""
        self._accepting = False
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def reopen(self) -> None:
        """Open the file anew before the next read: it may have become another one."""
        self._opening += 1

    async def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """The result of a read.

        Raises:
            Unavailable: the file cannot be read, or too many reads are waiting.
        """
        if not self._accepting or self._loop is None:
            raise Unavailable("The store is not open.")
        if self._waiting >= self._limit:
            raise Unavailable("The store is overloaded.")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting += 1
        if not self._watching:
            self._watching = True
            self._progress = time.monotonic()
            self._loop.call_later(CHECK, self._watch)
        self._queue.put((read, future))
        return await future

    def _watch(self) -> None:
        """Make way for the readers if they do not get on, as `turns` says."""
        assert self._loop is not None
        if not self._waiting:
            self._watching = False
            return
        pause = CHECK
        if time.monotonic() - self._progress > STUCK:
            self._done.clear()
            if not self._done.wait(READ):
                pause = REST
        self._loop.call_later(pause, self._watch)

    def _settle(self, done: list[_Done]) -> None:
        self._progress = time.monotonic()
        self._waiting -= len(done)
        for future, result, error in done:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _connected(self) -> sqlite3.Connection | None:
        try:
            return open_reader(self._path, page_bytes=self._page_bytes)
        except sqlite3.Error as error:
            log.warning("store_unreadable", reason=str(error))
            return None

    def _run(self) -> None:
        opening = self._opening
        # At once, not with the first read: on a full disk there is no room to open it.
        db = self._connected()
        running = True
        while running:
            job = self._queue.get()
            done: list[_Done] = []
            while job is not None:
                read, future = job
                try:
                    if opening != self._opening:
                        opening = self._opening
                        _close(db)
                        db = None
                    if db is None:
                        db = open_reader(self._path, page_bytes=self._page_bytes)
                    done.append((future, read(db), None))
                except Exception as error:  # noqa: BLE001 - it is the caller's
                    if is_outage(error):
                        log.warning("store_unreadable", reason=str(error))
                        _close(db)
                        db = None
                        done.append((future, None, unavailable(error)))
                    else:
                        done.append((future, None, error))
                if len(done) >= SHARE:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            running = job is not None
            loop = self._loop
            if done and loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._settle, done)
            self._done.set()
        _close(db)


def _close(db: sqlite3.Connection | None) -> None:
    if db is not None:
        try:
            db.close()
        except sqlite3.Error as error:
            log.warning("store_close_failed", reason=str(error))
