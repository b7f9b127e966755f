"""Other people's accounts: finding them, and what administrators do to them."""

from typing import Any

import structlog

from actions.access import Authenticator
from actions.sessions import Sessions
from actions.tokens import INVITE_PREFIX, random_token, token_hash
from domain.accounts import INVITE_TTL, Invite, User, may_manage, normalize_email, public_view
from domain.clock import Clock, timestamp
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.ids import new_id
from domain.pages import Page, decode_cursor, encode_cursor
from domain.principals import Principal, Role
from store.accounts import AccountRepository

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
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._authenticator = authenticator
        self._clock = clock

    # -- finding ------------------------------------------------------------------------------

    async def get(self, principal: Principal, user: str) -> User:
        """One user.

        Raises:
            NotFound: there is none in the caller's organization.
        """
        return self._view(principal, await self._user(principal, user))

    async def search(
        self, principal: Principal, text: str, *, cursor: str | None, limit: int
    ) -> Page[User]:
        """Users whose name has words that begin with the text's, or whose email address is the
        text (for technicians and above: begins with it); all users without a text. Newest first.
        """
        org, text = principal.org, text.strip()
        after = None if cursor is None else decode_cursor(cursor, {"id": str})["id"]
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
        ids = sorted(found, reverse=True)
        return {
            "items": [self._view(principal, found[id]) for id in ids[:limit]],
            "next": encode_cursor({"id": ids[limit - 1]}) if len(ids) > limit else None,
        }

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
        await self._authenticator.note(user)
        at = timestamp(self._clock.now())
        changed = await self._accounts.update_user(
            principal.org, user, {"disabled_at": at}, where={"disabled_at": None}
        )
        await self._sessions.end_all(principal.org, user)
        self._authenticator.tell(user)
        log.info("user_disabled", user=user, by=principal.user)
        return self._view(principal, changed or await self._user(principal, user))

    async def enable(self, principal: Principal, user: str) -> User:
        """Let a disabled user in again, who has to log in anew. Twice is once.

        Raises:
            Forbidden: the caller's role is not above the user's.
        """
        target = await self._managed(principal, user)
        await self._authenticator.note(user)
        changed = await self._accounts.update_user(principal.org, user, {"disabled_at": None})
        if target["role"] == Role.OWNER:
            await self._add_owner(principal.org, user)
        self._authenticator.tell(user)
        log.info("user_enabled", user=user, by=principal.user)
        return self._view(principal, changed or target)

    async def set_role(self, principal: Principal, user: str, role: Role) -> User:
        """Give a user another role. Connections made with the old one are closed and may come
        back.

        Raises:
            Forbidden: the caller's role is not above the user's, or not above the new one.
            Conflict: it is the organization's last owner, or somebody else changed the role.
        """
        target = await self._managed(principal, user)
        if not may_manage(principal.role, role):
            raise Forbidden("Nobody can give a role that is not below their own.")
        # An owner is one from both changes on, and none from the first: a crash in between
        # leaves too few in the list of owners, never one who is none.
        if target["role"] == Role.OWNER and role is not Role.OWNER:
            await self._remove_owner(principal.org, user)
        await self._authenticator.note(user)
        changed = await self._accounts.update_user(
            principal.org, user, {"role": role.value}, where={"role": target["role"]}
        )
        if changed is None:
            raise Conflict("Somebody else changed the role just now.")
        if role is Role.OWNER and changed["disabled_at"] is None:
            await self._add_owner(principal.org, user)
        self._authenticator.tell(user)
        log.info("role_changed", user=user, role=role.value, by=principal.user)
        return self._view(principal, changed)

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
            Forbidden: the role is not below the caller's.
        """
        if not may_manage(principal.role, role):
            raise Forbidden("Nobody can give a role that is not below their own.")
        if role is Role.OWNER:
            raise Invalid.field("role", "an owner is appointed, not invited")
        address = normalize_email(email) if email is not None else None
        now = self._clock.now()
        token = random_token(INVITE_PREFIX, principal.org)
        doc = {
            "id": new_id(),
            "hash": token_hash(token),
            "email": address,
            "role": role.value,
            "created_by": principal.user,
            "created_at": timestamp(now),
            "expires_at": timestamp(now + INVITE_TTL),
            "used_by": None,
        }
        await self._accounts.add_invite(principal.org, doc)
        log.info("user_invited", invite=doc["id"], by=principal.user)
        return {
            "id": str(doc["id"]),
            "token": token,
            "email": address,
            "role": role.value,
            "created_at": timestamp(now),
            "expires_at": timestamp(now + INVITE_TTL),
        }
