"""Other people's accounts: finding them, and what administrators do to them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from actions.accounts.access import Authenticator
from actions.accounts.authority import Authority, appoints, without_key
from actions.accounts.resets import make_reset
from actions.accounts.sessions import Sessions
from actions.accounts.tokens import INVITE_PREFIX, random_token, token_hash
from domain.accounts.accounts import (
    INVITE_TTL,
    MAX_INVITES,
    Invite,
    PasswordReset,
    User,
    email_key,
    may_manage,
    normalize_email,
    public_view,
)
from domain.clock import Clock, timestamp
from domain.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from domain.ids import new_id
from domain.pages import Page, by_id, cut, resume
from domain.principals import Principal, Role
from store.accounts.accounts import AccountRepository
from store.accounts.sessions import SessionRepository

log = structlog.get_logger(__name__)

SEES_EMAILS = Role.TECHNICIAN
"""The least role that sees other people's addresses and searches by a part of them."""


class Users:
    """What can be done with the users of one's organization."""

    def __init__(
        self,
        accounts: AccountRepository,
        sessions: Sessions,
        authenticator: Authenticator,
        clock: Clock,
        keys: SessionRepository,
        *,
        takes_registrations: bool = True,
    ) -> None:
        self._keys = keys
        self._takes_registrations = takes_registrations
        self._accounts = accounts
        self._authority = Authority(accounts, keys, clock)
        self._sessions = sessions
        self._authenticator = authenticator
        self._clock = clock
        self.before_disabled: list[Callable[[str, str], Awaitable[None]]] = []
        """Called with organization and user before that one is disabled; who fails prevents it."""
        self.on_disabled: list[Callable[[], None]] = []
        """Called after somebody was disabled."""

    # -- finding ------------------------------------------------------------------------------

    async def get(self, principal: Principal, user: str) -> User:
        """One user.

        Raises:
            NotFound: there is none in the caller's organization.
        """
        return self._view(principal, await self._user(principal, user))

    async def many(self, principal: Principal, ids: Sequence[str]) -> Page[User]:
        """Users by id, in this order, each once; those who are not in the caller's organization
        are left out.
        """
        wanted = list(dict.fromkeys(ids))
        found = await self._accounts.users_by_id(principal.org, wanted)
        return {
            "items": [self._view(principal, found[id]) for id in wanted if id in found],
            "next": None,
        }

    async def search(
        self, principal: Principal, text: str, *, cursor: str | None, limit: int
    ) -> Page[User]:
        """Users whose name has words that begin with the text's, or whose email address is the
        text (for technicians and above: begins with it); all users without a text. Newest first.
        """
        org, text = principal.org, text.strip()
        after = resume(cursor, "id")
        found: dict[str, dict[str, Any]] = {}
        if not text:
            for each in await self._accounts.users(org, after=after, limit=limit + 1):
                found[each["id"]] = each
        else:
            for each in await self._accounts.users_by_name(org, text, after=after, limit=limit + 1):
                found[each["id"]] = each
            prefix = principal.role.at_least(SEES_EMAILS)
            if prefix or "@" in text:
                for each in await self._accounts.users_by_email(
                    org, text.casefold(), prefix=prefix, after=after, limit=limit + 1
                ):
                    found[each["id"]] = each
        page, next = cut([found[id] for id in sorted(found, reverse=True)], limit, by_id)
        return {"items": [self._view(principal, each) for each in page], "next": next}

    def _view(self, principal: Principal, doc: dict[str, Any]) -> User:
        with_email = doc["id"] == principal.user or principal.role.at_least(SEES_EMAILS)
        return public_view(doc, with_email=with_email)

    async def _user(self, principal: Principal, user: str) -> dict[str, Any]:
        found = await self._accounts.user(principal.org, user)
        if found is None:
            raise NotFound("There is no such user.")
        return found

    # -- administering ------------------------------------------------------------------------

    async def disable(self, principal: Principal, user: str) -> User:
        """Keep a user out from now on, on all devices. Twice is once.

        Raises:
            Forbidden: the caller's role is not above the user's.
            Conflict: it is the organization's last owner.
        """
        target = await self._managed(principal, user)
        if user == principal.user:
            raise Forbidden("Somebody else has to disable your account.")
        if target["role"] == Role.OWNER:
            await self._remove_owner(principal.org, user)
        for prepare in self.before_disabled:
            await prepare(principal.org, user)
        affected = await self._note(principal.org, user)
        at = timestamp(self._clock.now())
        changed = await self._accounts.update_user(
            principal.org, user, {"disabled_at": at}, where={"disabled_at": None}
        )
        await self._sessions.end_all(principal.org, user)
        self._tell(affected)
        for callback in self.on_disabled:
            callback()
        log.info("user_disabled", user=user, by=principal.user)
        return self._view(principal, changed or await self._user(principal, user))

    async def enable(self, principal: Principal, user: str) -> User:
        """Let a disabled user in again, who has to log in anew. Twice is once.

        Raises:
            Forbidden: the caller's role is not above the user's.
        """
        target = await self._managed(principal, user)
        affected = await self._note(principal.org, user)
        changed = await self._accounts.update_user(principal.org, user, {"disabled_at": None})
        if target["role"] == Role.OWNER:
            await self._add_owner(principal.org, user)
        self._tell(affected)
        log.info("user_enabled", user=user, by=principal.user)
        return self._view(principal, changed or target)

    async def set_role(self, principal: Principal, user: str, role: Role) -> User:
        """Give a user another role. Connections made with the old one are closed and may come
        back.

        Raises:
            Forbidden: the caller's role is not above the user's, or not above the new one; or that
                is an administrator's, and the caller came with an API key.
            Conflict: it is the organization's last owner, or somebody else changed the role.
        """
        target = await self._managed(principal, user)
        if not may_manage(principal.role, role):
            raise Forbidden("Nobody can give a role that is not below their own.")
        appoints(principal, role)
        # An owner is one from both changes on, and none from the first: a crash in between
        # leaves too few in the list of owners, never one who is none.
        if target["role"] == Role.OWNER and role is not Role.OWNER:
            await self._remove_owner(principal.org, user)
        affected = await self._note(principal.org, user)
        changed = await self._accounts.update_user(
            principal.org, user, {"role": role.value}, where={"role": target["role"]}
        )
        if changed is None:
            raise Conflict("Somebody else changed the role just now.")
        if role is Role.OWNER and changed["disabled_at"] is None:
            await self._add_owner(principal.org, user)
        self._tell(affected)
        log.info("role_changed", user=user, role=role.value, by=principal.user)
        return self._view(principal, changed)

    async def _note(self, org: str, user: str) -> list[str]:
        """Note that the access of a user changes, and with it that of the keys the user made."""
        keys = await self._keys.keys_made_by(org, user, timestamp(self._clock.now()))
        affected = [user, *(each["user"] for each in keys if each["kind"] == "agent")]
        for each in affected:
            await self._authenticator.note(each)
        return affected

    def _tell(self, affected: list[str]) -> None:
        for each in affected:
            self._authenticator.tell(each)

    async def _managed(self, principal: Principal, user: str) -> dict[str, Any]:
        target = await self._user(principal, user)
        if not may_manage(principal.role, Role(target["role"])):
            raise Forbidden("This user's role is not below yours.")
        return target

    async def _add_owner(self, org: str, user: str) -> None:
        while True:
            owners, version = await self._owners(org)
            if user in owners:
                return
            if await self._accounts.set_owners(org, [*owners, user], version):
                return

    async def _remove_owner(self, org: str, user: str) -> None:
        while True:
            owners, version = await self._owners(org)
            if user not in owners:
                return
            if len(owners) == 1:
                raise Conflict("This is the organization's last owner.")
            left = [each for each in owners if each != user]
            if await self._accounts.set_owners(org, left, version):
                return

    async def _owners(self, org: str) -> tuple[list[str], int]:
        found = await self._accounts.organization(org)
        if found is None:
            raise NotFound("There is no such organization.")
        return found["owners"], found["version"]

    async def invite(self, principal: Principal, email: str | None, role: Role) -> Invite:
        """Make an invitation to this organization. Its token is told once, here.

        Raises:
            Forbidden: the role is not below the caller's; or it is an administrator's, and the caller
                came with an API key.
            Conflict: nobody could use it: no registrations are taken, or the address has an account.
            TooLarge: the caller has made `MAX_INVITES` that can still be used.
        """
        if not may_manage(principal.role, role):
            raise Forbidden("Nobody can give a role that is not below their own.")
        if role is Role.OWNER:
            raise Invalid.field("role", "an owner is appointed, not invited")
        appoints(principal, role)
        if not self._takes_registrations:
            raise Conflict("This server takes no registrations: nobody could use the invitation.")
        address = normalize_email(email) if email is not None else None
        if address and await self._accounts.by_email(email_key(address)) is not None:
            raise Conflict("This address has an account already.")
        org, maker, now = principal.org, principal.user, self._clock.now()
        full = TooLarge(
            f"You have made {MAX_INVITES} invitations that can still be used, which is the most.",
            data={"limit": MAX_INVITES},
        )
        if await self._accounts.count_invites(org, maker, timestamp(now)) >= MAX_INVITES:
            raise full
        token = random_token(INVITE_PREFIX, principal.org)
        doc = {
            "id": new_id(),
            "hash": token_hash(token),
            "email": address,
            "role": role.value,
            "created_by": principal.user,
            "by_key": principal.session if principal.by_key else None,
            "created_at": timestamp(now),
            "expires_at": timestamp(now + INVITE_TTL),
            "used_by": None,
        }
        await self._accounts.add_invite(org, doc)
        # Others may have been made at the same moment: one that comes too late is taken back.
        if await self._accounts.count_invites(org, maker, timestamp(now)) > MAX_INVITES:
            await self._accounts.drop_invite(org, str(doc["id"]))
            raise full
        log.info("user_invited", invite=doc["id"], by=principal.user)
        view = _invite_view(doc)
        view["token"] = token
        return view

    async def invites(
        self, principal: Principal, *, cursor: str | None, limit: int
    ) -> Page[Invite]:
        """The organization's invitations that can be used, newest first; a page may have fewer than
        `limit` of them.
        """
        after = resume(cursor, "id")
        now = timestamp(self._clock.now())
        found = await self._accounts.invites(principal.org, now, after=after, limit=limit + 1)
        page, next = cut(found, limit, by_id)
        makers = {_made_by(each) for each in page}
        could = {each: await self._authority.could_give(principal.org, *each) for each in makers}
        return {
            "items": [_invite_view(each) for each in page if could[_made_by(each)]],
            "next": next,
        }

    async def revoke_invite(self, principal: Principal, invite: str) -> None:
        """Take an invitation back.

        Raises:
            NotFound: there is none, or it was used.
        """
        if not await self._accounts.drop_invite(principal.org, invite):
            raise NotFound("There is no such invitation.")
        log.info("invite_revoked", invite=invite, by=principal.user)

    async def reset_link(self, principal: Principal, user: str) -> PasswordReset:
        """A link with which a user sets a new password once. The one before it ends.

        Raises:
            Forbidden: the caller's role is not above the user's, or it came with an API key.
            Conflict: the user is disabled.
        """
        without_key(principal)
        target = await self._managed(principal, user)
        return await make_reset(self._accounts, self._clock, principal.org, target, principal.user)


def _made_by(invite: Mapping[str, Any]) -> tuple[str, Role, str | None]:
    return invite["created_by"], Role(invite["role"]), invite.get("by_key")


def _invite_view(doc: Mapping[str, Any]) -> Invite:
    return {
        "id": doc["id"],
        "email": doc["email"],
        "role": doc["role"],
        "created_at": doc["created_at"],
        "created_by": doc["created_by"],
        "expires_at": doc["expires_at"],
    }
