"""Moving what was committed from the write-ahead log into the database, beside the writer.

A checkpoint writes many pages and waits for the disk twice; done by the writer it would hold up
the appends that come meanwhile. SQLite lets another connection do it while the writer commits.
Only the log can not start again from its beginning as long as something in it is not moved, so
once the log is long and nearly moved, the writer is asked to move the little rest.
"""

import sqlite3
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

OPERATIONS = 500
"""Operations after which a checkpoint is due; each writes about four pages."""

PAUSE = 1.0
"""Seconds after which it is due however few there were."""

LONG = 4000
"""Pages in the log from which on it should start again."""

SAFETY = 50_000
"""Pages in the log at which the writer makes a checkpoint itself, whatever became of this thread."""


class Checkpointer:
    """A thread with a connection of its own."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """`connect` opens a connection that may write."""
        self._connect = connect
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._operations = 0
        self._reopen = False
        self.finish = False
        """Set when the writer should move the rest."""

    def start(self) -> None:
        """Begin."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sqlite-checkpoint", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop and close the connection. Blocks."""
        if self._thread is not None:
            self._stopping = True
            self._wake.set()
            self._thread.join()
            self._thread = None
            self._wake.clear()

    def reopen(self) -> None:
        """Another file is at the path."""
        self._reopen = True

    def committed(self, operations: int) -> None:
        """The writer has committed so many operations."""
        self._operations += operations
        if self._operations >= OPERATIONS:
            self._wake.set()

    def _run(self) -> None:
        db: sqlite3.Connection | None = None
        while not self._stopping:
            self._wake.wait(PAUSE)
            self._wake.clear()
            if not self._operations or self._stopping:
                continue
            self._operations = 0
            try:
                if self._reopen and db is not None:
                    self._reopen = False
                    db.close()
                    db = None
                if db is None:
                    db = self._connect()
                _, length, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self.finish = length >= LONG and length - moved < length // 2
            except sqlite3.Error as error:
                # The log keeps what could not be moved. Tried again without waiting for a commit:
                # on a full disk there may be none until the log can start from its beginning.
                self._operations += 1
                log.warning("store_checkpoint_failed", reason=str(error))
                if db is not None:
                    db.close()
                    db = None
        if db is not None:
            db.close()
