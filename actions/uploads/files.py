"""The bytes of uploads, in their blobs: a file, and of a picture what was made of it."""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable
from functools import partial
from typing import Any

from actions.uploads.pictures import Picture, Pictures
from actions.uploads.quota import Reservation
from domain.errors import ParleyError, Unavailable
from domain.uploads.uploads import OCTET_STREAM
from store.uploads.blobs import Blobs, BlobWriter
from store.uploads.uploads import raw_blob, thumbnail_blob

PIECE = 256 * 1024
"""Bytes written at a time."""


class UploadFiles:
    """Writes, turns into what is kept, and removes."""

    def __init__(self, blobs: Blobs, pictures: Pictures | None) -> None:
        self._blobs = blobs
        self._pictures = pictures

    async def erase(self, ids: Iterable[str]) -> None:
        """Remove blobs, in this order."""
        for id in ids:
            await self._blobs.delete(id)

    async def picture(
        self, id: str, known: dict[str, Any], reservation: Reservation, whose: str
    ) -> dict[str, Any]:
        """Make a picture what is kept of it, with its thumbnails. What came is in its raw blob, and
        no longer afterwards.

        Args:
            known: its `content_type`, `size` and `sha256`.
            whose: the user.

        Returns:
            What is to be known of it instead.

        Raises:
            TooLarge: the quota does not have all of it.
            Unavailable: too many pictures are waiting.
        """
        assert self._pictures is not None
        read = partial(self._read, raw_blob(id))
        found = await self._pictures.look(known["content_type"], known["size"], read, whose)
        length = known["size"] if found.data is None else len(found.data)
        total = length + sum(len(each.data) for each in found.thumbnails.values())
        await reservation.cover(total)
        if found.data is None:
            await self._copy(raw_blob(id), id)
        else:
            await self._write(id, found.data)
        for size, thumbnail in found.thumbnails.items():
            await self._write(thumbnail_blob(id, size), thumbnail.data)
        await self._blobs.delete(raw_blob(id))
        return {**known, **_known(known, found, length), "size": total}

    async def _read(self, id: str) -> bytes:
        reader = await self._blobs.open(id)
        if reader is None:
            raise Unavailable("The upload was cleared away.")
        try:
            return b"".join([piece async for piece in reader.read(0, reader.size)])
        finally:
            await reader.close()

    async def _write(self, id: str, data: bytes) -> None:
        writer = await self._blobs.create(id)
        try:
            for at in range(0, len(data), PIECE):
                await writer.write(data[at : at + PIECE])
            await writer.commit()
        except BaseException:
            await asyncio.shield(aborted(writer))
            raise

    async def _copy(self, source: str, id: str) -> None:
        reader = await self._blobs.open(source)
        if reader is None:
            raise Unavailable("The upload was cleared away.")
        try:
            writer = await self._blobs.create(id)
            try:
                async for piece in reader.read(0, reader.size):
                    await writer.write(piece)
                await writer.commit()
            except BaseException:
                await asyncio.shield(aborted(writer))
                raise
        finally:
            await reader.close()


def _known(came: dict[str, Any], found: Picture, length: int) -> dict[str, Any]:
    digest = came["sha256"] if found.data is None else hashlib.sha256(found.data).hexdigest()
    return {
        "content_type": came["content_type"] if found.shown else OCTET_STREAM,
        "length": length,
        "sha256": digest,
        "received": came["sha256"],
        "image": found.image,
        "thumbnails": {
            size: {
                "content_type": each.content_type,
                "size": len(each.data),
                "sha256": hashlib.sha256(each.data).hexdigest(),
            }
            for size, each in found.thumbnails.items()
        },
    }


async def aborted(writer: BlobWriter) -> None:
    """Give up what is being written; what fails at that, a sweep does."""
    with contextlib.suppress(ParleyError):
        await writer.abort()
