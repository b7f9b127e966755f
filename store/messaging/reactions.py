"""Who has reacted to which message, and how many of each emoji a message has.

Both are changed by appends to the conversation's stream of reactions alone.
"""

from collections.abc import Mapping, Sequence

from store.engine import Change, Collection, Delete, Document, Engine, Guard, Index, Insert, Put

REACTIONS = Collection("reactions", indexes=(Index(("message", "emoji", "user")),))
"""`{id: "<message>:<emoji>:<user>", message, conversation, emoji, user, at}`."""

REACTION_COUNTS = Collection("reaction_counts")
"""`{id: <message>, conversation, counts: {<emoji>: n}, version}`: `version` grows by one with
each change."""

COLLECTIONS = (REACTIONS, REACTION_COUNTS)


def reaction_id(message: str, emoji: str, user: str) -> str:
    """The id of one user's reaction with one emoji."""
    return f"{message}:{emoji}:{user}"


def is_new(message: str, emoji: str, user: str) -> Guard:
    """Holds until the user reacts to the message with this emoji."""
    return Guard(REACTIONS, reaction_id(message, emoji, user), absent=True)


def is_there(message: str, emoji: str, user: str) -> Guard:
    """Holds as long as the user's reaction with this emoji is there."""
    return Guard(REACTIONS, reaction_id(message, emoji, user))


def counted(message: str, version: int) -> Guard:
    """Holds as long as the message's counts are those of a version; 0 is before the first."""
    if version == 0:
        return Guard(REACTION_COUNTS, message, absent=True)
    return Guard(REACTION_COUNTS, message, {"version": version})


def add(message: str, conversation: str, emoji: str, user: str, at: str) -> Change:
    """Stores a reaction."""
    return Insert(
        REACTIONS,
        {
            "id": reaction_id(message, emoji, user),
            "message": message,
            "conversation": conversation,
            "emoji": emoji,
            "user": user,
            "at": at,
        },
    )


def remove(message: str, emoji: str, user: str) -> Change:
    """Takes a reaction away."""
    return Delete(REACTIONS, reaction_id(message, emoji, user))


def count(message: str, conversation: str, counts: Mapping[str, int], version: int) -> Change:
    """Stores a message's counts as of a version."""
    return Put(
        REACTION_COUNTS,
        {
            "id": message,
            "conversation": conversation,
            "counts": dict(counts),
            "version": version,
        },
    )


class ReactionRepository:
    """Reads reactions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def counts(self, org: str, messages: Sequence[str]) -> dict[str, dict[str, int]]:
        """How many of each emoji, by message; messages nobody reacted to are left out."""
        found = await self._engine.get_many(org, REACTION_COUNTS, messages)
        return {id: doc["counts"] for id, doc in found.items()}

    async def counted(self, org: str, message: str) -> tuple[dict[str, int], int]:
        """One message's counts and their version."""
        doc = await self._engine.get(org, REACTION_COUNTS, message)
        return (doc["counts"], doc["version"]) if doc is not None else ({}, 0)

    async def exists(self, org: str, message: str, emoji: str, user: str) -> bool:
        """Whether a user has reacted to a message with an emoji."""
        id = reaction_id(message, emoji, user)
        return await self._engine.get(org, REACTIONS, id) is not None

    async def page(
        self, org: str, message: str, *, after: tuple[str, str] | None, limit: int
    ) -> list[Document]:
        """Reactions to a message by emoji and user, behind `(emoji, user)`."""
        return await self._engine.find(
            org,
            REACTIONS,
            {"message": message},
            order=("emoji", "user", "id"),
            after=(*after, reaction_id(message, *after)) if after is not None else None,
            limit=limit,
        )
