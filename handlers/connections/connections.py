"""Who is connected, for administrators."""

from pydantic import Field

from actions.connections.connections import Connections, ConnectionView
from domain.pages import Page
from domain.principals import Role
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context
from handlers.fields import Id, PageRequest
from handlers.streams.streams import Done


class ListConnections(PageRequest):
    """Whose connections."""

    user: Id | None = None


class CloseConnection(Request):
    """Which connection ends."""

    connection: str = Field(min_length=1, max_length=128)
    reconnect: bool = True


class ConnectionCommands(CommandSet):
    """`/connections`."""

    namespace = None

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @command("connection.list", route=Route("GET", "/connections"), role=Role.ADMIN, socket=False)
    async def list(self, context: Context, request: ListConnections) -> Page[ConnectionView]:
        """List the organization's connections on all nodes, or those of one user.

        Each namespace is a connection of its own. `unavailable` if a node does not answer.
        """
        return await self._connections.list(
            context.principal, user=request.user, cursor=request.cursor, limit=request.limit
        )

    @command(
        "connection.close",
        route=Route("DELETE", "/connections/{connection}", 204),
        role=Role.ADMIN,
        socket=False,
    )
    async def close(self, context: Context, request: CloseConnection) -> Done:
        """End a connection, and with it all namespaces of the same transport.

        The client hears `closing` with the code `revoked` and `reconnect` as given: it may come
        back unless it is told not to. Somebody who must stay out is disabled instead.
        """
        await self._connections.close(
            context.principal, request.connection, reconnect=request.reconnect
        )
        return {}
