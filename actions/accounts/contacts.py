"""Contacts and blocks. The other user is never told of either."""

from collections.abc import Callable

from domain.accounts.contacts import MAX_BLOCKS, MAX_CONTACTS, Contact, matches, search_words
from domain.clock import Clock, timestamp
from domain.errors import Invalid, NotFound, TooLarge
from domain.pages import Page, cut, resume
from domain.principals import Principal
from store.accounts.accounts import AccountRepository
from store.accounts.contacts import ContactRepository, Relation
from store.engine import Document

OnBlock = Callable[[str, str, str, bool], None]
"""(org, blocker, blocked, whether the block is there now)."""


class Contacts:
    """What a user can do with contacts."""

    def __init__(
        self, contacts: ContactRepository, accounts: AccountRepository, clock: Clock
    ) -> None:
        self._contacts = contacts
        self._accounts = accounts
        self._clock = clock
        self.on_block: list[OnBlock] = []
        """Called after a block was made or lifted."""

    async def list(
        self, principal: Principal, q: str | None, blocked: bool, cursor: str | None, limit: int
    ) -> Page[Contact]:
        """The caller's contacts by name, or with `blocked` the users blocked by the caller.

        Args:
            q: words that each begin a word of the name, regardless of case and accents.
        """
        after = resume(cursor, "name", "user")
        org, owner = principal.org, principal.user
        # By name, which belongs to the accounts: there are `MAX_CONTACTS` to sort at most.
        kept = self._contacts.blocked if blocked else self._contacts.users
        users = await self._contacts.people(org, await kept(org, owner))
        wanted = search_words(q) if q is not None else []
        found = sorted(
            (user["name"].casefold(), id)
            for id, user in users.items()
            if matches(user["name"], wanted)
        )
        if after is not None:
            found = [each for each in found if each > after]
        page, next = cut(found, limit, lambda each: {"name": each[0], "user": each[1]})
        chosen = [id for _, id in page]
        relations = await self._contacts.relations(org, owner, chosen)
        return {"items": [view(users[id], relations[id]) for id in chosen], "next": next}

    async def add(self, principal: Principal, user: str) -> Contact:
        """Put a user into the caller's contacts; one that is there already stays.

        Raises:
            NotFound: the organization has no such user.
            Invalid: it is the caller.
            TooLarge: there are `MAX_CONTACTS` already.
        """
        other = await self._other(principal, user)
        org, owner = principal.org, principal.user
        there = (await self._contacts.relations(org, owner, [user]))[user].contact is not None
        if not there:
            full = TooLarge(f"You may have at most {MAX_CONTACTS} contacts.")
            if await self._contacts.count_contacts(org, owner) >= MAX_CONTACTS:
                raise full
            added = await self._contacts.add(org, owner, user, self._now())
            # Others may have been added at the same moment: who comes too late takes it back.
            if added and await self._contacts.count_contacts(org, owner) > MAX_CONTACTS:
                await self._contacts.remove(org, owner, user)
                raise full
        return await self._now_kept(principal, other)

    async def remove(self, principal: Principal, user: str) -> Contact:
        """Take a user out of the caller's contacts; a block stays.

        Raises:
            NotFound: the organization has no such user.
        """
        other = await self._other(principal, user)
        await self._contacts.remove(principal.org, principal.user, user)
        return await self._now_kept(principal, other)

    async def block(self, principal: Principal, user: str) -> Contact:
        """Let a user open no direct conversation with the caller, and send in none.

        Raises:
            NotFound: the organization has no such user.
            Invalid: it is the caller.
            TooLarge: there are `MAX_BLOCKS` already.
        """
        other = await self._other(principal, user)
        org, blocker = principal.org, principal.user
        there = (await self._contacts.relations(org, blocker, [user]))[user].block is not None
        if not there:
            full = TooLarge(f"You may have blocked at most {MAX_BLOCKS} users.")
            if await self._contacts.count_blocks(org, blocker) >= MAX_BLOCKS:
                raise full
            added = await self._contacts.block(org, blocker, user, self._now())
            if added and await self._contacts.count_blocks(org, blocker) > MAX_BLOCKS:
                await self._contacts.unblock(org, blocker, user)
                raise full
        for callback in self.on_block:
            callback(org, blocker, user, True)
        return await self._now_kept(principal, other)

    async def unblock(self, principal: Principal, user: str) -> Contact:
        """Lift the caller's block of a user.

        Raises:
            NotFound: the organization has no such user.
        """
        other = await self._other(principal, user)
        await self._contacts.unblock(principal.org, principal.user, user)
        for callback in self.on_block:
            callback(principal.org, principal.user, user, False)
        return await self._now_kept(principal, other)

    async def _other(self, principal: Principal, user: str) -> Document:
        if user == principal.user:
            raise Invalid.field("user", "is yourself")
        doc = await self._accounts.user(principal.org, user)
        if doc is None:
            raise NotFound("There is no such user.")
        return doc

    async def _now_kept(self, principal: Principal, other: Document) -> Contact:
        id = other["id"]
        relations = await self._contacts.relations(principal.org, principal.user, [id])
        return view(other, relations[id])

    def _now(self) -> str:
        return timestamp(self._clock.now())


def view(user: Document, relation: Relation) -> Contact:
    """A user as the caller's contact, in wire form."""
    return {
        "user": user["id"],
        "name": user["name"],
        "avatar": user["avatar"],
        "disabled": user["disabled_at"] is not None,
        "added_at": relation.contact["added_at"] if relation.contact is not None else None,
        "blocked": relation.block is not None,
    }
