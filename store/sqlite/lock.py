"""One process per database file: the writer believes that nobody else writes."""

import fcntl
import os
from pathlib import Path

from domain.errors import Unavailable
from store.engine import StoreError


class FileLock:
    """A lock file beside the database, held until `release` or the end of the process."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StoreError: another process has it.
            Unavailable: the lock file cannot be made.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"The store cannot be opened: {error}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise StoreError(
                f"{self._path.with_suffix('')} is in use by another server (process {holder or '?'})"
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Give the lock back. The file stays: removing it could let two take the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
