"""Unread counts: what a user has still to read."""

from typing import NamedTuple

from pydantic import with_config
from typing_extensions import TypedDict

from domain.delivery import Delivery
from domain.events import EventType

NAMESPACE = "messages"

UNREAD_INTERVAL = 1.0
"""Seconds between two `unread.updated` of one conversation to one user."""


MAX_UNREAD = 1000
"""How far a user's unread messages of one conversation are counted and told."""

COUNTED = MAX_UNREAD + 1
"""Where counting ends: so many stand for more than are told."""


class Counts(NamedTuple):
    """What a user has not read in one conversation: messages of others that are not deleted,
    counted up to `COUNTED`.
    """

    unread: int
    mentions: int
    """How many of them mention the user."""

    @property
    def shown(self) -> int:
        """As the user is told."""
        return min(self.unread, MAX_UNREAD)

    @property
    def more(self) -> bool:
        """Whether there are more than are told."""
        return self.unread > MAX_UNREAD


NONE = Counts(0, 0)


@with_config(extra="forbid")
class Unread(TypedDict):
    """What a user has not read in one conversation."""

    conversation: str
    unread: int
    """At most 1,000."""
    more: bool
    """Whether there are more than `unread` says."""
    mentions: int
    """How many of them mention the user, at most 1,000."""
    total: int
    """Unread messages in all of the user's conversations that are neither muted nor archived, of
    each at most 1,000.
    """


@with_config(extra="forbid")
class UnreadTotal(TypedDict):
    """What a user has not read in all conversations that are neither muted nor archived."""

    total: int
    """Of each conversation at most 1,000."""
    mentions: int
    """How many of them mention the user, of each conversation at most 1,000."""
    more: bool
    """Whether there are more than `total` says."""


UNREAD_UPDATED = EventType(
    "unread.updated",
    NAMESPACE,
    Delivery.LATEST,
    Unread,
    "What the user has not read in a conversation; sent to all of the user's devices.",
)

EVENTS: tuple[EventType, ...] = (UNREAD_UPDATED,)
