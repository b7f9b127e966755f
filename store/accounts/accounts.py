"""Organizations, users and invitations.

An email address belongs to one user of the whole server: whoever stores the claim on it first.
Claims belong to no organization (`SERVER`), since that is what makes them unique.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from store.engine import Collection, Document, Duplicate, Engine, Filter, Index, Is, Unindexed

SERVER = "*"
"""In place of an organization, for what belongs to the server as a whole."""

ORGANIZATIONS = Collection("organizations")
"""`{id, name, created_at, owners, version}`; `owners` decides who is one, so that two owners
cannot take it from each other at the same moment."""

EMAILS = Collection("emails", fields=("user",))
"""`{id: key of the address, org_id, user, claimed_at}`, in `SERVER`."""

USERS = Collection(
    "users",
    indexes=(Index(("email",), unique=True),),
    text="name",
    unindexed=(
        Unindexed(("email",), ("-id",), "those whose address begins so, for administrators alone"),
    ),
)
"""`{id, email, name, role, avatar, settings, password, password_at, created_at, disabled_at}`."""

INVITES = Collection(
    "invites",
    indexes=(
        Index(("hash",), unique=True),
        Index(("created_by", "used_by", "expires_at")),
        Index(("expires_at",), any_org=True),
    ),
    unindexed=(
        Unindexed(
            ("used_by", "expires_at"), ("-id",), "invitations that are in force, a few days each"
        ),
    ),
)
"""`{id, hash, email, role, created_by, by_key, created_at, expires_at, used_by}`; `by_key` is the API
key with which its maker came in, if it was one."""

RESETS = Collection(
    "password_resets",
    indexes=(
        Index(("hash",), unique=True),
        Index(("user",)),
        Index(("expires_at",), any_org=True),
    ),
)
"""`{id, hash, user, created_by, created_at, expires_at, used_at}`."""

COLLECTIONS = (ORGANIZATIONS, EMAILS, USERS, INVITES, RESETS)


class Account(NamedTuple):
    """A user and the organization it belongs to."""

    org: str
    user: Document


class AccountRepository:
    """Reads and writes accounts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- organizations ------------------------------------------------------------------------

    async def organization(self, org: str) -> Document | None:
        """One organization."""
        return await self._engine.get(org, ORGANIZATIONS, org)

    async def ensure_organization(self, org: str, name: str, at: str) -> Document:
        """The organization, made if it is not there."""
        doc = {"id": org, "name": name, "created_at": at, "owners": [], "version": 0}
        return await self._engine.insert_or_get(org, ORGANIZATIONS, doc)

    async def set_owners(self, org: str, owners: list[str], version: int) -> bool:
        """Change who owns the organization; False if it changed since `version`."""
        changed = await self._engine.update(
            org,
            ORGANIZATIONS,
            org,
            set={"owners": owners},
            inc={"version": 1},
            where={"version": version},
        )
        return changed is not None

    # -- email addresses ----------------------------------------------------------------------

    async def claim_email(self, key: str, org: str, user: str, at: str) -> Document | None:
        """Claim an address for a user about to be stored; the claim that is there, if one is."""
        doc = {"id": key, "org_id": org, "user": user, "claimed_at": at}
        there = await self._engine.insert_or_get(SERVER, EMAILS, doc)
        return None if there["user"] == user else there

    async def drop_claim(self, claim: Document) -> None:
        """Give an address free whose user never came to be."""
        await self._engine.delete(SERVER, EMAILS, {"id": claim["id"], "user": claim["user"]})

    # -- users --------------------------------------------------------------------------------

    async def add_user(self, org: str, doc: Document) -> bool:
        """Store a new user, whose address is claimed; False if the address is there already."""
        try:
            await self._engine.insert(org, USERS, doc)
        except Duplicate:
            return False
        return True

    async def user(self, org: str, user: str) -> Document | None:
        """One user of the organization."""
        return await self._engine.get(org, USERS, user)

    async def users_by_id(self, org: str, users: Sequence[str]) -> dict[str, Document]:
        """Users of the organization by id; others are left out."""
        return await self._engine.get_many(org, USERS, users)

    async def existing(self, org: str, users: Sequence[str]) -> set[str]:
        """Which of these ids are users of the organization who are not disabled."""
        found = await self._engine.get_many(org, USERS, users)
        return {user for user, doc in found.items() if doc["disabled_at"] is None}

    async def known(self, org: str, users: Sequence[str]) -> set[str]:
        """Which of these ids are users of the organization, disabled or not."""
        return set(await self._engine.get_many(org, USERS, users))

    async def by_email(self, key: str) -> Account | None:
        """Whose address it is, by the address's key, in whichever organization."""
        claim = await self._engine.get(SERVER, EMAILS, key)
        if claim is None:
            return None
        user = await self.user(claim["org_id"], claim["user"])
        return Account(claim["org_id"], user) if user is not None else None

    async def update_user(
        self, org: str, user: str, change: Mapping[str, Any], where: Filter | None = None
    ) -> Document | None:
        """Change a user; None, and nothing changed, if there is none or `where` does not hold."""
        return await self._engine.update(org, USERS, user, set=change, where=where)

    async def users(self, org: str, *, after: str | None, limit: int) -> list[Document]:
        """The organization's users, newest first, behind the id `after`."""
        where = {} if after is None else {"id": Is("<", after)}
        return await self._engine.find(org, USERS, where, order=("-id",), limit=limit)

    async def users_by_name(
        self, org: str, text: str, *, after: str | None, limit: int
    ) -> list[Document]:
        """Users whose name has words that begin so, newest first, behind the id `after`."""
        return await self._engine.search(org, USERS, text, {}, limit=limit, before=after)

    async def users_by_email(
        self, org: str, email: str, *, prefix: bool, after: str | None, limit: int
    ) -> list[Document]:
        """Users with this address, or whose address begins so, newest first, behind `after`."""
        where: dict[str, Any] = {"email": Is("prefix", email) if prefix else email}
        if after is not None:
            where["id"] = Is("<", after)
        return await self._engine.find(org, USERS, where, order=("-id",), limit=limit)

    # -- invitations --------------------------------------------------------------------------

    async def add_invite(self, org: str, doc: Document) -> None:
        """Store a new invitation."""
        await self._engine.insert(org, INVITES, doc)

    async def count_invites(self, org: str, maker: str, now: str) -> int:
        """How many invitations somebody made that can be used."""
        where: Filter = {"created_by": maker, "used_by": None, "expires_at": Is(">", now)}
        return await self._engine.count(org, INVITES, where)

    async def invite(self, org: str, hash: str) -> Document | None:
        """The invitation with this token's hash."""
        found = await self._engine.find(org, INVITES, {"hash": hash}, limit=1)
        return found[0] if found else None

    async def use_invite(self, org: str, invite: str, user: str) -> bool:
        """Use an invitation up; False if somebody did already."""
        used = await self._engine.update(
            org, INVITES, invite, set={"used_by": user}, where={"used_by": None}
        )
        return used is not None

    async def invites(self, org: str, now: str, *, after: str | None, limit: int) -> list[Document]:
        """Invitations that can be used, newest first, behind the id `after`."""
        where: dict[str, Any] = {"used_by": None, "expires_at": Is(">", now)}
        if after is not None:
            where["id"] = Is("<", after)
        return await self._engine.find(org, INVITES, where, order=("-id",), limit=limit)

    async def drop_invite(self, org: str, invite: str) -> bool:
        """Take an invitation back; False if there is none, or it was used."""
        return await self._engine.delete(org, INVITES, {"id": invite, "used_by": None}) > 0

    async def trim_invites(self, before: str) -> int:
        """Forget invitations that ended before a time."""
        return await self._engine.delete_any_org(INVITES, {"expires_at": Is("<", before)})

    # -- reset links --------------------------------------------------------------------------

    async def drop_resets(self, org: str, user: str) -> None:
        """Forget the reset links of a user."""
        await self._engine.delete(org, RESETS, {"user": user})

    async def add_reset(self, org: str, doc: Document) -> None:
        """Store a new reset link, in place of those the user has."""
        await self.drop_resets(org, doc["user"])
        await self._engine.insert(org, RESETS, doc)

    async def reset(self, org: str, hash: str) -> Document | None:
        """The reset link with this token's hash."""
        found = await self._engine.find(org, RESETS, {"hash": hash}, limit=1)
        return found[0] if found else None

    async def use_reset(self, org: str, reset: str, at: str) -> bool:
        """Use a reset link up; False if somebody did already."""
        used = await self._engine.update(
            org, RESETS, reset, set={"used_at": at}, where={"used_at": None}
        )
        return used is not None

    async def trim_resets(self, before: str) -> int:
        """Forget reset links that ended before a time."""
        return await self._engine.delete_any_org(RESETS, {"expires_at": Is("<", before)})
