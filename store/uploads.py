"""Uploaded files: what is known of each, where it is attached, and what a user has used.

The bytes are in a `store.blobs.BlobStore` under the upload's id. What a user has used is counted in
one document, so that a quota holds however many uploads run at once. Two rules keep the count
honest without transactions: the documents' sizes never add up to less than the count by which
others are admitted (a size is written before it is counted, and counted off before it is removed),
and whoever finds a difference sets the count to the sum.
"""

from enum import StrEnum
from typing import Any

from store.engine import Collection, Document, Engine, Guard, Index, Insert, Is

UPLOADS = Collection(
    "uploads",
    indexes=(Index(("owner", "state", "id")), Index(("state", "kept", "touched_at"))),
    fields=("size",),
)
"""`{id, owner, name, content_type, size, sha256, conversation, state, kept, created_at,
touched_at}`. While it is being received `size` is what is reserved for it."""

LINKS = Collection("upload_links", indexes=(Index(("upload", "id")),))
"""`{id: "<upload>:<stream>", upload, stream, linked_at}`: who may read the stream may read the
upload. Each link belongs to its stream and is written by the stream's appends alone."""

USAGE = Collection("upload_usage")
"""`{id: <user>, used, version}`: bytes counted; `version` goes up with each change."""

COLLECTIONS = (UPLOADS, LINKS, USAGE)


class State(StrEnum):
    """Where an upload stands."""

    RECEIVING = "receiving"
    READY = "ready"
    DELETING = "deleting"


class UploadRepository:
    """Reads and writes uploads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, org: str, id: str) -> Document | None:
        """A complete upload; None if there is none."""
        doc = await self._engine.get(org, UPLOADS, id)
        return doc if doc is not None and doc["state"] == State.READY else None

    async def get_many(self, org: str, ids: list[str]) -> dict[str, Document]:
        """Complete uploads by id; others are left out."""
        found = await self._engine.get_many(org, UPLOADS, ids)
        return {id: doc for id, doc in found.items() if doc["state"] == State.READY}

    # -- attaching ----------------------------------------------------------------------------

    def link(self, upload: str, stream: str, at: str) -> tuple[Guard, Insert]:
        """What attaches an upload to a stream, for the append of the event that shows it.

        The guard holds as long as the upload is there: no event can show one that has gone.
        Whether the author of the event may attach it is the caller's to check first: only its
        owner may.
        """
        doc: Document = {
            "id": f"{upload}:{stream}",
            "upload": upload,
            "stream": stream,
            "linked_at": at,
        }
        return Guard(UPLOADS, upload, {"state": State.READY.value}), Insert(LINKS, doc)

    async def streams(
        self, org: str, upload: str, *, after: str = "", limit: int = 100
    ) -> list[str]:
        """The streams an upload is attached to, behind the stream `after`."""
        where: dict[str, Any] = {"upload": upload, "id": Is(">", f"{upload}:{after}")}
        found = await self._engine.find(org, LINKS, where, order=("id",), limit=limit)
        return [link["stream"] for link in found]
