"""Who there is in an organization, for actions that speak of others."""

from collections.abc import Collection, Sequence
from typing import Protocol

from domain.errors import NotFound


class People(Protocol):
    """Who there is in an organization (`store.accounts`)."""

    async def existing(self, org: str, users: Sequence[str]) -> Collection[str]:
        """Which of these are users of the organization who are not disabled."""
        ...


async def require_users(people: People, org: str, users: Sequence[str]) -> None:
    """Refuse ids of which the organization has no user.

    Raises:
        NotFound: names the first.
    """
    found = await people.existing(org, users)
    for user in users:
        if user not in found:
            raise NotFound(f"There is no user {user}.")
