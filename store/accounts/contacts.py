"""Contacts and blocks: whom a user has in the address book, and whom nothing shall come from."""

from collections.abc import Sequence
from typing import NamedTuple

from store.accounts.accounts import USERS
from store.engine import Collection, Document, Duplicate, Engine, Guard, Index

CONTACTS = Collection("contacts", indexes=(Index(("owner", "user"), unique=True),))
"""`{id: "<owner>:<user>", owner, user, added_at}`."""

BLOCKS = Collection("blocks", indexes=(Index(("blocker", "blocked"), unique=True),))
"""`{id: "<blocker>:<blocked>", blocker, blocked, blocked_at}`."""

COLLECTIONS = (CONTACTS, BLOCKS)


def pair(one: str, other: str) -> str:
    """The id of what `one` keeps about `other`."""
    return f"{one}:{other}"


def unblocked(blocker: str, blocked: str) -> Guard:
    """Holds as long as `blocker` has not blocked `blocked`."""
    return Guard(BLOCKS, pair(blocker, blocked), absent=True)


class Relation(NamedTuple):
    """What one user keeps about another."""

    contact: Document | None
    block: Document | None


class ContactRepository:
    """Reads and writes contacts and blocks. Everything is idempotent."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def relations(self, org: str, owner: str, users: list[str]) -> dict[str, Relation]:
        """What the owner keeps about each of the users."""
        ids = [pair(owner, user) for user in users]
        contacts = await self._engine.get_many(org, CONTACTS, ids)
        blocks = await self._engine.get_many(org, BLOCKS, ids)
        return {
            user: Relation(contacts.get(id), blocks.get(id))
            for user, id in zip(users, ids, strict=True)
        }

    async def users(self, org: str, owner: str) -> list[str]:
        """All users among the owner's contacts."""
        found = await self._engine.find(
            org, CONTACTS, {"owner": owner}, order=("user",), limit=None
        )
        return [contact["user"] for contact in found]

    async def who_have(self, org: str, user: str, owners: Sequence[str]) -> set[str]:
        """Which of these have the user among their contacts."""
        ids = [pair(owner, user) for owner in owners]
        return {doc["owner"] for doc in (await self._engine.get_many(org, CONTACTS, ids)).values()}

    async def blocked(self, org: str, blocker: str) -> list[str]:
        """All users whom this one has blocked."""
        found = await self._engine.find(
            org, BLOCKS, {"blocker": blocker}, order=("blocked",), limit=None
        )
        return [block["blocked"] for block in found]

    async def people(self, org: str, users: list[str]) -> dict[str, Document]:
        """The accounts of users; those that are not there are left out."""
        return await self._engine.get_many(org, USERS, users)

    async def count_contacts(self, org: str, owner: str) -> int:
        """How many contacts the owner has."""
        return await self._engine.count(org, CONTACTS, {"owner": owner})

    async def count_blocks(self, org: str, blocker: str) -> int:
        """How many users the user has blocked."""
        return await self._engine.count(org, BLOCKS, {"blocker": blocker})

    async def add(self, org: str, owner: str, user: str, at: str) -> bool:
        """Add a contact; whether there was none yet."""
        doc: Document = {"id": pair(owner, user), "owner": owner, "user": user, "added_at": at}
        return await self._insert(org, CONTACTS, doc)

    async def _insert(self, org: str, collection: Collection, doc: Document) -> bool:
        try:
            await self._engine.insert(org, collection, doc)
        except Duplicate:
            return False
        return True

    async def remove(self, org: str, owner: str, user: str) -> bool:
        """Remove a contact; whether there was one."""
        return await self._engine.delete(org, CONTACTS, {"id": pair(owner, user)}) > 0

    async def block(self, org: str, blocker: str, blocked: str, at: str) -> bool:
        """Block a user; whether there was no block yet."""
        doc: Document = {
            "id": pair(blocker, blocked),
            "blocker": blocker,
            "blocked": blocked,
            "blocked_at": at,
        }
        return await self._insert(org, BLOCKS, doc)

    async def unblock(self, org: str, blocker: str, blocked: str) -> bool:
        """Lift a block; whether there was one."""
        return await self._engine.delete(org, BLOCKS, {"id": pair(blocker, blocked)}) > 0

    async def is_blocked(self, org: str, blocker: str, blocked: str) -> bool:
        """Whether `blocker` has blocked `blocked`."""
        return await self._engine.get(org, BLOCKS, pair(blocker, blocked)) is not None

    async def blockers(self, org: str, blocked: str, users: Sequence[str]) -> set[str]:
        """Which of the users have blocked `blocked`."""
        found = await self._engine.get_many(org, BLOCKS, [pair(user, blocked) for user in users])
        return {doc["blocker"] for doc in found.values()}
