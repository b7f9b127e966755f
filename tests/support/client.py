"""A Socket.IO client of few lines, over a raw websocket: nothing retried, nothing hidden.

    async with await connect(server.url, "/messages", token) as alice:
        message = await alice.call("message.send", {"conversation": id, ...})
        await alice.wait_for("message.created", lambda event: event["data"]["id"] == message["id"])
        await alice.cut()
        await alice.reconnect()

The official client is in `tests/support/node.py`.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from tests.support.declared import check_event
from tests.support.recorder import ConnectRefused, Recorder, unwrap


class Client(Recorder):
    """One namespace of one connection. `events` go on over `reconnect`."""

    def __init__(self, url: str, namespace: str, token: str | None) -> None:
        super().__init__()
        self.url = url
        self.namespace = namespace
        self.token = token
        self.sid: str | None = None
        """Of the namespace; None while not connected."""
        self.ready: dict[str, Any] = {}
        """The latest `ready` event's data."""
        self.wire: Wire
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._next_ack = 0
        self._connecting: asyncio.Future[Any] | None = None

    # -- commands -----------------------------------------------------------------------------

    async def call(self, command: str, data: Any = None, *, timeout: float = 10.0) -> Any:
        """Send a command; its answer's `data`.

        Raises:
            CommandFailed: the answer is an error.
            ConnectionError: the connection ended before the answer came.
        """
        return unwrap(command, await self.request(command, data, timeout=timeout))

    async def request(self, command: str, data: Any = None, *, timeout: float = 10.0) -> Any:
        """Send a command; its answer as it came, error or not."""
        return await asyncio.wait_for(self.send(command, data), timeout)

    def send(self, command: str, data: Any = None) -> "asyncio.Future[Any]":
        """Send a command at once; the future is its answer as it came.

        Commands sent one after the other leave in this order.
        """
        return self.send_text(command, orjson.dumps({} if data is None else data).decode())

    def send_text(self, command: str, text: str) -> "asyncio.Future[Any]":
        """As `send`, with `text` in place of the JSON of an object."""
        ack: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.sid is None:
            ack.set_exception(ConnectionError("not connected"))
            return ack
        number = self._next_ack
        self._next_ack += 1
        self._acks[number] = ack
        self.wire.send_raw(f'42{self._prefix}{number}["{command}",{text}]')
        return ack

    def emit(self, *args: Any) -> None:
        """Send an event that asks for no answer."""
        self.wire.send(f"42{self._prefix}", list(args))

    # -- life ---------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the namespace is connected."""
        return self.sid is not None

    @property
    def closing(self) -> Any:
        """The data of the latest `closing` event, or None."""
        told = self.named("closing")
        return told[-1] if told else None

    async def join(self, namespace: str, *, resume: dict[str, Any] | None = None) -> "Client":
        """Connect another namespace on the same connection."""
        other = Client(self.url, namespace, self.token)
        await other.attach(self.wire, resume)
        return other

    async def attach(
        self, wire: "Wire", resume: dict[str, Any] | None, timeout: float = 10
    ) -> None:
        """Connect the namespace on a connection, and wait for `ready`."""
        self.wire = wire
        wire.clients[self.namespace] = self
        auth: dict[str, Any] = {} if self.token is None else {"token": self.token}
        if resume is not None:
            auth["resume"] = resume
        since = self.mark()
        self._connecting = asyncio.get_running_loop().create_future()
        wire.send(f"40{self._prefix}", auth)
        self.sid = (await asyncio.wait_for(self._connecting, timeout))["sid"]
        self.ready = await self.wait_for("ready", since=since, timeout=timeout)

    async def cut(self) -> None:
        """Break the connection off, as a lost network does: nothing is said to the server."""
        await self.wire.cut()

    async def close(self) -> None:
        """Close the connection properly."""
        await self.wire.close()

    async def reconnect(self, *, resume: bool = True) -> None:
        """Connect anew; with `resume`, from where this client stands."""
        await self.close()
        wire = await Wire.open(self.url)
        try:
            await self.attach(wire, self.streams if resume else None)
        except BaseException:
            await wire.close()
            raise

    async def wait_closed(self, timeout: float = 10.0) -> None:
        """Wait for the end of the connection."""
        await self.until(lambda: not self.connected, timeout=timeout, what="end of the connection")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def record(self, name: str, data: Any) -> None:
        """Note an event; one that is not as declared ends the connection with an error."""
        if self.namespace != "/":
            check_event(self.namespace, name, data)
        super().record(name, data)

    # -- what the wire says -------------------------------------------------------------------

    @property
    def _prefix(self) -> str:
        return "" if self.namespace == "/" else f"{self.namespace},"

    def on_connect(self, data: Any) -> None:
        """CONNECT: the namespace is there."""
        if self._connecting is not None and not self._connecting.done():
            self._connecting.set_result(data)

    def on_refused(self, error: Any) -> None:
        """CONNECT_ERROR."""
        if self._connecting is not None and not self._connecting.done():
            self._connecting.set_exception(ConnectRefused(error))

    def on_ack(self, number: int, args: list[Any]) -> None:
        """ACK of one of our commands."""
        ack = self._acks.pop(number)
        if not ack.done():
            ack.set_result(args[0] if args else None)

    def on_end(self) -> None:
        """The namespace or the connection is gone."""
        self.sid = None
        error = ConnectionError("the connection ended")
        waiting = [*self._acks.values(), *([self._connecting] if self._connecting else [])]
        self._acks.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody has to ask for it
        self.notify()


class Wire:
    """One Engine.IO connection over a websocket, shared by the namespaces on it."""

    def __init__(
        self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse
    ) -> None:
        self.clients: dict[str, Client] = {}
        self.handshake: dict[str, Any] = {}
        """What the server said on opening: `sid`, `pingInterval`, `maxPayload`, …"""
        self._session = session
        self._socket = socket
        self._reading = asyncio.Event()
        self._reading.set()
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, url: str, *, headers: dict[str, str] | None = None) -> "Wire":
        """Connect and take the handshake. No namespace is connected yet."""
        session = aiohttp.ClientSession()
        try:
            socket = await session.ws_connect(
                f"{url}/socket.io/?EIO=4&transport=websocket",
                headers=headers,
                max_msg_size=0,
                autoping=True,
            )
            wire = cls(session, socket)
            opened = await socket.receive_str(timeout=10)
            assert opened.startswith("0"), f"no handshake: {opened!r}"
            wire.handshake = orjson.loads(opened[1:])
        except BaseException:
            await session.close()
            raise
        wire._tasks = [asyncio.create_task(wire._read()), asyncio.create_task(wire._write())]
        return wire

    def send(self, head: str, body: Any = None) -> None:
        """Queue a packet; packets leave in this order."""
        self.send_raw(head + ("" if body is None else orjson.dumps(body).decode()))

    def send_raw(self, text: str) -> None:
        """Queue a frame as it is, also one that breaks the protocol."""
        self._outgoing.put_nowait(text)

    def stop_reading(self) -> None:
        """Take nothing from the socket any more: a slow consumer. Pings stay unanswered."""
        self._reading.clear()

    def go_on_reading(self) -> None:
        """The end of `stop_reading`."""
        self._reading.set()

    async def cut(self) -> None:
        """Abort the TCP connection."""
        connection = self._socket._conn
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        await self.close()

    async def close(self) -> None:
        """Close the connection, if it is there; idempotent.

        Raises:
            AssertionError: the server had sent something that it must not.
        """
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(2):
                await self._socket.close()
        await self._session.close()
        self._ended()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await self._socket.send_str(await self._outgoing.get())

    async def _read(self) -> None:
        try:
            while True:
                await self._reading.wait()
                message = await self._socket.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._packet(message.data)
                elif message.type is not aiohttp.WSMsgType.BINARY:
                    return
        finally:
            self._ended()

    def _packet(self, text: str) -> None:
        kind, body = text[:1], text[1:]
        if kind == "2":
            self.send_raw("3")
        elif kind == "4":
            self._message(body[:1], body[1:])

    def _message(self, kind: str, body: str) -> None:
        namespace = "/"
        if body.startswith("/"):
            namespace, _, body = body.partition(",")
        client = self.clients.get(namespace)
        assert client is not None, f"a packet for {namespace}, where nobody connected"
        digits = len(body) - len(body.lstrip("0123456789"))
        number, payload = body[:digits], body[digits:]
        data: Any = orjson.loads(payload) if payload else None
        if kind == "0":
            client.on_connect(data)
        elif kind == "1":
            client.on_end()
        elif kind == "2":
            client.record(data[0], data[1] if len(data) > 1 else None)
        elif kind == "3":
            client.on_ack(int(number), data)
        elif kind == "4":
            client.on_refused(data)

    def _ended(self) -> None:
        for client in self.clients.values():
            if client.wire is self:
                client.on_end()


async def connect(
    url: str,
    namespace: str,
    token: str | None = None,
    *,
    resume: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Client:
    """Connect one namespace on a connection of its own, and wait for `ready`.

    Raises:
        ConnectRefused: the server answers `connect_error`.
    """
    wire = await Wire.open(url, headers=headers)
    client = Client(url, namespace, token)
    try:
        await client.attach(wire, resume)
    except BaseException:
        await wire.close()
        raise
    return client
