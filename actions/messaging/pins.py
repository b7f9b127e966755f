"""Pinning messages, so that a conversation's members find them again."""

from typing import Any

from actions.attempts import ATTEMPTS
from actions.messaging.memberships import Memberships
from actions.messaging.message_views import MessageViews
from actions.messaging.messages import Messages
from domain.clock import Clock, timestamp
from domain.errors import Conflict, Invalid, TooLarge
from domain.messaging.messages import MAX_PINS, MESSAGE_PINNED, MESSAGE_UNPINNED, Message
from domain.pages import Page, cut, resume
from domain.principals import Principal
from store.engine import Change, Delete, Put
from store.messaging.messages import PINS, MessageRepository


class Pins:
    """What can be done with pins. Every member may pin and unpin."""

    def __init__(
        self,
        repository: MessageRepository,
        messages: Messages,
        memberships: Memberships,
        views: MessageViews,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._messages = messages
        self._memberships = memberships
        self._views = views
        self._clock = clock

    async def add(self, principal: Principal, message: str) -> Message:
        """Pin a message. One that is pinned stays as it is.

        Raises:
            NotFound: there is no such message for the caller.
            Invalid: it is deleted.
            TooLarge: the conversation has as many pins as it may.
        """
        return await self._set(principal, message, pinned=True)

    async def remove(self, principal: Principal, message: str) -> Message:
        """Take a pin away. A message that is not pinned stays as it is.

        Raises:
            NotFound: there is no such message for the caller.
        """
        return await self._set(principal, message, pinned=False)

    async def _set(self, principal: Principal, message: str, *, pinned: bool) -> Message:
        for _ in range(ATTEMPTS):
            doc, facts = await self._messages.find(principal, message)
            conversation = doc["conversation"]
            if pinned is (doc["pinned_at"] is not None):
                return await self._views.one(principal.org, doc)
            at = timestamp(self._clock.now())
            values: dict[str, Any] = {"pinned_at": None, "pinned_by": None}
            change: Change = Delete(PINS, message)
            if pinned:
                if doc["deleted_at"]:
                    raise Invalid("A deleted message cannot be pinned.")
                if await self._repository.count_pins(principal.org, conversation) >= MAX_PINS:
                    raise TooLarge(f"A conversation has at most {MAX_PINS} pins.")
                values = {"pinned_at": at, "pinned_by": principal.user}
                change = Put(PINS, {"id": message, "conversation": conversation, "pinned_at": at})
            event = MESSAGE_PINNED if pinned else MESSAGE_UNPINNED
            # Others may pin at the same moment: the append itself counts.
            room, counted = await self._repository.pins(
                principal.org, conversation, 1 if pinned else -1, MAX_PINS
            )
            if await self._messages.change(
                principal,
                facts,
                doc,
                at,
                values,
                event.name,
                [change, counted],
                retried=[room],
            ):
                return await self._views.one(principal.org, {**doc, **values})
        raise Conflict("Others are changing this message at the same moment.")

    async def page(
        self, principal: Principal, conversation: str, *, cursor: str | None, limit: int
    ) -> Page[Message]:
        """A conversation's pinned messages, last pinned first.

        Raises:
            NotFound: the caller is in no such conversation.
        """
        await self._memberships.require(principal, conversation)
        after = resume(cursor, "at", "id")
        docs = await self._repository.pinned(
            principal.org, conversation, after=after, limit=limit + 1
        )
        page, next = cut(docs, limit, lambda doc: {"at": doc["pinned_at"], "id": doc["id"]})
        hidden = await self._repository.hidden(
            principal.org, [doc["id"] for doc in page], principal.user
        )
        visible = [doc for doc in page if doc["id"] not in hidden]
        return {
            "items": await self._views.many(principal.org, visible),
            "next": next,
        }
