"""The one thread that writes: takes what has queued up and commits it together.

Waiting for the disk is what a commit costs, so all who wait share one. A batch is first carried
out as a whole; if one operation in it fails in a way that only the file can tell (a unique
index), the batch is halved until that operation is alone.
"""

import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from domain.errors import Unavailable
from store.engine import Duplicate
from store.sqlite.cache import Documents, Heads
from store.sqlite.checkpoint import Checkpointer
from store.sqlite.faults import is_outage, unavailable
from store.sqlite.jobs import AppendJob, Barrier, IndexJob, Job, PingJob
from store.sqlite.schema import migrate, open_writer
from store.sqlite.tables import Table
from store.sqlite.transaction import Counters, Transaction
from store.sqlite.turns import Turns

log = structlog.get_logger(__name__)

MAX_BATCH = 256
"""Operations in one commit."""

MAX_BATCH_BYTES = 4 * 1024 * 1024

IDLE = 0.25
"""Seconds without work after which the search index is brought up to date."""

INDEX_STEP = 500
"""Rows that the search index takes in at once; appends wait meanwhile."""

INDEX_BEHIND = 4000
"""Rows by which the search index may be behind while there is no pause."""

CAREFUL = 200
"""Batches after a retry for which keys are looked up before they are written."""

_RECOVERS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
    }
)
"""Causes that leave the connection in order."""


class Committer:
    """Owns the thread and its writing connection; `Writer` hands it operations."""

    def __init__(
        self,
        path: Path,
        tables: Mapping[str, Table],
        heads: Heads,
        documents: Documents,
        *,
        synchronous: str,
        busy_timeout: float,
        page_bytes: int,
        on_replaced: Callable[[], None],
    ) -> None:
        """`on_replaced` is called in the thread when another file is at the path."""
        self._path = path
        self._tables = tables
        self._heads = heads
        self._documents = documents
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._page_bytes = page_bytes
        self._on_replaced = on_replaced
        self._checkpointer = Checkpointer(lambda: self._open(create=False))
        self._queue: queue.SimpleQueue[Sequence[Job] | None] = queue.SimpleQueue()
        self._taken: deque[Job] = deque()
        """What was taken from the queue and is not begun."""
        self._thread: threading.Thread | None = None
        self._done: Callable[[Sequence[Job]], None] = lambda _jobs: None
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._counters: Counters | None = None
        self._place = ""
        self._careful = 0
        """Batches for which idempotency keys are looked up first. A retry is rare: the table refuses
        its key, or something judges it and fails. But where one is, more follow."""
        self.turns = Turns()
        """Tells the event loop whether the thread needs the interpreter."""
        self.in_doubt = False
        """Whether a write was refused, and no ping that needs room has succeeded since."""
        self.newest: dict[str, int] = {}
        """By collection with text: its newest committed row."""
        self.indexed: dict[str, int] = {}
        """By collection with text: the row up to which its search index is, as committed."""

    # -- from outside -------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file and bring its schema up to date. Blocks.

        Raises:
            StoreError: the data is of a newer version.
            Unavailable: the file cannot be opened.
        """
        try:
            self._connect(create=True)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"The store cannot be opened: {error}") from error

    def start(self, done: Callable[[Sequence[Job]], None]) -> None:
        """Begin to take operations. `done` is called in the thread with those that are carried
        out, each with its result or error.
        """
        self._done = done
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()
        self._checkpointer.start()

    def put(self, jobs: Sequence[Job]) -> None:
        """Queue operations."""
        self._queue.put(jobs)

    def close(self) -> None:
        """Finish what was queued, then close the file. Blocks."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        self._checkpointer.close()
        self._disconnect()
        self._heads.clear()
        self._documents.clear()

    # -- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while self._take():
            if not self._taken:
                self._index(1)
                continue
            self._work(self._batch())
            if self._checkpointer.finish:
                self._finish_checkpoint()
            if self._index_due(INDEX_BEHIND):
                self._index(INDEX_BEHIND)

    def _take(self) -> bool:
        """Take all that was handed over; wait for it if there is nothing left to do, or until the
        search index wants to be brought up to date. False when there is nothing to come.
        """
        try:
            while True:
                if self._taken:
                    jobs = self._queue.get_nowait()
                else:
                    jobs = self._queue.get(timeout=IDLE if self._index_due(1) else None)
                if jobs is None:
                    if not self._taken:
                        return False
                    self._queue.put(None)  # found again when what was taken before it is done
                    return True
                self._taken += jobs
        except queue.Empty:
            return True

    def _batch(self) -> list[Job]:
        """The operations of the next commit, in the order of their coming."""
        jobs: list[Job] = []
        size = 0
        while self._taken and len(jobs) < MAX_BATCH and size < MAX_BATCH_BYTES:
            job = self._taken.popleft()
            jobs.append(job)
            size += job.size
        return jobs

    def _work(self, jobs: Sequence[Job]) -> None:
        self._attempt(jobs)
        self._done(jobs)
        self.turns.done()

    def _attempt(self, jobs: Sequence[Job]) -> None:
        """Carry operations out in one commit, or in parts if the file refuses the whole."""
        try:
            self._commit(jobs)
            if self.in_doubt and any(isinstance(job, PingJob) and job.room for job in jobs):
                self.in_doubt = False
            return
        except Exception as error:  # noqa: BLE001 - every one is handed to the callers it concerns
            self._roll_back()
            failed, place = error, self._place
        if is_outage(failed):
            log.warning("store_unavailable", reason=str(failed), operations=len(jobs))
            self._distrust(failed)
            self.in_doubt = True
            for job in jobs:
                job.error = unavailable(failed)
        elif not self._careful:
            self._careful = CAREFUL
            self._attempt(jobs)
        elif len(jobs) == 1:
            jobs[0].error = Duplicate(place) if _is_duplicate(failed) else failed
        else:
            middle = len(jobs) // 2
            self._attempt(jobs[:middle])
            self._attempt(jobs[middle:])

    def _commit(self, jobs: Sequence[Job]) -> None:
        self._place = ""
        self._check_file()
        if self._db is None:
            self._connect(create=False)
        db = self._db
        assert db is not None
        self.turns.wait_for_lock()
        db.execute("BEGIN IMMEDIATE")
        self.turns.back()
        counters = self._counters
        if counters is None:
            counters = self._counters = Counters(db, self._tables)
        tx = Transaction(db, self._tables, counters, self._heads, self._documents)
        try:
            start = 0
            for place, job in enumerate(jobs):
                if isinstance(job, Barrier):
                    self._decide(tx, jobs[start:place])
                    self._decide_one(tx, job)
                    start = place + 1
            self._decide(tx, jobs[start:])
        finally:
            self._place = tx.place
        tx.about_to_commit()
        self.turns.wait_for_disk()
        db.execute("COMMIT")
        self.turns.back()
        tx.after_commit()
        self._note_index(counters)
        self._checkpointer.committed(len(jobs))

    def _decide(self, tx: Transaction, jobs: Sequence[Job]) -> None:
        """Decide operations in order, then write what they decided."""
        if not jobs:
            return
        tx.load_streams(job.stream for job in jobs if job.stream is not None)
        if self._careful:
            self._careful -= 1
            used = [job.used_key(tx) for job in jobs if isinstance(job, AppendJob)]
            tx.load_keys(key for key in used if key is not None)
        tx.load_rows(key for job in jobs for key in job.rows())
        for job in jobs:
            self._decide_one(tx, job)
        tx.flush()

    @staticmethod
    def _decide_one(tx: Transaction, job: Job) -> None:
        job.error = None
        tx.begin()
        try:
            job.result = job.decide(tx)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's
            tx.undo()
            job.error = error
            key = job.used_key(tx) if isinstance(job, AppendJob) else None
            if key is not None and tx.used(key) is None:
                tx.load_keys((key,))
                if tx.used(key) is not None:  # a retry: nothing is judged
                    Committer._decide_one(tx, job)

    def _roll_back(self) -> None:
        self.turns.back()
        self._documents.unchanged()
        self._heads.unchanged()
        if self._db is not None and self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                log.warning("store_rollback_failed", reason=str(error))
                self._disconnect()

    # -- the search index ---------------------------------------------------------------------

    def _note_index(self, counters: Counters) -> None:
        for name, upto in counters.indexed.items():
            self.newest[name] = counters.rows[name]
            self.indexed[name] = upto

    def _index_due(self, rows: int) -> list[Table]:
        """The collections whose index is behind by so many rows."""
        return [
            self._tables[name]
            for name, newest in self.newest.items()
            if newest - self.indexed[name] >= rows and name in self._tables
        ]

    def _index(self, rows: int) -> None:
        for table in self._index_due(rows):
            job = IndexJob(table, INDEX_STEP)
            self._attempt([job])
            if job.error is not None:
                log.warning("search_index_failed", reason=str(job.error))
                self.newest.clear()  # the next commit says anew how far it is behind

    # -- the connection -----------------------------------------------------------------------

    def _connect(self, *, create: bool) -> None:
        """Open the file and read from it what is counted on."""
        if create:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        db = self._open(create=create)
        try:
            migrate(db, self._tables.values())
            counters = self._counters = Counters(db, self._tables)
            found = _identity(self._path)
        except BaseException:
            db.close()
            raise
        if self._file not in {None, found}:
            self._checkpointer.reopen()
            self._on_replaced()
        self._db, self._file = db, found
        self._note_index(counters)

    def _open(self, *, create: bool) -> sqlite3.Connection:
        return open_writer(
            self._path,
            synchronous=self._synchronous,
            busy_timeout=self._busy_timeout,
            page_bytes=self._page_bytes,
            create=create,
        )

    def _finish_checkpoint(self) -> None:
        """Move what little is left in the log, so that it starts again from its beginning."""
        self._checkpointer.finish = False
        if self._db is not None:
            try:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as error:
                log.warning("store_checkpoint_failed", reason=str(error))

    def _distrust(self, failed: BaseException) -> None:
        """Believe nothing of what was known of the file: after a failed commit only the file can
        tell. The connection is kept where it can recover, because opening the file anew takes
        room on the disk.
        """
        self._counters = None
        self._heads.clear()
        self._documents.clear()
        code = getattr(failed, "sqlite_errorcode", None)
        if code is None or code & 0xFF not in _RECOVERS:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._db is not None:
            try:
                self._db.close()
            except sqlite3.Error as error:
                log.warning("store_close_failed", reason=str(error))
            self._db = None

    def _check_file(self) -> None:
        """Notice that the file was removed or replaced: a write to it would be lost."""
        if self._db is not None and _identity(self._path) != self._file:
            raise FileNotFoundError(f"{self._path} is not the file that was opened")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _is_duplicate(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code in {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}
