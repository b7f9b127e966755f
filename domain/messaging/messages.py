"""Messages: what they are, their limits, which events tell of them."""

from typing import Any, Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from domain.delivery import Delivery
from domain.errors import Invalid, TooLarge
from domain.events import EventType
from domain.text import has_control_characters
from domain.uploads.pictures import ImageSize

NAMESPACE = "messages"

MAX_BODY = 16 * 1024
"""Bytes of a body in UTF-8."""

MAX_ATTACHMENTS = 20
MAX_MENTIONS = 50
MAX_PINS = 100
"""Pinned messages of one conversation."""

MAX_QUERY = 256
"""Characters of a search."""

MessageStatus = Literal["sent", "delivered", "read"]


@with_config(extra="forbid")
class Attachment(TypedDict):
    """A file that came with a message."""

    id: str
    name: str
    content_type: str
    size: int
    """Bytes."""
    url: str
    """Where to fetch it, with a token, relative to the server."""
    image: NotRequired[ImageSize]
    """Of a picture that can be shown: `?size=` gives thumbnails of it."""
    deleted: NotRequired[bool]
    """True once its owner has deleted the file: it cannot be fetched any more."""


@with_config(extra="forbid")
class Message(TypedDict):
    """A message. Deleted for everyone, it stays in its place without its content."""

    id: str
    conversation: str
    seq: int
    """Of its `message.created`."""
    sender: str
    body: str
    attachments: list[Attachment]
    reply_to: str | None
    """The message it answers."""
    thread: str | None
    """The message whose thread it is in."""
    mentions: list[str]
    """Members it speaks of."""
    created_at: str
    edited_at: str | None
    deleted_at: str | None
    version: int
    """1 at first, one more with each edit."""
    reactions: dict[str, int]
    """How many of each emoji."""
    status: MessageStatus
    """How far it has come with everybody but its sender; in channels always `sent`."""
    pinned_at: str | None
    pinned_by: str | None
    client_id: NotRequired[str]
    """Under which it was sent: in `message.created` as the sender's own connections hear it."""


@with_config(extra="forbid")
class MessageDeleted(TypedDict):
    """A message that is no longer there: in the conversation's stream for everyone, in a user's
    own stream for this user.
    """

    id: str
    conversation: str
    seq: int
    """The message's."""


MESSAGE_CREATED = EventType(
    "message.created", NAMESPACE, Delivery.DURABLE, Message, "Somebody sent a message."
)
MESSAGE_EDITED = EventType(
    "message.edited",
    NAMESPACE,
    Delivery.DURABLE,
    Message,
    "The sender changed a message's body or mentions, or deleted a file of it.",
)
MESSAGE_DELETED = EventType(
    "message.deleted",
    NAMESPACE,
    Delivery.DURABLE,
    MessageDeleted,
    "A message was deleted, for everyone or (in the user's own stream) for this user.",
)
MESSAGE_PINNED = EventType(
    "message.pinned", NAMESPACE, Delivery.DURABLE, Message, "Somebody pinned a message."
)
MESSAGE_UNPINNED = EventType(
    "message.unpinned", NAMESPACE, Delivery.DURABLE, Message, "A message is no longer pinned."
)

EVENTS: tuple[EventType, ...] = (
    MESSAGE_CREATED,
    MESSAGE_EDITED,
    MESSAGE_DELETED,
    MESSAGE_PINNED,
    MESSAGE_UNPINNED,
)


CARRIERS = frozenset(
    each.name for each in (MESSAGE_CREATED, MESSAGE_EDITED, MESSAGE_PINNED, MESSAGE_UNPINNED)
)
"""Names of the events that carry a whole message."""


def check_body(body: str) -> None:
    """Refuse what is no body. Text is kept exactly as sent.

    Raises:
        TooLarge: more than `MAX_BODY` bytes.
        Invalid: control characters other than newline and tab.
    """
    if len(body) * 4 > MAX_BODY and len(body.encode()) > MAX_BODY:
        raise TooLarge(f"A body may have at most {MAX_BODY} bytes.")
    if has_control_characters(body):
        raise Invalid.field("body", "control characters other than newline and tab")


def emptied(at: str) -> dict[str, Any]:
    """The fields of a message that are others once it was deleted for everyone at this time."""
    return {
        "body": "",
        "attachments": [],
        "mentions": [],
        "reactions": {},
        "deleted_at": at,
        "pinned_at": None,
        "pinned_by": None,
    }


def status_of(seq: int, delivered: int, read: int) -> MessageStatus:
    """A message's status, when everybody but its sender has come at least this far."""
    if read >= seq:
        return "read"
    return "delivered" if delivered >= seq else "sent"


def attachment_url(upload: str) -> str:
    """Where an upload is fetched."""
    return f"/api/v1/uploads/{upload}"
