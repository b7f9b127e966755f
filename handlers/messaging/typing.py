"""`typing.*`: over sockets only."""

from pydantic import Field

from actions.messaging.typing import Typing
from domain.rates import SECOND, Rate
from handlers.command import CommandSet, Request, command
from handlers.context import Context
from handlers.streams.streams import Done


class TypingIn(Request):
    """Where somebody writes."""

    conversation: str = Field(min_length=1, max_length=64)


class TypingCommands(CommandSet):
    """`typing.start`, `typing.stop`."""

    namespace = "/messages"

    def __init__(self, typing: Typing) -> None:
        self._typing = typing

    @command("typing.start", limit=Rate(10, SECOND))
    async def start(self, context: Context, request: TypingIn) -> Done:
        """Tell the others in a conversation that the caller writes something.

        It ends by itself after 6 seconds: send it again every few seconds while the user types.
        The connection must follow the conversation's stream, as it does by itself.
        """
        await self._typing.start(context.client, request.conversation)
        return {}

    @command("typing.stop", limit=Rate(10, SECOND))
    async def stop(self, context: Context, request: TypingIn) -> Done:
        """Tell the others that the caller no longer writes."""
        self._typing.stop(context.client, request.conversation)
        return {}
