"""A TCP proxy, for tests that listen in on connections, hold them up or leave something out."""

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Self

MakeSocket = Callable[[], socket.socket]

Carry = Callable[[bytes], Awaitable[bytes]]
"""Given what one side says, piece by piece, and b"" when it has ended: what the other side gets."""


async def carry_all(data: bytes) -> bytes:
    """Everything, at once."""
    return data


class Proxy(ABC):
    """A proxy before a server. Runs in the test's event loop."""

    def __init__(
        self, port: int, host: str = "127.0.0.1", make_socket: MakeSocket = socket.socket
    ) -> None:
        """`make_socket`: makes the sockets towards the server."""
        self._server = (host, port)
        self._make_socket = make_socket
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where clients reach the server through it, on 127.0.0.1."""
        assert self._listener is not None
        return int(self._listener.sockets[0].getsockname()[1])

    @abstractmethod
    def carries(self) -> tuple[Carry, Carry]:
        """For a new connection: what carries to the server, and what carries to the client."""

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        to_server, to_client = self.carries()
        try:
            raw = self._make_socket()
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, self._server)
            answers, out = await asyncio.open_connection(sock=raw)
            self._writers.add(out)
            await asyncio.gather(_pump(reader, out, to_server), _pump(answers, writer, to_client))
        finally:
            self._tasks.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, carry: Carry) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            if told := await carry(data):
                writer.write(told)
                await writer.drain()
    writer.write(await carry(b""))
    writer.close()
