"""What a command knows of its caller besides the request."""

from actions.connections.clients import Client
from domain.errors import Unauthenticated
from domain.principals import Principal


class Context:
    """One call. Made by the server for each command, over a socket or REST."""

    __slots__ = ("_client", "_principal", "remote", "request_id", "user_agent")

    def __init__(
        self,
        principal: Principal | None,
        *,
        request_id: str,
        remote: str,
        user_agent: str = "",
        client: Client | None = None,
    ) -> None:
        self._principal = principal
        self._client = client
        self.request_id = request_id
        self.remote = remote
        """The caller's network address."""
        self.user_agent = user_agent

    @property
    def principal(self) -> Principal:
        """The authenticated caller.

        Raises:
            Unauthenticated: there is none.
        """
        if self._principal is None:
            raise Unauthenticated("A token is needed.")
        return self._principal

    @property
    def anonymous(self) -> bool:
        """Whether nobody is authenticated."""
        return self._principal is None

    @property
    def door(self) -> str:
        """`socket` or `rest`: over which the command came."""
        return "rest" if self._client is None else "socket"

    @property
    def client(self) -> Client:
        """The socket connection the command came over.

        Raises:
            RuntimeError: the command came over REST; one that needs a socket has no route.
        """
        if self._client is None:
            raise RuntimeError("this command came over no socket")
        return self._client

    @property
    def connection(self) -> str | None:
        """The id of the socket connection, None over REST."""
        return self._client.id if self._client is not None else None
