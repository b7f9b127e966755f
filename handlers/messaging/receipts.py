"""Commands about how far messages have come."""

from pydantic import Field

from actions.messaging.receipts import Receipts
from domain.messaging.receipts import MemberStatus, Position, ReceiptKind
from domain.pages import Page
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context
from handlers.fields import Id, PageRequest


class Reached(Request):
    """A place in a conversation."""

    conversation: Id
    seq: int = Field(ge=0, le=2**53)


class StatusOf(PageRequest):
    """A page of members' states of one message."""

    message: Id


class MarkMessage(Request):
    """What became of a message, and of all before it."""

    message: Id
    status: ReceiptKind


class ReceiptCommands(CommandSet):
    """`message.delivered`, `message.read`, `message.status`, and its `PUT`."""

    namespace = "/messages"

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    @command("message.delivered", route=Route("PUT", "/conversations/{conversation}/delivered"))
    async def delivered(self, context: Context, request: Reached) -> Position:
        """Tell that everything up to a seq has reached a device of yours.

        Answers where you stand, which never moves back and never beyond the stream's end.
        """
        return await self._receipts.move(
            context.principal, request.conversation, "delivered", request.seq
        )

    @command("message.read", route=Route("PUT", "/conversations/{conversation}/read"))
    async def read(self, context: Context, request: Reached) -> Position:
        """Tell that you have read everything up to a seq. What is read is delivered.

        Answers where you stand, which never moves back and never beyond the stream's end. The
        unread counts on all your devices follow.
        """
        return await self._receipts.move(
            context.principal, request.conversation, "read", request.seq
        )

    @command("message.status", route=Route("GET", "/messages/{message}/status"))
    async def status(self, context: Context, request: StatusOf) -> Page[MemberStatus]:
        """List when a message reached each member but its sender, and when each read it."""
        return await self._receipts.status(
            context.principal, request.message, cursor=request.cursor, limit=request.limit
        )

    @command("message.mark", route=Route("PUT", "/messages/{message}/status"))
    async def mark(self, context: Context, request: MarkMessage) -> Position:
        """Tell that a message, and all before it, has been delivered to you or read by you."""
        return await self._receipts.mark(context.principal, request.message, request.status)
