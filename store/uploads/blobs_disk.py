"""Blobs in a directory: `<xx>/<yy>/<id>`, by the last characters of the id (its first ones are a
time, the same for all blobs of a day). What is being written is in `tmp/` until it is whole.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from domain.errors import Unavailable
from store.uploads.blobs import BlobReader, Blobs, BlobWriter

PIECE = 256 * 1024
"""Bytes read at a time."""

THREADS = 4

PING = 64 * 1024
"""Bytes written to see whether there is room."""

Result = TypeVar("Result")

_ID = re.compile(r"[0-9a-f-]{8,64}\Z")


class DiskBlobs(Blobs):
    """Keeps blobs in files. Several processes may share the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._temporary = directory / "tmp"
        self._threads: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blobs")
        await self.run(self._prepare)

    def _prepare(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._temporary.mkdir(exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"Files cannot be kept in {self._directory}: {error.strerror}."
            ) from None

    async def ping(self) -> None:
        await self.run(self._try)

    def _try(self) -> None:
        # Another process may do the same.
        file = self._temporary / f"ping-{os.getpid()}"
        try:
            file.write_bytes(bytes(PING))
        finally:
            file.unlink(missing_ok=True)

    async def stop(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)

    async def run(self, call: Callable[[], Result]) -> Result:
        """Run blocking file access outside the event loop."""
        if self._threads is None:
            raise Unavailable("The store of files is closed.")
        with _disk():
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def create(self, id: str) -> BlobWriter:
        temporary, final = self._temporary / _checked(id), self._path(id)
        # Unbuffered: what arrives here is large already, and a full disk shows at once.
        file = await self.run(lambda: temporary.open("xb", buffering=0))
        return _Writer(self, file, temporary, final)

    async def open(self, id: str) -> BlobReader | None:
        path = self._path(id)

        def opened() -> tuple[BinaryIO, int] | None:
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                self._check_there()
                return None
            return file, os.fstat(file.fileno()).st_size

        found = await self.run(opened)
        return _Reader(self, *found) if found is not None else None

    async def delete(self, id: str) -> None:
        temporary, final = self._temporary / _checked(id), self._path(id)

        def unlink() -> None:
            self._check_there()
            temporary.unlink(missing_ok=True)
            final.unlink(missing_ok=True)

        await self.run(unlink)

    async def sweep(self, before: float) -> int:
        def sweep() -> int:
            removed = 0
            for each in list(self._temporary.iterdir()):
                with contextlib.suppress(FileNotFoundError):
                    if each.stat().st_mtime < before:
                        each.unlink()
                        removed += 1
            return removed

        return await self.run(sweep)

    def _check_there(self) -> None:
        # Of a disk that is not mounted it must not be said that it has no such file.
        self._temporary.stat()

    def _path(self, id: str) -> Path:
        return self._directory / place(id)


def place(id: str) -> Path:
    """Where a blob's file is, below the directory.

    Raises:
        ValueError: no blob is called so.
    """
    _checked(id)
    return Path(id[-2:], id[-4:-2], id)


def _checked(id: str) -> str:
    # Ids are made by this server. One that is none of them must not become part of a path.
    if not _ID.match(id):
        raise ValueError("no id of a blob")
    return id


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"Files cannot be stored or read now: {error.strerror}.") from error


class _Writer(BlobWriter):
    def __init__(self, blobs: DiskBlobs, file: BinaryIO, temporary: Path, final: Path) -> None:
        self._blobs = blobs
        self._file = file
        self._temporary = temporary
        self._final = final

    async def write(self, chunk: bytes) -> None:
        await self._blobs.run(lambda: self._write(chunk))

    def _write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]

    async def commit(self) -> None:
        await self._blobs.run(self._commit)

    def _commit(self) -> None:
        self._temporary.stat()  # nothing is made where the disk is not mounted
        os.fsync(self._file.fileno())
        directory = self._final.parent
        directory.mkdir(parents=True, exist_ok=True)
        self._file.close()
        self._temporary.replace(self._final)
        # A name is as durable as its directory, and that as the one it is in.
        for each in (directory, directory.parent, directory.parent.parent):
            _sync(each)

    async def abort(self) -> None:
        if self._file.closed:
            return
        await self._blobs.run(self._abort)

    def _abort(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class _Reader(BlobReader):
    def __init__(self, blobs: DiskBlobs, file: BinaryIO, size: int) -> None:
        self._blobs = blobs
        self._file = file
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        end = start + length
        while start < end:
            piece = await self._blobs.run(partial(self._pread, start, min(PIECE, end - start)))
            if not piece:
                raise Unavailable("The file is shorter than it was.")
            start += len(piece)
            yield piece

    def _pread(self, start: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, start)

    async def close(self) -> None:
        await self._blobs.run(self._file.close)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
