"""Uploads: receiving files within a quota, giving them to those who may have them, clearing up."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any

import structlog

from actions.streams.streams import Rules
from actions.uploads.files import UploadFiles, aborted
from actions.uploads.pictures import Pictures
from actions.uploads.quota import STALE, TOO_SLOW, Reservation
from domain.clock import Clock, timestamp
from domain.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from domain.ids import new_id
from domain.messaging.conversations import stream_of
from domain.pages import by_id, cut, resume
from domain.principals import Principal
from domain.uploads.media import HEAD, content_type
from domain.uploads.pictures import KINDS, SizeName
from domain.uploads.uploads import Upload, UploadPage, UploadRemoved, clean_name, renamed
from store.engine import Document, Duplicate
from store.uploads.blobs import BlobReader, Blobs
from store.uploads.uploads import (
    State,
    UploadRepository,
    blobs_of,
    length_of,
    raw_blob,
    thumbnail_blob,
)

log = structlog.get_logger(__name__)

PIECE = 128 * 1024
"""Bytes gathered before they are written."""


Shows = Callable[[str, Document], Awaitable[bool]]
"""(organization, an upload of it)"""

Hidden = Callable[[str, Iterable[str], str], Awaitable[Set[str]]]
"""(organization, messages, user) -> which of the messages this user has deleted alone"""

OnRemoved = Callable[[str, Document], Awaitable[object]]
"""(organization, an upload of it that is being removed)"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say of uploads."""

    size: int
    """Bytes of the largest file."""
    quota: int
    """Bytes one user may have stored."""
    unattached: float
    """Seconds after which an upload that no event shows is removed."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a sender says of the file it is about to send."""

    name: str | None
    content_type: str | None
    conversation: str | None = None
    """Whose members may download it before a message of it carries it."""
    client_id: str | None = None
    size: int | None = None
    """Bytes, if that is known: an upper bound that is reserved at once."""


@dataclass(frozen=True, slots=True)
class Download:
    """An upload and its bytes, or those of a thumbnail, to be closed by who got it."""

    upload: Upload
    reader: BlobReader
    name: str
    content_type: str
    sha256: str


class Uploads:
    """What can be done with uploads."""

    def __init__(
        self,
        repository: UploadRepository,
        blobs: Blobs,
        rules: Rules,
        clock: Clock,
        limits: Limits,
        pictures: Pictures | None = None,
    ) -> None:
        """`pictures`: what becomes of pictures; None: they are kept like other files."""
        self._repository = repository
        self._blobs = blobs
        self._rules = rules
        self._clock = clock
        self._limits = limits
        self._files = UploadFiles(blobs, pictures)
        self.shows: Shows = _nowhere
        """Whether all of the organization may see an upload, which is kept then."""
        self.hidden: Hidden = _none
        """Which messages a user has deleted for this user alone: what they carry is gone, too."""
        self.on_removed: list[OnRemoved] = []
        """Called before the bytes go; again, if something failed."""
        self._looked_at = KINDS if pictures is not None else frozenset[str]()

    # -- receiving ----------------------------------------------------------------------------

    async def receive(
        self, principal: Principal, incoming: Incoming, chunks: AsyncIterator[bytes]
    ) -> Upload:
        """Store a file as it comes in. With an error nothing of it is kept. Sent again with the same
        `client_id`, it is only compared with the first one, as long as that is there: whatever the
        caller may no longer store or share.

        Args:
            chunks: its bytes; an error it raises ends the upload.

        Raises:
            NotFound: the conversation does not exist for this caller.
            Invalid: the file is empty, or evidently not of the declared type.
            TooLarge: it exceeds the limit of a file or of the caller's quota.
            Conflict: the `client_id` was used for another file.
        """
        if incoming.client_id is not None:
            first = await self._repository.by_client_id(
                principal.org, principal.user, incoming.client_id
            )
            if first is not None and first["state"] == State.READY:
                return await self._again(first, incoming, chunks)
        if incoming.conversation is not None:
            await self._may_share(principal, incoming.conversation)
        if incoming.size is not None and incoming.size > self._limits.size:
            raise self._too_large()
        id = new_id()
        await self._repository.begin(principal.org, self._fresh(id, principal, incoming))
        try:
            return await self._receive(id, principal, incoming, chunks)
        except BaseException:
            # A sender that goes away cancels this; what it leaves is removed all the same.
            await asyncio.shield(self._discard(principal.org, principal.user, id))
            raise

    async def _again(
        self, first: Document, incoming: Incoming, chunks: AsyncIterator[bytes]
    ) -> Upload:
        digest = hashlib.sha256()
        size = 0
        async for piece in _gather(chunks):
            size += len(piece)
            if size > self._limits.size:
                raise self._too_large()
            digest.update(piece)
        return _same(first, incoming, digest.hexdigest())

    def _fresh(self, id: str, principal: Principal, incoming: Incoming) -> Document:
        now = timestamp(self._clock.now())
        return {
            "id": id,
            "owner": principal.user,
            "name": clean_name(incoming.name),
            "content_type": "",
            "size": 0,
            "sha256": "",
            "conversation": incoming.conversation,
            "client_id": None,
            "state": State.RECEIVING.value,
            "kept": False,
            "created_at": now,
            "touched_at": now,
        }

    async def _receive(
        self, id: str, principal: Principal, incoming: Incoming, chunks: AsyncIterator[bytes]
    ) -> Upload:
        reservation = Reservation(self._repository, self._clock, self._limits.quota, principal, id)
        if incoming.size:
            await reservation.take(incoming.size)
        digest = hashlib.sha256()
        kind: str | None = None
        size = 0
        writer = None
        try:
            async for piece in _gather(chunks):
                size += len(piece)
                if size > self._limits.size:
                    raise self._too_large()
                if kind is None or writer is None:
                    kind = content_type(piece[:HEAD], incoming.content_type)
                    looked_at = kind in self._looked_at
                    writer = await self._blobs.create(raw_blob(id) if looked_at else id)
                await reservation.cover(size)
                digest.update(piece)
                await writer.write(piece)
            if kind is None or writer is None:
                raise Invalid.field("file", "is empty")
            await writer.commit()
        except BaseException:
            if writer is not None:
                await asyncio.shield(aborted(writer))
            raise
        known: dict[str, Any] = {
            "content_type": kind,
            "size": size,
            "sha256": digest.hexdigest(),
        }
        if kind in self._looked_at:
            known = await self._files.picture(id, known, reservation, principal.user)
        return await self._complete(id, principal, incoming, known)

    async def _complete(
        self, id: str, principal: Principal, incoming: Incoming, known: dict[str, Any]
    ) -> Upload:
        known |= {
            "client_id": incoming.client_id,
            "touched_at": timestamp(self._clock.now()),
        }
        try:
            doc = await self._repository.complete(principal.org, id, known)
        except Duplicate:
            first = await self._first(principal, incoming, known)
            await self._discard(principal.org, principal.user, id)
            return first
        if doc is None:
            raise Unavailable(TOO_SLOW)
        await self._repository.recount(principal.org, principal.user)
        return view(doc)

    async def _first(
        self, principal: Principal, incoming: Incoming, known: dict[str, Any]
    ) -> Upload:
        assert incoming.client_id is not None
        doc = await self._repository.by_client_id(principal.org, principal.user, incoming.client_id)
        if doc is None:
            raise Unavailable("The first upload with this client_id is being removed.")
        return _same(doc, incoming, _received(known))

    async def _discard(self, org: str, owner: str, id: str) -> None:
        try:
            await self._files.erase(blobs_of(id))
            await self._repository.remove(org, id, State.RECEIVING)
            await self._repository.recount(org, owner)
        except Unavailable:
            # The error that led here is the one to tell; the sweep does the rest.
            log.warning("upload_not_discarded", upload=id)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"A file may have at most {self._limits.size} bytes.", data={"limit": self._limits.size}
        )

    # -- giving -------------------------------------------------------------------------------

    async def open(self, principal: Principal, id: str, size: SizeName | None = None) -> Download:
        """An upload and its bytes.

        Args:
            size: of a picture the thumbnail; of one that is no larger, the picture itself.

        Raises:
            NotFound: there is none, or the caller is neither its owner nor one who may read
                something it is attached to; or it has no thumbnails.
        """
        doc = await self._visible(principal, id)
        if size is not None:
            if doc.get("image") is None:
                raise NotFound("There is no thumbnail of this upload.")
            thumbnail = doc["thumbnails"].get(size)
            reader = await self._blobs.open(thumbnail_blob(id, size)) if thumbnail else None
            if thumbnail and reader:
                kind = thumbnail["content_type"]
                name = renamed(doc["name"], kind)
                return Download(view(doc), reader, name, kind, thumbnail["sha256"])
        reader = await self._blobs.open(id)
        if reader is None:
            raise NotFound("There is no such upload.")
        return Download(view(doc), reader, doc["name"], doc["content_type"], doc["sha256"])

    async def get(self, principal: Principal, id: str) -> Upload:
        """What is known of an upload; errors as of `open`."""
        return view(await self._visible(principal, id))

    async def may_download(self, principal: Principal, doc: Document) -> bool:
        """Whether the caller may have an upload, given its document."""
        if doc["owner"] == principal.user:
            return True
        conversation = doc["conversation"]
        if (
            conversation is not None
            and await self._may_read(principal, conversation)
            # Once a message has carried it, the conversation's messages decide.
            and not await self._repository.was_attached(
                principal.org, doc["id"], stream_of(conversation)
            )
        ):
            return True
        async for links in self._repository.links(principal.org, doc["id"]):
            streams = dict.fromkeys(link["stream"] for link in links)
            readable = await self._rules.readable(principal, streams)
            messages = {link["message"] for link in links if link["stream"] in readable}
            if messages and messages - await self.hidden(principal.org, messages, principal.user):
                return True
        return await self.shows(principal.org, doc)

    async def list(self, principal: Principal, cursor: str | None, limit: int) -> UploadPage:
        """The caller's own uploads, newest first."""
        after = resume(cursor, "id")
        docs = await self._repository.page(
            principal.org, principal.user, after=after, limit=limit + 1
        )
        page, next = cut(docs, limit, by_id)
        return {
            "items": [view(doc) for doc in page],
            "next": next,
            "used": await self._repository.used(principal.org, principal.user),
            "quota": self._limits.quota,
        }

    async def _visible(self, principal: Principal, id: str) -> Document:
        doc = await self._repository.get(principal.org, id)
        if doc is None or not await self.may_download(principal, doc):
            raise NotFound("There is no such upload.")
        return doc

    async def _may_share(self, principal: Principal, conversation: str) -> None:
        if not await self._may_read(principal, conversation):
            raise NotFound("There is no such conversation.")

    async def _may_read(self, principal: Principal, conversation: str) -> bool:
        return await self._rules.may_read(principal, stream_of(conversation))

    # -- removing -----------------------------------------------------------------------------

    async def delete(self, principal: Principal, id: str) -> UploadRemoved:
        """Remove an upload of the caller's, wherever it is attached, and free its bytes.

        Raises:
            NotFound: there is none that the caller owns.
        """
        doc = await self._repository.get(principal.org, id)
        if doc is None or doc["owner"] != principal.user:
            raise NotFound("There is no such upload.")
        if not await self._repository.condemn(principal.org, id, State.READY, self._now()):
            raise NotFound("There is no such upload.")
        await self._remove(principal.org, doc)
        return {"id": id}

    async def sweep(self) -> int:
        """Remove what crashes left, and complete uploads that no event shows, and correct the
        counts. Safe to run at any time, on several nodes at once.

        Returns how many uploads were removed.
        """
        now = self._clock.now()
        cut_off = timestamp(now - STALE)
        removed = 0
        for state in (State.RECEIVING, State.DELETING):
            while stale := await self._repository.stale(state, cut_off):
                for doc in stale:
                    removed += await self._clear(doc, state)
        before = timestamp(now - self._limits.unattached)
        while waiting := await self._repository.stale(State.READY, before):
            for doc in waiting:
                removed += await self._remove_unattached(doc)
        await self._blobs.sweep(now - STALE)
        while unsettled := await self._repository.unsettled(cut_off, 200):
            if not all([await self._repository.settle(each) for each in unsettled]):
                break  # somebody is at work there: the next sweep looks again
        return removed

    async def _remove_unattached(self, doc: Document) -> bool:
        org, id = doc["org"], doc["id"]
        if await self._is_needed(org, doc):
            await self._repository.keep(org, id)
            return False
        if not await self._repository.condemn(org, id, State.READY, self._now()):
            return False
        # Nothing can attach it from here on, but something may have just before.
        if await self._is_needed(org, doc):
            await self._repository.spare(org, id, self._now())
            return False
        await self._remove(org, doc)
        return True

    async def _is_needed(self, org: str, doc: Document) -> bool:
        return await self._repository.was_attached(org, doc["id"]) or await self.shows(org, doc)

    async def _clear(self, doc: Document, state: State) -> bool:
        if not await self._repository.condemn(doc["org"], doc["id"], state, self._now()):
            return False
        await self._remove(doc["org"], doc)
        return True

    async def _remove(self, org: str, doc: Document) -> None:
        # Bytes first: as long as the document is there, a crash leaves something to find. Of one after
        # that, the count is found.
        for callback in self.on_removed:
            await callback(org, doc)
        await self._repository.work(org, doc["owner"], self._now())
        await self._files.erase(blobs_of(doc["id"], doc))
        await self._repository.remove(org, doc["id"], State.DELETING)
        await self._repository.recount(org, doc["owner"])

    def _now(self) -> str:
        return timestamp(self._clock.now())


async def _none(_org: str, _messages: Iterable[str], _user: str) -> Set[str]:
    return frozenset()


async def _nowhere(_org: str, _upload: Document) -> bool:
    return False


def view(doc: Document) -> Upload:
    """An upload in its wire form."""
    return {
        "id": doc["id"],
        "owner": doc["owner"],
        "name": doc["name"],
        "content_type": doc["content_type"],
        "size": length_of(doc),
        "sha256": doc["sha256"],
        "image": doc.get("image"),
        "conversation": doc["conversation"],
        "created_at": doc["created_at"],
    }


def _same(first: Document, incoming: Incoming, received: Any) -> Upload:
    """The answer to a file that came before, by the hash of what was sent now."""
    same = _received(first) == received and first["name"] == clean_name(incoming.name)
    if not same or first["state"] != State.READY:
        raise Conflict("This client_id was used for another file.")
    return view(first)


def _received(doc: Document) -> Any:
    """The hash of what was sent: of a picture it is not that of what is kept."""
    return doc.get("received", doc["sha256"])


async def _gather(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of `PIECE` or a little more; the last one may be shorter."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= PIECE:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)
