"""Whether somebody still may do what they once did: credentials that people give to others, keys,
invitations, reset links, are good for as long as their makers could make them.
"""

from collections.abc import Mapping
from typing import Any

from domain.accounts.accounts import may_manage
from domain.clock import Clock, timestamp
from domain.errors import Forbidden
from domain.principals import KEY_ID_PREFIX, Principal, Role
from store.accounts.accounts import AccountRepository
from store.accounts.sessions import SessionRepository

MAKES = Role.ADMIN
"""The least role that makes keys, invitations and reset links."""


def without_key(principal: Principal) -> None:
    """Return if the caller is logged in.

    Raises:
        Forbidden: it came with an API key, which must not outlive its own end by what it makes, or
            take its owner's account.
    """
    if principal.by_key:
        raise Forbidden("An API key cannot do this; log in.")


def appoints(principal: Principal, role: Role) -> None:
    """Return if the caller may give somebody this role, as far as it matters how the caller came in.

    Raises:
        Forbidden: it came with an API key, and whoever has the role makes keys.
    """
    if principal.by_key and role.at_least(MAKES):
        raise Forbidden("An API key appoints no administrators; log in.")


class Authority:
    """Looks up what somebody may do now."""

    def __init__(self, accounts: AccountRepository, keys: SessionRepository, clock: Clock) -> None:
        self._accounts = accounts
        self._keys = keys
        self._clock = clock

    async def role(self, org: str, who: str) -> Role | None:
        """The role of a user, or of an agent's key, now; None if it is not let in."""
        if not who.startswith(KEY_ID_PREFIX):
            user = await self._accounts.user(org, who)
            return Role(user["role"]) if user and user["disabled_at"] is None else None
        key = await self._keys.key(org, who)
        return await self.of_key(org, key) if key is not None else None

    def _has_ended(self, key: Mapping[str, Any]) -> bool:
        ends = key["expires_at"]
        return key["revoked_at"] is not None or (
            ends is not None and ends <= timestamp(self._clock.now())
        )

    async def of_key(self, org: str, key: Mapping[str, Any]) -> Role | None:
        """The role of an agent's key that was looked up; None if it ended, or its maker could not
        make it now.
        """
        if self._has_ended(key):
            return None
        role = Role(key["role"])
        return role if await self.could_give(org, key["created_by"], role) else None

    async def could_give(self, org: str, maker: str, role: Role, by_key: str | None = None) -> bool:
        """Whether the maker could give a role away now, by a key if it came with that."""
        if by_key is not None:
            key = await self._keys.key(org, by_key)
            if key is None or self._has_ended(key):
                return False
        own = await self.role(org, maker)
        return own is not None and own.at_least(MAKES) and may_manage(own, role)
