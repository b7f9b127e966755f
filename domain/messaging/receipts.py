"""Receipts: how far each member has come in a conversation."""

from typing import Literal

from pydantic import with_config
from typing_extensions import TypedDict

from domain.delivery import Delivery
from domain.events import EventType

NAMESPACE = "messages"

MAX_RESENT = 200
"""Positions of one conversation that a client which comes back is sent again, the newest first."""

ReceiptKind = Literal["delivered", "read"]


@with_config(extra="forbid")
class Position(TypedDict):
    """How far one member has come in one conversation. Read implies delivered."""

    conversation: str
    user: str
    delivered_seq: int
    """Everything up to this seq has reached one of the member's devices; 0 for nothing."""
    delivered_at: str | None
    read_seq: int
    """Everything up to this seq was read; 0 for nothing."""
    read_at: str | None


@with_config(extra="forbid")
class MemberStatus(TypedDict):
    """When one message reached one member, and when this member read it."""

    user: str
    delivered_at: str | None
    read_at: str | None


RECEIPT_UPDATED = EventType(
    "receipt.updated",
    NAMESPACE,
    Delivery.LATEST,
    Position,
    "A member has come further in a conversation. In a channel only the member's own devices "
    "are told.",
)

EVENTS: tuple[EventType, ...] = (RECEIPT_UPDATED,)


def nowhere(conversation: str, user: str) -> Position:
    """The position of a member of whom nothing has been heard yet."""
    return {
        "conversation": conversation,
        "user": user,
        "delivered_seq": 0,
        "delivered_at": None,
        "read_seq": 0,
        "read_at": None,
    }


def moved(position: Position, kind: ReceiptKind, seq: int, at: str) -> Position | None:
    """The position after something up to `seq` was delivered or read at a time; None if it moves
    nothing. A position never moves back, and what is read is delivered.
    """
    delivered = seq > position["delivered_seq"]
    read = kind == "read" and seq > position["read_seq"]
    if not (delivered or read):
        return None
    further = position.copy()
    if delivered:
        further["delivered_seq"], further["delivered_at"] = seq, at
    if read:
        further["read_seq"], further["read_at"] = seq, at
    return further
