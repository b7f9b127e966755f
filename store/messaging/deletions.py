"""What is left of conversations that were deleted, until all of it is gone."""

from collections.abc import Sequence
from typing import Any

from domain.clock import timestamp
from domain.messaging.conversations import stream_of
from store.engine import Collection, Document, Engine, Filter, Index, Insert, Is
from store.messaging.conversations import MEMBERS, SETTINGS
from store.messaging.messages import HIDDEN, MESSAGES, PINS, REPLIES, TOLD
from store.messaging.reactions import REACTION_COUNTS, REACTIONS
from store.messaging.receipts import POSITIONS, RECEIPTS
from store.messaging.unread import MENTIONS
from store.uploads.uploads import LINKS, UPLOADS, link_id

DELETIONS = Collection(
    "conversation_deletions", indexes=(Index(("at",), any_org=True, ordered=True),)
)
"""`{id: <conversation>, at, seq}`: `seq` is that of the event which tells of it. Belongs to the
conversation's stream."""

COLLECTIONS = (DELETIONS,)

STEP = 100
"""Messages that are removed together, with what hangs on them."""

ROWS = 500
"""Small documents that are removed together."""

_OF_CONVERSATION: Sequence[tuple[Collection, Sequence[str]]] = (
    (POSITIONS, ("user",)),
    (RECEIPTS, ("user", "kind", "seq")),
    (PINS, ("pinned_at",)),
)
"""What names its conversation, and the order in which there is an index of it."""


def note_deletion(conversation: str, at: str) -> Insert:
    """Says that a conversation is to be cleared away; part of the append that deletes it."""
    return Insert(DELETIONS, {"id": conversation, "at": at, "seq": 0}, stamp="seq")


class DeletionRepository:
    """Removes what deleted conversations were made of. All of it can be done again, at the same
    time too; what is left by a crash is found the next time.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def some(self, now: float, limit: int) -> list[Document]:
        """Those that are to be cleared away, of all organizations, the oldest first."""
        where = {"at": Is("<=", timestamp(now))}
        return await self._engine.find_any_org(DELETIONS, where, limit, order=("at",))

    async def done(self, org: str, conversation: str) -> None:
        """All of one is gone."""
        await self._engine.delete(org, DELETIONS, {"id": conversation})

    async def remove_members(self, org: str, conversation: str) -> list[str]:
        """Put some of the members out who are left; who it was, nobody when all are out."""
        found = await self._engine.find(
            org, MEMBERS, {"conversation": conversation}, order=("joined_at", "id"), limit=ROWS
        )
        await self._remove(org, MEMBERS, [doc["id"] for doc in found])
        return [doc["user"] for doc in found]

    async def clear(self, org: str, conversation: str) -> None:
        """Remove messages, and what is kept of members in the conversation, in steps."""
        while await self._clear_messages(org, conversation):
            pass
        for collection, order in _OF_CONVERSATION:
            where: Filter = {"conversation": conversation}
            await self._clear_rows(org, collection, where, order)
        await self._clear_rows(org, SETTINGS, {"id": Is("prefix", f"{conversation}:")}, ("id",))

    async def _clear_messages(self, org: str, conversation: str) -> bool:
        docs = await self._engine.find(
            org, MESSAGES, {"conversation": conversation}, order=("seq", "id"), limit=STEP
        )
        if not docs:
            return False
        ids = [doc["id"] for doc in docs]
        attached = [(each["id"], doc["id"]) for doc in docs for each in doc["attachments"]]
        for upload in dict.fromkeys(upload for upload, _ in attached):
            # As when a message is deleted: its owner keeps it.
            await self._engine.update(org, UPLOADS, upload, set={"kept": True})
        stream = stream_of(conversation)
        await self._remove(
            org, LINKS, [link_id(upload, stream, message) for upload, message in attached]
        )
        mentions = [f"{doc['id']}:{user}" for doc in docs for user in doc["mentions"]]
        await self._remove(org, MENTIONS, mentions)
        for collection in (REPLIES, REACTION_COUNTS, PINS):
            await self._remove(org, collection, ids)
        for collection in (TOLD, REACTIONS, HIDDEN):
            await self._engine.delete(org, collection, {"message": Is("in", ids)})
        # Last: what hangs on it is found by it.
        await self._remove(org, MESSAGES, ids)
        return True

    async def _clear_rows(
        self, org: str, collection: Collection, where: Filter, order: Sequence[str]
    ) -> None:
        found: list[dict[str, Any]] | None = None
        while found is None or len(found) == ROWS:
            found = await self._engine.find(org, collection, where, order=order, limit=ROWS)
            await self._remove(org, collection, [doc["id"] for doc in found])

    async def _remove(self, org: str, collection: Collection, ids: Sequence[str]) -> None:
        if ids:
            await self._engine.delete(org, collection, {"id": Is("in", list(ids))})

    async def clear_log(self, org: str, streams: Sequence[str]) -> None:
        """Leave nothing in the logs but each one's last event."""
        for stream in streams:
            await self._engine.trim_stream(org, stream)
