"""Commands about what is unread."""

from actions.messaging.unread_totals import UnreadTotals
from domain.messaging.unread import UnreadTotal
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context


class UnreadCommands(CommandSet):
    """`unread.get`."""

    namespace = "/messages"

    def __init__(self, totals: UnreadTotals) -> None:
        self._totals = totals

    @command("unread.get", route=Route("GET", "/unread"))
    async def get(self, context: Context, request: Request) -> UnreadTotal:
        """Fetch how much you have not read, and how much of it mentions you, in all conversations
        that are neither muted nor archived. `ready` tells the same; `unread.updated` what changes.
        """
        return await self._totals.get(context.principal.org, context.principal.user)
