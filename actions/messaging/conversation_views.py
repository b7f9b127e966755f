"""Conversations as one user sees them, alone and in lists."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from actions.messaging.last_messages import LastMessages
from actions.messaging.memberships import Memberships, by_joining
from actions.messaging.message_views import MessageViews, Positions
from domain.errors import NotFound
from domain.messaging.conversations import (
    Conversation,
    ConversationChange,
    ConversationKind,
    ConversationMember,
    Kind,
)
from domain.messaging.messages import Message
from domain.messaging.unread import MAX_UNREAD
from domain.pages import Page, by_id, cut, resume
from domain.principals import Principal, Role
from store.engine import Document, Guard
from store.messaging.conversations import NO_SETTINGS, ConversationRepository, are_members
from store.messaging.messages import MessageRepository

STEP = 200
"""Channels that are read at a time to find those a user is not in."""


class UnreadCount(Protocol):
    """How much a user has not read in one conversation."""

    @property
    def shown(self) -> int: ...

    @property
    def more(self) -> bool: ...

    @property
    def mentions(self) -> int: ...


class UnreadCounts(Protocol):
    """Where what users have not read is counted (`actions.messaging.unread`)."""

    async def counts(
        self, org: str, user: str, conversations: Sequence[str]
    ) -> Mapping[str, UnreadCount]:
        """By conversation; one without anything unread may be left out."""
        ...


def member_view(member: Document, position: Mapping[str, Any] | None) -> ConversationMember:
    """A member on the wire."""
    return {
        "user": member["user"],
        "role": member["role"],
        "joined_at": member["joined_at"],
        "read_seq": position["read_seq"] if position else 0,
        "delivered_seq": position["delivered_seq"] if position else 0,
    }


def change_of(doc: Document) -> ConversationChange:
    """What a conversation's document says of it; the rest is null."""
    return {
        "id": doc["id"],
        "kind": doc["kind"],
        "title": doc["title"],
        "topic": doc["topic"],
        "members": None,
        "created_at": doc["created_at"],
        "last_message": None,
        "unread": None,
        "more": None,
        "mentions": None,
        "muted": None,
        "archived": None,
    }


def may_discover(principal: Principal, doc: Document) -> bool:
    """Whether somebody who is not in a conversation may know of it, and come in."""
    return doc["kind"] == Kind.CHANNEL and principal.role.at_least(Role.MEMBER)


class ConversationViews:
    """Reads conversations for users."""

    def __init__(
        self,
        conversations: ConversationRepository,
        messages: MessageRepository,
        memberships: Memberships,
        message_views: MessageViews,
        last_messages: LastMessages,
        positions: Positions,
        unread: UnreadCounts,
    ) -> None:
        self._conversations = conversations
        self._messages = messages
        self._memberships = memberships
        self._message_views = message_views
        self._last_messages = last_messages
        self._positions = positions
        self._unread = unread

    # -- one ----------------------------------------------------------------------------------

    async def get(self, principal: Principal, conversation: str) -> Conversation:
        """One conversation that the caller is in, or a channel that the caller may join.

        Raises:
            NotFound: there is none the caller may know of.
        """
        doc = await self.visible(principal, conversation)
        return (await self.many(principal, [doc]))[0]

    async def visible(self, principal: Principal, conversation: str) -> Document:
        """The document of a conversation the caller may know of.

        Raises:
            NotFound: there is none.
        """
        doc = await self._conversations.get(principal.org, conversation)
        if doc is None or not (
            may_discover(principal, doc)
            or await self._memberships.is_member(principal.org, conversation, principal.user)
        ):
            raise NotFound("There is no such conversation.")
        return doc

    # -- many ---------------------------------------------------------------------------------

    async def many(self, principal: Principal, docs: Sequence[Document]) -> list[Conversation]:
        """Conversations as the caller sees them: of those the caller is not in, no message."""
        org, user = principal.org, principal.user
        ids = [doc["id"] for doc in docs]
        mine = await self._conversations.memberships(org, ids, user)
        listed = [doc["id"] for doc in docs if doc["kind"] != Kind.CHANNEL]
        members, positions, settings, unread, last = await asyncio.gather(
            self._conversations.members_of(org, listed),
            self._positions.positions(org, listed),
            self._conversations.settings(org, list(mine), user),
            self._unread.counts(org, user, list(mine)),
            self._last(principal, list(mine)),
        )
        views: list[Conversation] = []
        for doc in docs:
            id = doc["id"]
            own, count = settings.get(id, NO_SETTINGS), unread.get(id)
            views.append(
                {
                    "id": id,
                    "kind": doc["kind"],
                    "title": doc["title"],
                    "topic": doc["topic"],
                    "members": [
                        member_view(each, positions.get(id, {}).get(each["user"]))
                        for each in members.get(id, ())
                    ],
                    "created_at": doc["created_at"],
                    "last_message": last.get(id),
                    "unread": count.shown if count is not None else 0,
                    "more": count is not None and count.more,
                    "mentions": min(count.mentions, MAX_UNREAD) if count is not None else 0,
                    "muted": own["muted"],
                    "archived": own["archived"],
                }
            )
        return views

    async def _last(self, principal: Principal, conversations: Sequence[str]) -> dict[str, Message]:
        """The last message of each conversation that the caller has not deleted."""
        org, user = principal.org, principal.user
        last = await self._last_messages.of(org, conversations)
        ids = [each.id for each in last.values()]
        hidden = await self._messages.hidden(org, ids, user)
        docs = list((await self._messages.get_many(org, ids)).values())
        visible = [doc for doc in docs if doc["id"] not in hidden]
        for conversation, each in last.items():
            if each.id in hidden:
                older = await self._messages.newest_visible(org, conversation, user, each.seq)
                if older is not None:
                    visible.append(older)
        views = await self._message_views.many(org, visible)
        return {view["conversation"]: view for view in views}

    # -- as all members see it ----------------------------------------------------------------

    async def shared(self, org: str, doc: Document) -> tuple[ConversationChange, list[Guard]]:
        """A conversation without what each member sees differently, as of its document; and what
        holds as long as those in it are its members.
        """
        view = change_of(doc)
        if doc["kind"] == Kind.CHANNEL:
            return {**view, "members": []}, []
        id = doc["id"]
        members = await self._conversations.members(org, id)
        positions = (await self._positions.positions(org, [id]))[id]
        view["members"] = [member_view(each, positions.get(each["user"])) for each in members]
        return view, are_members(id, members)

    # -- lists --------------------------------------------------------------------------------

    async def mine(
        self,
        principal: Principal,
        *,
        kind: ConversationKind | None,
        archived: bool | None,
        cursor: str | None,
        limit: int,
    ) -> Page[Conversation]:
        """The caller's conversations, those with the latest message first.

        One that gets a message while the pages are fetched moves to the front; the others keep
        their places.
        """
        org = principal.org
        ids = await self._memberships.listed(org, principal.user)
        last = await self._last_messages.of(org, ids)
        wanted = ids if kind is not None else [id for id in ids if id not in last]
        docs = await self._conversations.get_many(org, wanted)
        if kind is not None:
            ids = [id for id in ids if id in docs and docs[id]["kind"] == kind]
        if archived is not None:
            settings = await self._conversations.settings(org, ids, principal.user)
            ids = [id for id in ids if settings[id]["archived"] == archived]
        places = sorted(
            (
                (last[id].created_at if id in last else docs[id]["created_at"], id)
                for id in ids
                if id in last or id in docs
            ),
            reverse=True,
        )
        before = resume(cursor, "at", "id")
        if before is not None:
            places = [place for place in places if place < before]
        chosen, next = cut(places, limit, lambda place: {"at": place[0], "id": place[1]})
        page = [id for _, id in chosen]
        docs |= await self._conversations.get_many(org, [id for id in page if id not in docs])
        views = await self.many(principal, [docs[id] for id in page if id in docs])
        return {"items": views, "next": next}

    async def joinable(
        self, principal: Principal, *, cursor: str | None, limit: int
    ) -> Page[Conversation]:
        """The channels the caller could join, oldest first; none for a guest."""
        after = resume(cursor, "id")
        if not principal.role.at_least(Role.MEMBER):
            return {"items": [], "next": None}
        found: list[Document] = []
        size = max(limit + 1, STEP)
        more = True
        while more and len(found) <= limit:
            docs = await self._conversations.of_kind(
                principal.org, "channel", after=after, limit=size
            )
            more = len(docs) == size
            mine = await self._conversations.memberships(
                principal.org, [doc["id"] for doc in docs], principal.user
            )
            found += [doc for doc in docs if doc["id"] not in mine]
            after = docs[-1]["id"] if docs else after
        page, next = cut(found, limit, by_id)
        return {"items": await self.many(principal, page), "next": next}

    async def members(
        self, principal: Principal, conversation: str, *, cursor: str | None, limit: int
    ) -> Page[ConversationMember]:
        """Who is in a conversation the caller may know of, who joined first first."""
        await self.visible(principal, conversation)
        after = resume(cursor, "at", "id")
        found = await self._conversations.members(
            principal.org, conversation, after=after, limit=limit + 1
        )
        page, next = cut(found, limit, by_joining)
        reached = await self._positions.of_users(
            principal.org, conversation, [each["user"] for each in page]
        )
        return {
            "items": [member_view(each, reached.get(each["user"])) for each in page],
            "next": next,
        }
