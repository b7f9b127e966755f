"""What stands behind the sockets: authentication, the declared commands, and the coming and going
of clients. The transport knows nothing of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import structlog
from pydantic import Field

from actions.connections.clients import Client, Clients
from actions.streams.streams import Position, Streams
from domain.clock import Clock, timestamp
from domain.errors import (
    Internal,
    Invalid,
    NotFound,
    ParleyError,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from domain.principals import Principal
from handlers.command import Command, Registry, Request
from handlers.context import Context
from handlers.dispatcher import Dispatcher, validate
from handlers.streams.streams import KnownStreams
from server.transport.application import Connection, ConnectRefused
from server.transport.packets import MAX_ATTACHMENTS

log = structlog.get_logger(__name__)

Authenticate = Callable[[str, str], Awaitable[Principal]]
"""The principal of a token shown by a network address; raises `Unauthenticated`, `RateLimited`."""

TOO_MANY = "This user has too many connections: end some of them."
TOO_MANY_SECONDS = 15.0
"""Until another attempt makes sense: connections that are dead but not found so yet go by then."""


class Credentials(Request):
    """Who connects to a namespace."""

    token: str = Field(min_length=1, max_length=8192)


class Resume(Request):
    """Where a client stands that was here before."""

    resume: KnownStreams = Field(default_factory=dict)


Greeting = Callable[[Client], Awaitable[Mapping[str, Any]]]
"""What `ready` tells a client besides."""


class Follower(Protocol):
    """A feature that wants to know of clients' coming and going."""

    async def entered(self, client: Client, resumed: Collection[str]) -> None:
        """A client is in, after `ready`; it said where it stood in the streams of `resumed`."""
        ...

    async def left(self, client: Client) -> None:
        """A client has gone."""
        ...


class Gateway:
    """The application behind the transport."""

    def __init__(
        self,
        authenticate: Authenticate,
        registry: Registry,
        dispatcher: Dispatcher,
        streams: Streams,
        clients: Clients,
        followers: Sequence[Follower],
        clock: Clock,
        greetings: Mapping[str, Greeting] | None = None,
    ) -> None:
        """`greetings`: by namespace."""
        self.namespaces: Collection[str] = frozenset(registry.namespaces)
        self._authenticate = authenticate
        self._registry = registry
        self._dispatcher = dispatcher
        self._streams = streams
        self._clients = clients
        self._followers = followers
        self._clock = clock
        self._greetings = greetings or {}

    async def connect(self, connection: Connection, auth: Any) -> None:
        """Authenticate, join the client's streams, send what it missed, then `ready`."""
        try:
            principal = await self._authenticate(_credentials(auth).token, connection.remote)
            if not connection.claim(principal.user):
                raise RateLimited(TOO_MANY, retry_after=TOO_MANY_SECONDS)
            await self._enter(connection, principal, _resume(auth))
        except ParleyError as error:
            raise _refusal(error) from error
        except asyncio.CancelledError as error:
            if _ends():
                raise
            log.warning("connect_cancelled", namespace=connection.namespace)
            raise _refusal(Unavailable("It was cut off here: try again.")) from error
        except Exception as error:
            log.exception("connect_failed", namespace=connection.namespace)
            raise _refusal(Internal("Something went wrong here; it has been logged.")) from error

    async def _enter(
        self, connection: Connection, principal: Principal, resume: Mapping[str, Position]
    ) -> None:
        namespace = connection.namespace.removeprefix("/")
        client = Client(connection.id, namespace, principal, connection)
        self._clients.add(client)
        connection.state = client

        greeting = self._greetings.get(namespace)
        more: dict[str, Any] = {}

        async def greet() -> None:
            if greeting is not None:
                more.update(await greeting(client))

        def ready(streams: Any) -> None:
            connection.emit(
                "ready",
                {
                    "connection": client.id,
                    "user": principal.user,
                    "server_time": timestamp(self._clock.now()),
                    "streams": streams,
                    **more,
                },
            )

        try:
            await self._streams.enter(client, resume, ready, greet)
            for follower in self._followers:
                await follower.entered(client, resume.keys())
        except BaseException:
            await self._leave(client)
            connection.state = None
            raise

    async def event(
        self, connection: Connection, name: str, args: Sequence[Any]
    ) -> Sequence[Any] | None:
        """Carry out a command; the ack is `{ok, data}` or `{ok, error}`."""
        client: Client = connection.state
        command = self._registry.find(connection.namespace, name)
        try:
            if command is None:
                raise NotFound(f"There is no command {name[:64]!r} in {connection.namespace}.")
            return ({"ok": True, "data": await self._run(command, connection, client, args)},)
        except ParleyError as error:
            return ({"ok": False, "error": error.to_wire()},)
        except asyncio.CancelledError:
            if _ends():
                raise
            # What the command waited for was given up by others.
            log.warning("command_cancelled", command=name[:64], connection=client.id)
            cut_off = Unavailable("The command was cut off here: try again.")
            return ({"ok": False, "error": cut_off.to_wire()},)

    def unreadable(self, connection: Connection, code: str, limit: int) -> Sequence[Any]:
        """The ack for an event that could not be read."""
        error: ParleyError
        if code == "too_large":
            error = TooLarge(f"An event may have at most {limit} bytes.", data={"limit": limit})
        else:
            error = Invalid(
                "The event cannot be read: it is not JSON (RFC 8259; half of a surrogate pair, NaN and "
                "Infinity are not), it has no name or one that Socket.IO keeps for itself, or its "
                f"attachments are not base64, not the ones it speaks of, or more than {MAX_ATTACHMENTS}."
            )
        return ({"ok": False, "error": error.to_wire()},)

    async def _run(
        self, command: Command, connection: Connection, client: Client, args: Sequence[Any]
    ) -> Any:
        if len(args) > 1:
            raise Invalid("A command takes one object.")
        context = Context(
            client.principal,
            request_id=client.id,
            remote=connection.remote,
            user_agent=connection.user_agent,
            client=client,
        )
        return await self._dispatcher.run(command, context, args[0] if args else None)

    async def disconnect(self, connection: Connection, reason: str) -> None:
        """Forget the client."""
        client: Client = connection.state
        log.debug("client_left", connection=client.id, reason=reason)
        try:
            await self._leave(client)
        finally:
            connection.state = None  # each would keep the other

    async def _leave(self, client: Client) -> None:
        self._streams.exit(client)
        self._clients.remove(client)
        client.closed()
        for follower in self._followers:
            try:
                await follower.left(client)
            except ParleyError as error:
                log.warning("leave_incomplete", connection=client.id, code=error.code)


def _ends() -> bool:
    """Whether it is the running task itself that is cancelled, not only what it waited for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _credentials(auth: Any) -> Credentials:
    """Looked at first: what a stranger wants to resume is nobody's business yet."""
    if not isinstance(auth, dict) or not auth.get("token"):
        raise Unauthenticated("Connect with auth: {token}.")
    return validate(Credentials, {name: auth[name] for name in auth if name != "resume"})


def _resume(auth: dict[str, Any]) -> Mapping[str, Position]:
    if "resume" not in auth:
        return {}
    return validate(Resume, {"resume": auth["resume"]}).resume


def _refusal(error: ParleyError) -> ConnectRefused:
    return ConnectRefused(error.message, error.to_wire())
