"""What the transport asks of the program behind it, and what it gives that program in return.

The transport knows Socket.IO and nothing of Parley; an `Application` knows its own events and
nothing of frames. Tests of the protocol put a small application of their own behind it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from domain.delivery import Delivery
from fanout.hub import Subscriber


class ConnectRefused(Exception):
    """Raised by `Application.connect`: the client gets `connect_error` with this message and data."""

    def __init__(self, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class Connection(Subscriber, Protocol):
    """One client in one namespace. Several may share one Engine.IO session."""

    id: str
    """The Socket.IO `sid` of this namespace connection, unique on this node."""
    namespace: str
    """With its leading slash, e.g. `/messages`."""
    state: Any
    """The application's own; the transport never looks at it."""

    @property
    def session_id(self) -> str:
        """The Engine.IO `sid`; the same for all namespaces one client opened on one transport."""
        ...

    @property
    def transport(self) -> str:
        """`websocket` or `polling`, as it is now."""
        ...

    @property
    def remote(self) -> str:
        """The peer's address, as the handshake request showed it."""
        ...

    @property
    def user_agent(self) -> str:
        """The handshake request's `User-Agent`, at most 256 characters."""
        ...

    def claim(self, user: str) -> bool:
        """Say whose connection it is, before `connect` returns. False: too many sessions are this
        user's already, and `connect` should refuse it.
        """
        ...

    def emit(
        self,
        event: str,
        *args: Any,
        delivery: Delivery = Delivery.DURABLE,
        key: str | None = None,
    ) -> None:
        """Send one event to this connection alone, in order with its acks and room events.

        `key` names the value that a newer LATEST event replaces. Never blocks; a connection
        already closed ignores it.
        """
        ...

    def close(self, code: str, *, reconnect: bool) -> None:
        """Emit `closing {code, reconnect}` in every namespace of the session, then end the session.

        What was queued before is still flushed, within a bounded time.
        """
        ...


class Application(Protocol):
    """The program behind the transport."""

    @property
    def namespaces(self) -> Collection[str]:
        """Any other namespace is refused with `Invalid namespace`."""
        ...

    async def connect(self, connection: Connection, auth: Any) -> None:
        """Accept (return) or refuse (raise `ConnectRefused`) a connection.

        The CONNECT reply leaves when this returns, before anything emitted to or through
        `connection` meanwhile. No event of this connection is handled before that.
        """
        ...

    async def event(
        self, connection: Connection, name: str, args: Sequence[Any]
    ) -> Sequence[Any] | None:
        """Handle one event; the result is sent as the ack's arguments if the client asked for one.

        Events of one session are handled one after the other, in the order sent.
        """
        ...

    def unreadable(self, connection: Connection, code: str, limit: int) -> Sequence[Any]:
        """The ack's arguments for an event of which only the head could be read: `code` is
        `invalid`, it is no JSON, or `too_large`, of which `limit` is the most bytes.
        """
        ...

    async def disconnect(self, connection: Connection, reason: str) -> None:
        """The connection is gone; called exactly once for each `connect` that returned."""
        ...
