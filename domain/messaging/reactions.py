"""Reactions: an emoji that somebody puts to a message."""

import re

import emoji as emojis
from pydantic import with_config
from typing_extensions import TypedDict

from domain.delivery import Delivery
from domain.errors import Invalid
from domain.events import EventType

NAMESPACE = "reactions"

MAX_KINDS = 20
"""Different emoji on one message."""

MAX_EMOJI = 66
"""Characters: those of the longest `:shortcode:`."""

_SHORTCODE = re.compile(r":[a-z0-9_+-]{1,64}:\Z")


_PRESENTATION = re.compile("[\ufe0e\ufe0f]")
"""Selectors of text or emoji style: they make no other emoji."""


def _bare(emoji: str) -> str:
    return _PRESENTATION.sub("", emoji)


_WHOLE = {
    _bare(each): each
    for each, data in emojis.EMOJI_DATA.items()
    if data["status"] == emojis.STATUS["fully_qualified"]
}
"""Fully qualified emoji by what they are without selectors; parts of emoji are not among them."""


@with_config(extra="forbid")
class Reaction(TypedDict):
    """One reaction, and how many of each emoji the message has with it, or without it."""

    message: str
    emoji: str
    user: str
    counts: dict[str, int]


@with_config(extra="forbid")
class ReactionGroup(TypedDict):
    """Who has reacted with one emoji."""

    emoji: str
    count: int
    """How many in all, also those on other pages."""
    users: list[str]


REACTION_ADDED = EventType(
    "reaction.added", NAMESPACE, Delivery.DURABLE, Reaction, "Somebody reacted to a message."
)
REACTION_REMOVED = EventType(
    "reaction.removed", NAMESPACE, Delivery.DURABLE, Reaction, "Somebody took a reaction back."
)

EVENTS: tuple[EventType, ...] = (REACTION_ADDED, REACTION_REMOVED)


def stream_of(conversation: str) -> str:
    """The stream of a conversation's reactions."""
    return f"{NAMESPACE}/{conversation}"


def canonical(emoji: str) -> str:
    """The one form in which an emoji is kept: fully qualified (UTS #51, ED-18), whatever selectors
    of presentation it came with; a `:shortcode:` as it is.

    Raises:
        Invalid: neither exactly one emoji nor a shortcode.
    """
    if _SHORTCODE.match(emoji):
        return emoji
    whole = _WHOLE.get(_bare(emoji)) if len(emoji) <= MAX_EMOJI else None
    if whole is None:
        raise Invalid.field("emoji", "exactly one emoji, or a shortcode like :party_parrot:")
    return whole
