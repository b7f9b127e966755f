"""Copies of the database: taken while a server runs, put back while none does."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from domain.errors import Unavailable
from store.engine import StoreError
from store.sqlite.faults import is_outage
from store.sqlite.lock import FileLock
from store.sqlite.schema import open_reader, version
from store.sqlite.transaction import new_epoch

PAGES = 256
"""Pages copied in one go."""


def backup(source: Path, target: Path) -> None:
    """Copy a database, also while a server writes to it, as of one moment. Blocks.

    The copy appears under its name only when it is whole and on disk.

    Raises:
        Unavailable: the source cannot be read, or the target not be written.
    """
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        partial.touch(0o600)  # it has everybody's messages
        reader = open_reader(source)
        try:
            # One read transaction: the copy need not start again when something is committed.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            copy = sqlite3.connect(partial, isolation_level=None)
            try:
                reader.backup(copy, pages=PAGES)
                copy.execute("PRAGMA journal_mode = DELETE").fetchall()
            finally:
                copy.close()
        finally:
            reader.close()
        sync(partial)
        partial.replace(target)
        sync(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"The backup failed: {error}") from error
    finally:
        for name in (
            partial,
            Path(f"{partial}-journal"),
            Path(f"{partial}-wal"),
            Path(f"{partial}-shm"),
        ):
            name.unlink(missing_ok=True)


def restore(source: Path, target: Path) -> None:
    """Put a copy in the place of a database. Every stream gets a new epoch, because clients may
    have seen what the copy does not have. Blocks.

    Raises:
        StoreError: a server uses the target, or the copy is damaged or of a newer version.
        Unavailable: a file cannot be read or written.
    """
    if not source.is_file():
        raise StoreError(f"there is no backup {source}")
    lock = FileLock(target)
    lock.acquire()
    try:
        with prepared(source, target) as put:
            put()
    finally:
        lock.release()


@contextlib.contextmanager
def prepared(source: Path, target: Path) -> Iterator[Callable[[], None]]:
    """A copy that was checked and given new epochs. Gives what puts it in the place of the
    database; the caller holds the lock. Blocks.

    Raises:
        StoreError: the copy is damaged or of a newer version.
        Unavailable: a file cannot be read or written.
    """
    partial = target.with_name(f"{target.name}.restore")

    def put() -> None:
        # A journal of the old file must never be applied to the new one.
        for suffix in ("-wal", "-shm", "-journal"):
            Path(f"{target}{suffix}").unlink(missing_ok=True)
        partial.replace(target)
        sync(target.parent)

    try:
        partial.unlink(missing_ok=True)
        partial.touch(0o600)
        _copy(source, partial)
        sync(partial)
        yield put
    except (sqlite3.Error, OSError) as error:
        if is_outage(error):
            raise Unavailable(f"The backup cannot be restored: {error}") from error
        raise StoreError(f"{source} cannot be restored: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    original = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
    try:
        try:
            state = original.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{source} is not a backup: {error}") from error
        if state != "ok":
            raise StoreError(f"{source} is damaged: {state}")
        if version(original) == 0:
            raise StoreError(f"{source} is empty")
        copy = sqlite3.connect(target, isolation_level=None)
        try:
            original.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
            copy.execute("BEGIN IMMEDIATE")
            streams = copy.execute("SELECT id FROM streams").fetchall()
            copy.executemany(
                "UPDATE streams SET epoch = ? WHERE id = ?",
                [(new_epoch(), id) for (id,) in streams],
            )
            copy.execute("COMMIT")
        finally:
            copy.close()
    finally:
        original.close()


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on disk. Blocks."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
