"""Conversations: what they are, who is in them, which events tell of them."""

from enum import StrEnum
from typing import Literal

from pydantic import with_config
from typing_extensions import TypedDict

from domain.delivery import Delivery
from domain.errors import Invalid
from domain.events import EventType
from domain.messaging.messages import Message
from domain.text import why_not_plain

NAMESPACE = "messages"

MAX_TITLE = 200
"""Characters of a title."""

MAX_TOPIC = 1000
"""Characters of a topic."""

MAX_GROUP_MEMBERS = 1000
"""Members of a group, and members that any conversation may be created with."""

MAX_CHANNEL_MEMBERS = 100_000
"""Members of a channel; those beyond the first thousand join or are added one by one."""

MAX_OWNERS = 100
"""Owners of a conversation."""

MAX_BY_STRANGERS = 5_000
"""Conversations of a user beyond which those whom the user does not know add no more."""

MAX_CONVERSATIONS = 9_999
"""Conversations a user may be in: with the user's own stream as many as a connection may follow."""

MAX_LEFT = 100
"""Conversations that are left with one command."""

ConversationKind = Literal["direct", "group", "channel"]
MemberRole = Literal["owner", "member"]


class Kind(StrEnum):
    """What sort of conversation."""

    DIRECT = "direct"
    """Two people; there is one for each two."""
    GROUP = "group"
    """Some people, whom the owners add."""
    CHANNEL = "channel"
    """Open to everybody in the organization but guests, who are added."""


@with_config(extra="forbid")
class ConversationMember(TypedDict):
    """Somebody in a conversation, and how far this one has come in it."""

    user: str
    role: MemberRole
    joined_at: str
    read_seq: int
    delivered_seq: int


@with_config(extra="forbid")
class Conversation(TypedDict):
    """A conversation as one of its members sees it."""

    id: str
    kind: ConversationKind
    title: str | None
    topic: str | None
    members: list[ConversationMember]
    """Empty for a channel: its members come by page."""
    created_at: str
    last_message: Message | None
    unread: int
    """At most 1,000."""
    more: bool
    """Whether more is unread than `unread` says."""
    mentions: int
    """How many of the unread messages mention the user, at most 1,000."""
    muted: bool
    archived: bool


@with_config(extra="forbid")
class ConversationChange(TypedDict):
    """A conversation after a change. In its own stream it is as all members see it, and what may be
    another for each of them is null: `last_message`, `unread`, `more`, `mentions`, `muted`, `archived`. In a user's
    stream `muted` or `archived` is what changed, and what else is null did not.
    """

    id: str
    kind: ConversationKind
    title: str | None
    topic: str | None
    members: list[ConversationMember] | None
    created_at: str
    last_message: Message | None
    unread: int | None
    more: bool | None
    mentions: int | None
    muted: bool | None
    archived: bool | None


@with_config(extra="forbid")
class ConversationDeleted(TypedDict):
    """Which conversation is gone."""

    id: str


@with_config(extra="forbid")
class Refusal(TypedDict):
    """Why one of several things was not done."""

    code: str
    message: str


@with_config(extra="forbid")
class Left(TypedDict):
    """Whether one of several conversations was left; if not, why."""

    conversation: str
    ok: bool
    error: Refusal | None


@with_config(extra="forbid")
class AllLeft(TypedDict):
    """What came of leaving several conversations, in the order asked for."""

    items: list[Left]


@with_config(extra="forbid")
class MemberChange(TypedDict):
    """Who came, went, or has another role now."""

    conversation: str
    user: str
    role: MemberRole


CONVERSATION_CREATED = EventType(
    "conversation.created",
    NAMESPACE,
    Delivery.DURABLE,
    Conversation,
    "A conversation was opened; its first event.",
)
CONVERSATION_UPDATED = EventType(
    "conversation.updated",
    NAMESPACE,
    Delivery.DURABLE,
    ConversationChange,
    "Title or topic changed (in the conversation's stream), or the user's own muting or archiving "
    "(in the user's stream).",
)
CONVERSATION_DELETED = EventType(
    "conversation.deleted",
    NAMESPACE,
    Delivery.DURABLE,
    ConversationDeleted,
    "The conversation is gone, with all that was in it; its last event.",
)
MEMBER_ADDED = EventType(
    "member.added", NAMESPACE, Delivery.DURABLE, MemberChange, "Somebody joined or was added."
)
MEMBER_REMOVED = EventType(
    "member.removed", NAMESPACE, Delivery.DURABLE, MemberChange, "Somebody left or was removed."
)
MEMBER_UPDATED = EventType(
    "member.updated",
    NAMESPACE,
    Delivery.DURABLE,
    MemberChange,
    "A member has another role.",
)

EVENTS: tuple[EventType, ...] = (
    CONVERSATION_CREATED,
    CONVERSATION_UPDATED,
    CONVERSATION_DELETED,
    MEMBER_ADDED,
    MEMBER_REMOVED,
    MEMBER_UPDATED,
)


def stream_of(conversation: str) -> str:
    """The stream of a conversation's events."""
    return f"{NAMESPACE}/{conversation}"


def personal_stream(user: str) -> str:
    """The stream of what concerns one user alone, on all of this user's devices."""
    return f"{NAMESPACE}/{user}"


def clean_line(field: str, text: str | None, limit: int) -> str | None:
    """A title or topic as it is kept: without space around it, None instead of nothing.

    Raises:
        Invalid: it is too long, or no text that others can be shown (`why_not_plain`).
    """
    if text is None:
        return None
    text = text.strip()
    if len(text) > limit:
        raise Invalid.field(field, f"at most {limit} characters")
    if (wrong := why_not_plain(text)) is not None:
        raise Invalid.field(field, wrong)
    return text or None
