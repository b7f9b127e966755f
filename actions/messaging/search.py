"""Finding messages by their words, in the conversations the caller is in."""

from dataclasses import dataclass
from typing import Any

from actions.messaging.memberships import Memberships
from actions.messaging.message_views import MessageViews
from domain.errors import Invalid
from domain.messaging.messages import Message
from domain.pages import Page, by_id, cut, resume
from domain.principals import Principal
from store.engine import Document, Is
from store.messaging.conversations import ConversationRepository
from store.messaging.messages import STEP, MessageRepository


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for."""

    text: str
    conversation: str | None = None
    sender: str | None = None
    since: str | None = None
    until: str | None = None
    """Times are inclusive."""


class Search:
    """Searches messages for users."""

    def __init__(
        self,
        messages: MessageRepository,
        conversations: ConversationRepository,
        memberships: Memberships,
        views: MessageViews,
    ) -> None:
        self._messages = messages
        self._conversations = conversations
        self._memberships = memberships
        self._views = views

    async def messages(
        self, principal: Principal, query: Query, *, cursor: str | None, limit: int
    ) -> Page[Message]:
        """Messages that hold every word of the text (the last one may be a beginning), newest
        first, without what the caller has deleted.

        Raises:
            NotFound: the caller is not in the conversation that is searched.
        """
        if query.since is not None and query.until is not None and query.since > query.until:
            raise Invalid.field("since", "is later than until")
        before = resume(cursor, "id")
        where = await self._where(principal, query)
        if where is None:
            return {"items": [], "next": None}
        found: list[Document] = []
        size = limit + 1
        while len(found) <= limit:
            docs = await self._messages.search(
                principal.org, query.text, where, before=before, limit=size
            )
            found += await self._visible(principal, docs)
            # A filter holds one condition per field: with `until`, `since` ends the walk.
            late = [doc for doc in found if query.since is None or doc["created_at"] >= query.since]
            if len(docs) < size or len(late) < len(found):
                found = late
                break
            before = docs[-1]["id"]
            size = max(size, STEP)
        page, next = cut(found, limit, by_id)
        return {"items": await self._views.many(principal.org, page), "next": next}

    async def _where(self, principal: Principal, query: Query) -> dict[str, Any] | None:
        """The filter of the search; None if the caller is in no conversation."""
        where: dict[str, Any] = {}
        if query.conversation is not None:
            await self._memberships.require(principal, query.conversation)
            where["conversation"] = query.conversation
        else:
            mine = await self._conversations.of_user(principal.org, principal.user)
            if not mine:
                return None
            where["conversation"] = Is("in", mine)
        if query.sender is not None:
            where["sender"] = query.sender
        if query.until is not None:
            where["created_at"] = Is("<=", query.until)
        elif query.since is not None:
            where["created_at"] = Is(">=", query.since)
        return where

    async def _visible(self, principal: Principal, docs: list[Document]) -> list[Document]:
        hidden = await self._messages.hidden(
            principal.org, [doc["id"] for doc in docs], principal.user
        )
        return [doc for doc in docs if doc["id"] not in hidden]
