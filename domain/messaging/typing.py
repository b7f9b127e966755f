"""Who is writing something at this moment."""

from pydantic import with_config
from typing_extensions import TypedDict

from domain.delivery import Delivery
from domain.events import EventType

NAMESPACE = "messages"

TYPING_ENDS = 6.0
"""Seconds after which typing ends by itself unless it is started again."""

TYPING_REPEATS = 3.0
"""Seconds within which a repeated start is not told again. Shorter than `TYPING_ENDS`, so that
whoever missed the first, or came later, learns of it while it lasts."""


@with_config(extra="forbid")
class Typing(TypedDict):
    """Whether a member is writing something in a conversation."""

    conversation: str
    user: str
    typing: bool


TYPING_CHANGED = EventType(
    "typing.changed",
    NAMESPACE,
    Delivery.VOLATILE,
    Typing,
    "A member has begun or ceased to write something. Repeated while it goes on; without a "
    "repetition it is over after 6 seconds.",
)

EVENTS: tuple[EventType, ...] = (TYPING_CHANGED,)
