"""Where files' bytes are kept: the interface that a directory, or GridFS, fills.

A blob has an id and bytes that never change. Methods raise `domain.errors.Unavailable` when the
place cannot be reached or is full.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator


class BlobWriter(ABC):
    """A blob that is being written. Nobody can read it before `commit`."""

    @abstractmethod
    async def write(self, chunk: bytes) -> None:
        """Add bytes."""

    @abstractmethod
    async def commit(self) -> None:
        """Make the blob available. Returns when a power cut can no longer undo it."""

    @abstractmethod
    async def abort(self) -> None:
        """Leave nothing behind. Nothing happens after `commit` or another `abort`."""


class BlobReader(ABC):
    """A blob that is being read; it can be read to its end even if it is deleted meanwhile."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes in all."""

    @abstractmethod
    def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        """Exactly `length` bytes from the offset `start`, in pieces fit for a network write."""

    @abstractmethod
    async def close(self) -> None:
        """Done with it."""


class Blobs(ABC):
    """Keeps blobs."""

    @abstractmethod
    async def start(self) -> None:
        """Open the place, make it if it is missing."""

    @abstractmethod
    async def stop(self) -> None:
        """Finish what was accepted, then close."""

    @abstractmethod
    async def ping(self) -> None:
        """Return if a blob could be written now.

        Raises:
            Unavailable: none can.
        """

    @abstractmethod
    async def create(self, id: str) -> BlobWriter:
        """Begin a blob. The id is one of `domain.ids.new_id`."""

    @abstractmethod
    async def open(self, id: str) -> BlobReader | None:
        """Read a blob; None if there is none."""

    @abstractmethod
    async def delete(self, id: str) -> None:
        """Remove a blob, also one whose writing was never finished. None there: nothing happens."""

    @abstractmethod
    async def sweep(self, before: float) -> int:
        """Remove what is left of writes that were begun, and last went on, before this Unix time.

        Returns how many there were.
        """
