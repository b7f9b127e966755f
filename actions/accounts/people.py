"""Who there is in an organization, for actions that speak of others."""

from collections.abc import Collection, Sequence
from typing import Protocol

from domain.errors import NotFound


class People(Protocol):
    """Who there is in an organization (`store.accounts.accounts`)."""

    async def existing(self, org: str, users: Sequence[str]) -> Collection[str]:
        """Which of these are users of the organization who are not disabled."""
        ...

    async def known(self, org: str, users: Sequence[str]) -> Collection[str]:
        """Which of these are users of the organization, disabled or not."""
        ...


async def require_users(
    people: People, org: str, users: Sequence[str], *, disabled: bool = False
) -> None:
    """Refuse ids of which the organization has no user.

    Args:
        disabled: those who are disabled are users too.

    Raises:
        NotFound: names the first.
    """
    found = await (people.known if disabled else people.existing)(org, users)
    for user in users:
        if user not in found:
            raise NotFound(f"There is no user {user}.")
