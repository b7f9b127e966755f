"""Blobs in MongoDB, laid out as GridFS lays out files (so that its tools can read them):
https://github.com/mongodb/specifications/blob/master/source/gridfs/gridfs-spec.md

`uploads.files` has a row for each blob that is whole, `uploads.chunks` its bytes. Beside them
`uploads.begun` has a row for each that is being written, and `uploads.gone` for each that was
removed: its bytes stay until nobody can still be reading them.
"""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from bson import Binary
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from domain.clock import Clock
from domain.errors import Unavailable
from store.mongo.database import Database, Rows
from store.mongo.faults import reaching
from store.uploads.blobs import BlobReader, Blobs, BlobWriter

CHUNK = 255 * 1024
"""Bytes in a row, GridFS's usual number."""

READABLE = 3600.0
"""Seconds for which the bytes of a removed blob stay at least."""

_ID = re.compile(r"[0-9a-f-]{8,64}\Z")


class MongoBlobs(Blobs):
    """Keeps blobs in a database, for any number of nodes."""

    def __init__(self, url: str, *, clock: Clock, timeout: float = 5.0, pool: int = 20) -> None:
        """Nothing is opened yet.

        Args:
            url: as for `MongoEngine`; the same database may be used.
            clock: tells how old something is.
            timeout: seconds that an answer of the server is waited for.
            pool: connections to each server.
        """
        self._database = Database(url, (), clock=clock, timeout=timeout, pool=pool)
        self.clock = clock

    async def start(self) -> None:
        await self._database.connect()
        try:
            with reaching():
                await self._prepare()
        except BaseException:
            await self._database.close()
            raise

    async def _prepare(self) -> None:
        for rows, model in (
            (self.chunks, IndexModel([("files_id", 1), ("n", 1)], name="blob", unique=True)),
            (self.begun, IndexModel([("at", 1)], name="at")),
            (self.gone, IndexModel([("at", 1)], name="at")),
        ):
            if model.document["name"] not in await rows.index_information():
                await rows.create_indexes([model])

    async def stop(self) -> None:
        await self._database.close()

    async def ping(self) -> None:
        with self.working():
            begun = self._database.database["uploads.begun"]
            await begun.update_one({"_id": "ping"}, {"$set": {"at": 0.0}})

    @property
    def files(self) -> Rows:
        """Blobs that are whole."""
        return self._database.named("uploads.files")

    @property
    def chunks(self) -> Rows:
        """Bytes."""
        return self._database.named("uploads.chunks")

    @property
    def begun(self) -> Rows:
        """Blobs that are being written."""
        return self._database.named("uploads.begun")

    @property
    def gone(self) -> Rows:
        """Blobs that were removed."""
        return self._database.named("uploads.gone")

    async def create(self, id: str) -> BlobWriter:
        _check(id)
        with self.working():
            try:
                await self.begun.insert_one({"_id": id, "at": self.clock.now(), "state": "open"})
            except DuplicateKeyError:
                raise Unavailable("The file is being written already.") from None
        return _Writer(self, id)

    async def open(self, id: str) -> BlobReader | None:
        _check(id)
        with self.working():
            row = await self.files.find_one({"_id": id})
        return _Reader(self, id, int(row["length"]), int(row["chunkSize"])) if row else None

    async def delete(self, id: str) -> None:
        _check(id)
        with self.working():
            if await self.files.find_one({"_id": id}) is not None:
                at = {"$set": {"at": self.clock.now()}}
                await self.gone.update_one({"_id": id}, at, upsert=True)
                await self.files.delete_one({"_id": id})
            await self.give_up({"_id": id})

    async def give_up(self, which: dict[str, Any]) -> bool:
        """Remove a blob that is being written, unless it is just now becoming whole."""
        row = await self.begun.find_one_and_update(
            {**which, "state": {"$ne": "whole"}}, {"$set": {"state": "dropped"}}
        )
        if row is None:
            return False
        await self.chunks.delete_many({"files_id": row["_id"]})
        await self.begun.delete_one({"_id": row["_id"]})
        return True

    def working(self) -> AbstractContextManager[None]:
        """As `Database.working`."""
        return self._database.working()

    async def sweep(self, before: float) -> int:
        removed = 0
        with self.working():
            async for row in self.begun.find({"at": {"$lt": before}}):
                if row["state"] != "whole":
                    removed += await self.give_up({"_id": row["_id"], "at": row["at"]})
                elif await self.files.find_one({"_id": row["_id"]}) is not None:
                    await self.begun.delete_one({"_id": row["_id"]})
                else:  # died in the middle of its commit
                    await self.chunks.delete_many({"files_id": row["_id"]})
                    await self.begun.delete_one({"_id": row["_id"]})
                    removed += 1
            unread = min(before, self.clock.now() - READABLE)
            async for row in self.gone.find({"at": {"$lt": unread}}):
                await self.files.delete_one({"_id": row["_id"]})
                await self.chunks.delete_many({"files_id": row["_id"]})
                await self.gone.delete_one({"_id": row["_id"]})
        return removed


def _check(id: str) -> None:
    # As on disk: ids are made by this server, anything else is a mistake.
    if not _ID.match(id):
        raise ValueError("no id of a blob")


class _Writer(BlobWriter):
    def __init__(self, blobs: MongoBlobs, id: str) -> None:
        self._blobs = blobs
        self._id = id
        self._rest = bytearray()
        self._chunks = 0
        self._length = 0
        self._done = False

    async def write(self, chunk: bytes) -> None:
        self._rest += chunk
        self._length += len(chunk)
        with self._blobs.working():
            while len(self._rest) >= CHUNK:
                await self._store(bytes(self._rest[:CHUNK]))
                del self._rest[:CHUNK]

    async def _store(self, data: bytes) -> None:
        row = {
            "_id": f"{self._id}/{self._chunks}",
            "files_id": self._id,
            "n": self._chunks,
            "data": Binary(data),
        }
        await self._blobs.chunks.insert_one(row)
        going_on = {"$set": {"at": self._blobs.clock.now()}}
        await self._blobs.begun.update_one({"_id": self._id}, going_on)
        self._chunks += 1

    async def commit(self) -> None:
        with self._blobs.working():
            if self._rest:
                await self._store(bytes(self._rest))
                self._rest.clear()
            now = self._blobs.clock.now()
            whole = await self._blobs.begun.update_one(
                {"_id": self._id, "state": "open"}, {"$set": {"state": "whole", "at": now}}
            )
            if not whole.matched_count:
                raise Unavailable("The file was removed while it was written.")
            await self._blobs.files.insert_one(
                {
                    "_id": self._id,
                    "filename": self._id,
                    "length": self._length,
                    "chunkSize": CHUNK,
                    "uploadDate": datetime.fromtimestamp(now, UTC),
                }
            )
            self._done = True
            await self._blobs.begun.delete_one({"_id": self._id})

    async def abort(self) -> None:
        if self._done:
            return
        self._done = True
        with self._blobs.working():
            await self._blobs.give_up({"_id": self._id})


class _Reader(BlobReader):
    def __init__(self, blobs: MongoBlobs, id: str, size: int, chunk: int) -> None:
        self._blobs = blobs
        self._id = id
        self._size = size
        self._chunk = chunk

    @property
    def size(self) -> int:
        return self._size

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        end = start + length
        while start < end:
            place, offset = divmod(start, self._chunk)
            with self._blobs.working():
                row = await self._blobs.chunks.find_one({"_id": f"{self._id}/{place}"})
            piece = b"" if row is None else bytes(row["data"])[offset : offset + end - start]
            if not piece:
                raise Unavailable("The file is shorter than it was.")
            start += len(piece)
            yield piece

    async def close(self) -> None:
        """Nothing is held."""
