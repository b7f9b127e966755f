"""Commands about pinned messages."""

from actions.messaging.pins import Pins
from domain.messaging.messages import Message
from domain.pages import Page
from domain.rates import SECOND, Rate
from handlers.command import CommandSet, Route, command
from handlers.context import Context
from handlers.fields import Id, PageRequest
from handlers.messaging.history import OneMessage


class ListPins(PageRequest):
    """A page of pinned messages."""

    conversation: Id


class PinCommands(CommandSet):
    """`pin.add`, `pin.remove`, `pin.list`."""

    namespace = "/messages"

    def __init__(self, pins: Pins) -> None:
        self._pins = pins

    @command("pin.add", route=Route("PUT", "/messages/{message}/pin"), limit=Rate(20, SECOND))
    async def add(self, context: Context, request: OneMessage) -> Message:
        """Pin a message, for everyone in the conversation."""
        return await self._pins.add(context.principal, request.message)

    @command("pin.remove", route=Route("DELETE", "/messages/{message}/pin"), limit=Rate(20, SECOND))
    async def remove(self, context: Context, request: OneMessage) -> Message:
        """Take a message's pin away."""
        return await self._pins.remove(context.principal, request.message)

    @command("pin.list", route=Route("GET", "/conversations/{conversation}/pins"))
    async def list(self, context: Context, request: ListPins) -> Page[Message]:
        """List a conversation's pinned messages, last pinned first."""
        return await self._pins.page(
            context.principal,
            request.conversation,
            cursor=request.cursor,
            limit=request.limit,
        )
