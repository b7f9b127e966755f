"""Files that their owner has deleted, as the messages say that carried them."""

from typing import Any

from actions.attempts import ATTEMPTS
from actions.ledger import Ledger
from actions.messaging.message_views import MessageViews
from domain.clock import Clock, timestamp
from domain.errors import Unavailable
from domain.events import Actor
from domain.messaging.messages import MESSAGE_EDITED
from store.engine import Document, Engine, GuardFailed, NewEvent, Update
from store.messaging.messages import MESSAGES, MessageRepository, is_in
from store.uploads.uploads import UploadRepository


class LostFiles:
    """Notes in messages which of their files are gone, and tells of it."""

    def __init__(
        self,
        engine: Engine,
        messages: MessageRepository,
        uploads: UploadRepository,
        views: MessageViews,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._messages = messages
        self._uploads = uploads
        self._views = views
        self._ledger = ledger
        self._clock = clock

    async def removed(self, org: str, upload: Document) -> None:
        """An upload is being removed. May be done again.

        Raises:
            Unavailable: the store is out of reach, or others keep changing one of the messages.
        """
        async for links in self._uploads.links(org, upload["id"]):
            for link in links:
                await self._note(org, link["stream"], link["message"], upload)

    async def _note(self, org: str, stream: str, message: str, upload: Document) -> None:
        for _ in range(ATTEMPTS):
            # First what has told of it: whatever is told after this makes the append fail.
            told = await self._messages.last_told(org, message)
            doc = await self._messages.get(org, message)
            if doc is None or doc["deleted_at"]:
                return
            attachments = [
                {**each, "deleted": True} if each["id"] == upload["id"] else each
                for each in doc["attachments"]
            ]
            if attachments == doc["attachments"]:
                return
            change: dict[str, Any] = {"attachments": attachments}
            view = await self._views.one(org, {**doc, **change})
            veil = await self._messages.veil(org, message)
            head = await self._engine.head(org, stream)
            trimmed = await self._messages.trimmed(
                org, message, head.trimmed if head is not None else 0
            )
            try:
                await self._ledger.append(
                    org,
                    stream,
                    Actor(upload["owner"]),
                    timestamp(self._clock.now()),
                    [NewEvent(MESSAGE_EDITED.name, {**view, **veil})],
                    [Update(MESSAGES, message, set=change), *trimmed, told.more()],
                    [is_in(message, doc["conversation"], deleted_at=None), told.is_all],
                )
            except GuardFailed:
                continue
            return
        raise Unavailable("Others are changing a message of this file at the same moment.")
