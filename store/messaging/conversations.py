"""Conversations, who is in them, and what each member has set for one.

Conversations and members are changed by appends to the conversation's stream alone; a user's
settings by appends to the user's own stream.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from domain.ids import key_digest, new_id
from domain.messaging.conversations import ConversationKind
from store.engine import (
    Change,
    Collection,
    Document,
    Engine,
    Guard,
    Index,
    Insert,
    Is,
    Update,
)
from store.scan import pages

CONVERSATIONS = Collection("conversations", indexes=(Index(("kind", "id")),))
"""`{id, kind, title, topic, created_at, created_by, owners, size, pins}`: `pins` is the number of
pinned messages (none where none was pinned since they are counted), `owners` is the number of
members who are owners (0 in a direct one, or when nobody is left), `size` that of all members. What
was made when there was but one has `owner` instead, that one's id or null: see `owners_of`. One that
was deleted stays, of the kind `DELETED` and without what was said of it, with `deleted_by`: it is
not made again by who asks once more."""

DELETED = "deleted"
"""The kind of what was a conversation."""

MEMBERS = Collection(
    "members",
    indexes=(
        Index(("user", "conversation")),
        Index(("conversation", "joined_at")),
        Index(("conversation", "role")),
    ),
)
"""`{id: "<conversation>:<user>", conversation, user, role, joined_at, joined_seq}`: `joined_seq` is
where the conversation's stream stood, so what was said before can be told apart."""

SETTINGS = Collection("conversation_settings")
"""`{id: "<conversation>:<user>", muted, archived}`."""

DIRECTS = Collection("direct_conversations")
"""`{id: <digest of the two>, conversation}`: which conversation is that of two users."""

CREATIONS = Collection("conversation_creations", indexes=(Index(("created_at",), any_org=True),))
"""`{id: <digest of user and client_id>, conversation, digest, created_at}`: what a `client_id`
stands for."""

COLLECTIONS = (CONVERSATIONS, MEMBERS, SETTINGS, DIRECTS, CREATIONS)

COUNTED_AT_ONCE = 50
"""Users whose conversations are counted at the same time."""

NO_SETTINGS: Mapping[str, bool] = {"muted": False, "archived": False}


class Creation(NamedTuple):
    """What a `client_id` was used for."""

    conversation: str
    digest: str


def key_of(conversation: str, user: str) -> str:
    """The id of what is kept of one user in one conversation."""
    return f"{conversation}:{user}"


def is_member(conversation: str, user: str) -> Guard:
    """Holds as long as the user is in the conversation."""
    return Guard(MEMBERS, f"{conversation}:{user}")


def has_role(conversation: str, user: str, role: str) -> Guard:
    """Holds as long as the user is in the conversation in this role."""
    return Guard(MEMBERS, key_of(conversation, user), {"role": role})


def is_no_member(conversation: str, user: str) -> Guard:
    """Holds as long as the user is not in the conversation."""
    return Guard(MEMBERS, key_of(conversation, user), absent=True)


def is_new(conversation: str) -> Guard:
    """Holds until the conversation is made."""
    return Guard(CONVERSATIONS, conversation, absent=True)


def is_as(conversation: str, **fields: str | int | None) -> Guard:
    """Holds as long as the conversation's document has these values."""
    return Guard(CONVERSATIONS, conversation, fields)


def has_room(conversation: str, most: int) -> Guard:
    """Holds as long as the conversation has less members than it may have."""
    return Guard(CONVERSATIONS, conversation, {"size": Is("<", most)})


def owners_of(conversation: Document) -> int:
    """The number of a conversation's owners, as of its document."""
    count = conversation.get("owners")
    if count is not None:
        return int(count)
    return 0 if conversation.get("owner") is None else 1


def is_owned_as(conversation: Document) -> Guard:
    """Holds as long as a conversation is there, with as many owners as its document says."""
    fields = {name: conversation.get(name) for name in ("kind", "owners", "owner")}
    return Guard(CONVERSATIONS, conversation["id"], fields)


def remains(conversation: str, kind: str) -> Guard:
    """Holds as long as a conversation of this kind is not deleted."""
    return Guard(CONVERSATIONS, conversation, {"kind": kind})


def bury(conversation: str, user: str) -> Update:
    """Makes a conversation one that a user has deleted."""
    gone = {"kind": DELETED, "title": None, "topic": None, "size": 0, "deleted_by": user}
    return Update(CONVERSATIONS, conversation, set={**gone, **count_owners(0)})


def count_owners(count: int) -> dict[str, int | None]:
    """Of a conversation's document: that it has so many owners."""
    return {"owners": count, "owner": None}


def are_members(conversation: str, members: Sequence[Document]) -> list[Guard]:
    """Hold as long as these documents are those of all members."""
    return [
        is_as(conversation, size=len(members)),
        *(
            Guard(MEMBERS, each["id"], {"role": each["role"], "joined_at": each["joined_at"]})
            for each in members
        ),
    ]


def add_member(conversation: str, user: str, role: str, at: str) -> Insert:
    """Puts somebody into a conversation."""
    return Insert(
        MEMBERS,
        {
            "id": key_of(conversation, user),
            "conversation": conversation,
            "user": user,
            "role": role,
            "joined_at": at,
            "joined_seq": 0,
        },
        stamp="joined_seq",
    )


def change_settings(conversation: str, user: str, values: Mapping[str, bool]) -> tuple[Change, ...]:
    """Changes some of a user's settings, leaving the others as they are."""
    id = key_of(conversation, user)
    return (Insert(SETTINGS, {"id": id, **NO_SETTINGS}), Update(SETTINGS, id, set=dict(values)))


class ConversationRepository:
    """Reads conversations and members; reserves the ids of new ones."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- conversations ------------------------------------------------------------------------

    async def get(self, org: str, id: str) -> Document | None:
        """One conversation; None if there is none, or it is deleted."""
        doc = await self.made(org, id)
        return doc if doc is not None and doc["kind"] != DELETED else None

    async def made(self, org: str, id: str) -> Document | None:
        """As `get`, also one that is deleted."""
        return await self._engine.get(org, CONVERSATIONS, id)

    async def is_deleted_by(self, org: str, id: str, user: str) -> bool:
        """Whether there was such a conversation, and this user has deleted it."""
        doc = await self.made(org, id)
        return doc is not None and doc["kind"] == DELETED and doc["deleted_by"] == user

    async def get_many(self, org: str, ids: Sequence[str]) -> dict[str, Document]:
        """Conversations by id; those that are deleted are left out."""
        found = await self._engine.get_many(org, CONVERSATIONS, ids)
        return {id: doc for id, doc in found.items() if doc["kind"] != DELETED}

    async def of_kind(
        self, org: str, kind: ConversationKind, *, after: str | None, limit: int
    ) -> list[Document]:
        """An organization's conversations of one kind, oldest first, behind the id `after`."""
        where: dict[str, Any] = {"kind": kind}
        if after is not None:
            where["id"] = Is(">", after)
        return await self._engine.find(org, CONVERSATIONS, where, order=("id",), limit=limit)

    # -- members ------------------------------------------------------------------------------

    async def member(self, org: str, conversation: str, user: str) -> Document | None:
        """One member."""
        return await self._engine.get(org, MEMBERS, key_of(conversation, user))

    async def members_by_key(self, org: str, keys: Sequence[str]) -> dict[str, Document]:
        """Members by `key_of`."""
        return await self._engine.get_many(org, MEMBERS, keys)

    async def memberships(
        self, org: str, conversations: Sequence[str], user: str
    ) -> dict[str, Document]:
        """One user's member documents by conversation."""
        ids = [key_of(each, user) for each in conversations]
        found = await self._engine.get_many(org, MEMBERS, ids)
        return {doc["conversation"]: doc for doc in found.values()}

    async def of_user(self, org: str, user: str) -> list[str]:
        """The ids of the conversations a user is in."""
        found = await self._engine.find(
            org, MEMBERS, {"user": user}, order=("conversation",), limit=None
        )
        return [doc["conversation"] for doc in found]

    async def crowded(self, org: str, users: Sequence[str], limit: int) -> list[str]:
        """Which of these users are in as many conversations as `limit`, or more."""
        found: list[str] = []
        for start in range(0, len(users), COUNTED_AT_ONCE):
            batch = users[start : start + COUNTED_AT_ONCE]
            counts = await asyncio.gather(
                *(self._engine.count(org, MEMBERS, {"user": user}) for user in batch)
            )
            found += [user for user, count in zip(batch, counts, strict=True) if count >= limit]
        return found

    async def of_users(self, org: str, users: Sequence[str]) -> dict[str, list[str]]:
        """As `of_user`, for several; all users are there."""
        if len(users) == 1:
            return {users[0]: await self.of_user(org, users[0])}
        lists: dict[str, list[str]] = {each: [] for each in users}
        where = {"user": Is("in", list(lists))}
        order = ("user", "conversation")
        for doc in await self._engine.find(org, MEMBERS, where, order=order, limit=None):
            lists[doc["user"]].append(doc["conversation"])
        return lists

    async def members(
        self,
        org: str,
        conversation: str,
        *,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Document]:
        """The members of a conversation, who joined first first, behind `(joined_at, id)`."""
        return await self._engine.find(
            org,
            MEMBERS,
            {"conversation": conversation},
            order=("joined_at", "id"),
            after=after,
            limit=limit,
        )

    def members_in_pages(
        self, org: str, conversation: str, size: int
    ) -> AsyncIterator[list[Document]]:
        """As `members`, all of them."""
        where = {"conversation": conversation}
        return pages(self._engine, org, MEMBERS, where, order=("joined_at", "id"), size=size)

    async def owners(self, org: str, conversation: str) -> list[Document]:
        """Those members who are owners, in no order."""
        where = {"conversation": conversation, "role": "owner"}
        return await self._engine.find(org, MEMBERS, where, limit=None)

    async def owned_by(self, org: str, user: str) -> list[str]:
        """The ids of the conversations that a user is an owner of."""
        found = await self._engine.find(
            org, MEMBERS, {"user": user, "role": "owner"}, order=("conversation",), limit=None
        )
        return [doc["conversation"] for doc in found]

    async def members_of(self, org: str, conversations: Sequence[str]) -> dict[str, list[Document]]:
        """The members of several conversations, each list by who joined first."""
        lists: dict[str, list[Document]] = {each: [] for each in conversations}
        if not lists:
            return lists
        where = {"conversation": Is("in", list(lists))}
        order = ("conversation", "joined_at", "id")
        for doc in await self._engine.find(org, MEMBERS, where, order=order, limit=None):
            lists[doc["conversation"]].append(doc)
        return lists

    # -- settings -----------------------------------------------------------------------------

    async def settings(
        self, org: str, conversations: Sequence[str], user: str
    ) -> dict[str, Mapping[str, bool]]:
        """What a user has set, by conversation; all conversations are there."""
        ids = {each: key_of(each, user) for each in conversations}
        found = await self._engine.get_many(org, SETTINGS, list(ids.values()))
        return {each: found.get(id, NO_SETTINGS) for each, id in ids.items()}

    # -- ids of new ones ----------------------------------------------------------------------

    async def reserve_direct(self, org: str, one: str, other: str) -> str:
        """The id of the conversation of two users, whether it is made yet or not."""
        id = key_digest(org, *sorted((one, other)))
        doc = await self._engine.insert_or_get(org, DIRECTS, {"id": id, "conversation": new_id()})
        return str(doc["conversation"])

    async def directs(self, org: str, user: str, others: Sequence[str]) -> dict[str, Document]:
        """The conversations of a user with others, by the other; those not made are left out."""
        ids = {key_digest(org, *sorted((user, each))): each for each in others}
        found = await self._engine.get_many(org, DIRECTS, list(ids))
        reserved = {doc["conversation"]: ids[id] for id, doc in found.items()}
        made = await self.get_many(org, list(reserved))
        return {reserved[id]: doc for id, doc in made.items()}

    async def creation(self, org: str, user: str, client_id: str) -> Creation | None:
        """What a user's `client_id` was used for, if it was."""
        doc = await self._engine.get(org, CREATIONS, key_digest(org, user, client_id))
        return Creation(doc["conversation"], doc["digest"]) if doc is not None else None

    async def reserve_creation(
        self, org: str, user: str, client_id: str, creation: Creation, at: str
    ) -> Creation:
        """What a user's `client_id` stands for: `creation`, or what it was used for before."""
        doc = await self._engine.insert_or_get(
            org,
            CREATIONS,
            {
                "id": key_digest(org, user, client_id),
                "conversation": creation.conversation,
                "digest": creation.digest,
                "created_at": at,
            },
        )
        return Creation(doc["conversation"], doc["digest"])

    async def forget_creations(self, before: str) -> int:
        """Remove reservations of `client_id`s older than a time; returns how many."""
        return await self._engine.delete_any_org(CREATIONS, {"created_at": Is("<", before)})
