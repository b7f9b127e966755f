"""Uploaded files: what is known of each, where it is attached, and what a user has used.

The bytes are in a `store.uploads.blobs.Blobs` under the upload's id. What a user has used is counted in one
document, so that a quota holds however many uploads run at once. Without transactions the count
stays honest by two rules: what is admitted is written to the upload's document before it is
counted, so the sum of a user's documents is never less than what was admitted; and whoever makes a
document smaller or removes it sets the count to that sum, if nobody was admitted meanwhile. Should
it die before that, a sweep does: each says beforehand that it is at work.
"""

from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from typing import Any

from domain.uploads.pictures import SizeName
from store.engine import Collection, Document, Engine, Guard, Index, Insert, Is, Update
from store.scan import pages

LINKS_AT_ONCE = 100

UPLOADS = Collection(
    "uploads",
    indexes=(
        Index(("owner", "state", "id")),
        Index(("owner", "client_id"), unique=True),
        Index(("state", "kept", "touched_at"), any_org=True),
    ),
    fields=("size",),
)
"""`{id, owner, name, content_type, size, sha256, conversation, client_id, state, kept, created_at,
touched_at, length, received, image, thumbnails}`. `size` is what is counted for it: while it is being
received what is reserved, then the file and its thumbnails. Of pictures there are also `length` (bytes
of the file), `received` (the hash of what came), `image` and `thumbnails: {<size>: {content_type, size,
sha256}}`."""

_THUMBNAILS: Mapping[SizeName, str] = {"small": "a", "medium": "b", "large": "c"}


def thumbnail_blob(id: str, size: SizeName) -> str:
    """The blob that an upload's thumbnail is in."""
    return f"{_THUMBNAILS[size]}-{id}"


def raw_blob(id: str) -> str:
    """The blob that a picture is in before it was looked at."""
    return f"d-{id}"


def blobs_of(id: str, doc: Document | None = None) -> list[str]:
    """Every blob that an upload has, its file last; without a document, that it may have."""
    if doc is not None and doc["sha256"] and not doc.get("thumbnails"):
        return [id]
    return [raw_blob(id), *(thumbnail_blob(id, size) for size in _THUMBNAILS), id]


LINKS = Collection("upload_links", indexes=(Index(("upload", "id")),), fields=("withdrawn_at",))
"""`{id: "<upload>:<stream>:<message>", upload, stream, message, linked_at, withdrawn_at}`: who may
read the stream may read the upload, as long as one of its links is not withdrawn. Each link belongs
to its stream and is written by the stream's appends alone."""

USAGE = Collection("upload_usage", indexes=(Index(("busy_at",), any_org=True),))
"""`{id: <user>, used, version, busy_at}`: bytes counted; `version` goes up with each change.
`busy_at` is about when somebody last was at work on the user's uploads: should it have died, the
count may be wrong. Null once somebody has counted anew since."""

COLLECTIONS = (UPLOADS, LINKS, USAGE)


def length_of(doc: Document) -> int:
    """Bytes of an upload's file."""
    length: int = doc["length"] if "length" in doc else doc["size"]
    return length


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

    async def page(self, org: str, owner: str, *, after: str | None, limit: int) -> list[Document]:
        """The owner's complete uploads, newest first, behind the upload `after`."""
        where = {"owner": owner, "state": State.READY.value}
        return await self._engine.find(
            org,
            UPLOADS,
            where,
            order=("-id",),
            after=None if after is None else (after,),
            limit=limit,
        )

    # -- receiving ----------------------------------------------------------------------------

    async def begin(self, org: str, doc: Document) -> None:
        """Note an upload that is about to be received: whatever happens, it can be found."""
        await self._engine.insert(org, UPLOADS, doc)
        usage: Document = {"id": doc["owner"], "used": 0, "version": 0, "busy_at": None}
        await self._engine.insert_or_get(org, USAGE, usage)

    async def reserve(
        self, org: str, owner: str, id: str, size: int, at: str, quota: int
    ) -> bool | None:
        """Reserve `size` more bytes for an upload that is being received.

        Returns:
            Whether the quota allows it; None if the upload is no longer there.
        """
        here = {"state": State.RECEIVING.value}
        if await self._grow(org, id, size, at, here) is None:
            return None
        counted = await self._engine.update(
            org,
            USAGE,
            owner,
            set={"busy_at": at},
            inc={"used": size, "version": 1},
            where={"used": Is("<=", quota - size)},
        )
        if counted is None:
            await self._grow(org, id, -size, at, here)
        return counted is not None

    async def touch(self, org: str, owner: str, id: str, at: str) -> bool:
        """Note that an upload goes on; False if it is no longer there."""
        await self.work(org, owner, at)
        return await self._grow(org, id, 0, at, {"state": State.RECEIVING.value}) is not None

    async def work(self, org: str, owner: str, at: str) -> None:
        """Note that somebody is about to make the owner's uploads smaller or fewer, for `unsettled`."""
        await self._engine.update(org, USAGE, owner, set={"busy_at": at})

    async def _grow(
        self, org: str, id: str, size: int, at: str, where: Mapping[str, Any]
    ) -> Document | None:
        return await self._engine.update(
            org, UPLOADS, id, inc={"size": size}, set={"touched_at": at}, where=where
        )

    async def complete(self, org: str, id: str, known: Mapping[str, Any]) -> Document | None:
        """Make a received upload available; None if it is no longer there.

        Raises:
            Duplicate: the owner has another upload with this `client_id`.
        """
        return await self._engine.update(
            org,
            UPLOADS,
            id,
            set={**known, "state": State.READY.value},
            where={"state": State.RECEIVING.value},
        )

    async def by_client_id(self, org: str, owner: str, client_id: str) -> Document | None:
        """The owner's upload that was made with this key."""
        where = {"owner": owner, "client_id": client_id}
        found = await self._engine.find(org, UPLOADS, where, limit=1)
        return found[0] if found else None

    # -- counting -----------------------------------------------------------------------------

    async def used(self, org: str, owner: str) -> int:
        """Bytes counted for a user."""
        usage = await self._engine.get(org, USAGE, owner)
        return usage["used"] if usage is not None else 0

    async def recount(self, org: str, owner: str, attempts: int = 10) -> bool:
        """Set a user's count to the sum of the uploads there are.

        Returns:
            False if others were admitted during each of the attempts.
        """
        for _ in range(attempts):
            usage = await self._engine.get(org, USAGE, owner)
            if usage is None:
                return True
            used = await self._engine.sum(org, UPLOADS, "size", {"owner": owner})
            if usage["used"] == used:
                return True
            settled = await self._engine.update(
                org,
                USAGE,
                owner,
                set={"used": used},
                inc={"version": 1},
                where={"version": usage["version"]},
            )
            if settled is not None:
                return True
        return False

    async def unsettled(self, before: str, limit: int) -> list[Document]:
        """Counts, of any organization, that somebody was at work on last before that time."""
        return await self._engine.find_any_org(USAGE, {"busy_at": Is("<", before)}, limit)

    async def settle(self, usage: Document) -> bool:
        """Count anew what `unsettled` gave, whoever was at work on it being done or dead by now;
        False if somebody is at work again.
        """
        org, owner = usage["org"], usage["id"]
        if not await self.recount(org, owner):
            return False
        where = {"busy_at": usage["busy_at"]}
        settled = await self._engine.update(org, USAGE, owner, set={"busy_at": None}, where=where)
        return settled is not None

    # -- removing -----------------------------------------------------------------------------

    async def condemn(self, org: str, id: str, state: State, at: str) -> bool:
        """Let an upload of this state be completed, seen and attached no longer; whether this
        call did it.
        """
        return await self._turn(org, id, state, State.DELETING, at)

    async def spare(self, org: str, id: str, at: str) -> bool:
        """Take `condemn` back."""
        return await self._turn(org, id, State.DELETING, State.READY, at)

    async def keep(self, org: str, id: str) -> None:
        """Note that an upload is attached: no sweep needs to look at it again."""
        await self._engine.update(org, UPLOADS, id, set={"kept": True})

    async def look_at_again(self, org: str, id: str, at: str) -> bool:
        """Have a later sweep look whether a complete upload is still needed; False if it is not
        there.
        """
        changed = await self._engine.update(
            org,
            UPLOADS,
            id,
            set={"kept": False, "touched_at": at},
            where={"state": State.READY.value},
        )
        return changed is not None

    async def remove(self, org: str, id: str, state: State) -> None:
        """Remove an upload of this state, once its bytes are gone, and its links."""
        removed = await self._engine.delete(org, UPLOADS, {"id": id, "state": state.value})
        if removed:
            await self._engine.delete(org, LINKS, {"upload": id})

    async def _turn(self, org: str, id: str, old: State, new: State, at: str) -> bool:
        changed = await self._engine.update(
            org,
            UPLOADS,
            id,
            set={"state": new.value, "touched_at": at},
            where={"state": old.value},
        )
        return changed is not None

    async def stale(self, state: State, before: str, limit: int = 200) -> list[Document]:
        """Uploads of any organization that have been in a state since `before`; of the complete
        ones those that are not kept.
        """
        where: dict[str, Any] = {"state": state.value, "touched_at": Is("<", before)}
        if state is State.READY:
            where["kept"] = False
        return await self._engine.find_any_org(UPLOADS, where, limit)

    # -- attaching ----------------------------------------------------------------------------

    def link(self, upload: str, stream: str, message: str, at: str) -> tuple[Guard, Insert]:
        """What attaches an upload to a message of a stream, for the append of the event that
        shows it.

        The guard holds as long as the upload is there; one that goes in the same moment may be shown
        all the same, and is gone (decision 0016).
        Whether the author of the event may attach it is the caller's to check first: only its
        owner may.
        """
        doc: Document = {
            "id": link_id(upload, stream, message),
            "upload": upload,
            "stream": stream,
            "message": message,
            "linked_at": at,
            "withdrawn_at": None,
        }
        return Guard(UPLOADS, upload, {"state": State.READY.value}), Insert(LINKS, doc)

    def withdraw(self, upload: str, stream: str, message: str, at: str) -> Update:
        """What takes back the right that `link` gave, for the append that takes the message's
        content away.
        """
        return Update(LINKS, link_id(upload, stream, message), set={"withdrawn_at": at})

    def links(self, org: str, upload: str) -> AsyncIterator[list[Document]]:
        """What attaches an upload to messages, in pages."""
        where = {"upload": upload, "withdrawn_at": None}
        return pages(self._engine, org, LINKS, where, size=LINKS_AT_ONCE)

    async def was_attached(self, org: str, upload: str, stream: str | None = None) -> bool:
        """Whether an upload was ever attached to anything, or to anything of one stream."""
        where: dict[str, Any] = {"upload": upload}
        if stream is not None:
            where["id"] = Is("prefix", link_id(upload, stream, ""))
        return bool(await self._engine.find(org, LINKS, where, order=("id",), limit=1))


def link_id(upload: str, stream: str, message: str) -> str:
    """The id of what attaches an upload to a message of a stream."""
    return f"{upload}:{stream}:{message}"
