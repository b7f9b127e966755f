"""Unread counts: what a user has still to read."""

from typing import NamedTuple

from pydantic import with_config
from typing_extensions import TypedDict

from domain.delivery import Delivery
from domain.events import EventType

NAMESPACE = "messages"

UNREAD_INTERVAL = 1.0
"""Seconds between two `unread.updated` of one conversation to one user."""


class Counts(NamedTuple):
    """What a user has not read in one conversation: messages of others that are not deleted."""

    unread: int
    mentions: int
    """How many of them mention the user."""


NONE = Counts(0, 0)


@with_config(extra="forbid")
class Unread(TypedDict):
    """What a user has not read in one conversation."""

    conversation: str
    unread: int
    mentions: int
    """How many of them mention the user."""
    total: int
    """Unread messages in all of the user's conversations together."""


UNREAD_UPDATED = EventType(
    "unread.updated",
    NAMESPACE,
    Delivery.LATEST,
    Unread,
    "What the user has not read in a conversation; sent to all of the user's devices.",
)

EVENTS: tuple[EventType, ...] = (UNREAD_UPDATED,)
