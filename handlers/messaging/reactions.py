"""Commands about reactions."""

from pydantic import Field

from actions.messaging.reactions import Reactions
from domain.messaging.reactions import MAX_EMOJI, Reaction, ReactionGroup
from domain.pages import Page
from domain.rates import SECOND, Rate
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context
from handlers.fields import Id, PageRequest


class React(Request):
    """A message, and one emoji or `:shortcode:`."""

    message: Id
    emoji: str = Field(min_length=1, max_length=MAX_EMOJI)


class ListReactions(PageRequest):
    """A page of a message's reactions."""

    message: Id


class ReactionCommands(CommandSet):
    """`reaction.add`, `reaction.remove`, `reaction.list`."""

    namespace = "/reactions"

    def __init__(self, reactions: Reactions) -> None:
        self._reactions = reactions

    @command(
        "reaction.add",
        route=Route("POST", "/messages/{message}/reactions"),
        limit=Rate(20, SECOND),
    )
    async def add(self, context: Context, request: React) -> Reaction:
        """React to a message with an emoji.

        Twice the same is the same. A message may have 20 kinds of reactions. The answer has the
        emoji as it is kept: fully qualified. In a direct conversation whoever is blocked cannot
        react.
        """
        return await self._reactions.add(context.principal, request.message, request.emoji)

    @command(
        "reaction.remove",
        route=Route("DELETE", "/messages/{message}/reactions"),
        limit=Rate(20, SECOND),
    )
    async def remove(self, context: Context, request: React) -> Reaction:
        """Take your reaction with an emoji back."""
        return await self._reactions.remove(context.principal, request.message, request.emoji)

    @command("reaction.list", route=Route("GET", "/messages/{message}/reactions"))
    async def list(self, context: Context, request: ListReactions) -> Page[ReactionGroup]:
        """List who has reacted to a message, by emoji.

        A page has `limit` reactions; the users of one emoji may go on on the next page.
        """
        return await self._reactions.page(
            context.principal, request.message, cursor=request.cursor, limit=request.limit
        )
