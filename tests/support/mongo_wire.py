"""A proxy before MongoDB that fails at a chosen command: for tests of what a crash leaves behind."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

import bson

Fault = Literal["before", "after", "hold"]
"""At the chosen command: cut all connections for good before the server gets it, or when it has
answered and the answer is not yet passed on; or keep it back until `release`."""

IGNORED = {"hello", "ismaster", "ping", "endSessions", "killCursors", "buildInfo"}


class WireProxy:
    """Counts the commands of its clients. Runs in the test's event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._dead = False
        self._at = 0
        self._fault: Fault = "before"
        self._only: str | None = None
        self.commands: list[str] = []
        """Names of the commands since `arm`."""
        self.bodies: list[Mapping[str, Any]] = []
        """What each of them said, but for the documents it brought."""
        self.pooled = 0
        """Connections that commands came over, of all there ever were."""
        self.reached = asyncio.Event()
        """The chosen command came."""
        self._released = asyncio.Event()

    async def __aenter__(self) -> "WireProxy":
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._released.set()
        self._listener.close()
        self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        """Host and port."""
        assert self._listener is not None
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def arm(self, at: int, fault: Fault, only: str | None = None) -> None:
        """Fail at the command that is number `at` from now on, the first being 1. With `only`,
        commands of other names are not counted.
        """
        self._only = only
        self.commands.clear()
        self.bodies.clear()
        self.reached.clear()
        self._released.clear()
        self._at, self._fault = at, fault

    def release(self) -> None:
        """Let what was kept back go on."""
        self._released.set()

    def _cut(self) -> None:
        self._dead = True
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._forward(reader, writer)
        finally:
            writer.close()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._dead:
            return
        upstream, out = await asyncio.open_connection(*self._server)
        self._writers.add(out)
        pooled = False
        try:
            while not self._dead:
                request = await _message(reader)
                count = len(self.commands)
                chosen = self._is_chosen(request)
                if not pooled and len(self.commands) > count:
                    pooled = True
                    self.pooled += 1
                if chosen and self._fault == "hold":
                    self.reached.set()
                    await self._released.wait()
                if chosen and self._fault == "before":
                    self._fail()
                if self._dead:
                    return
                out.write(request)
                reply = await _message(upstream)
                if chosen and self._fault == "after":
                    self._fail()
                if self._dead:
                    return
                writer.write(reply)
        finally:
            out.close()
            self._writers.discard(out)

    def _is_chosen(self, request: bytes) -> bool:
        body = _command(request)
        if body is None:
            return False
        name = next(iter(body))
        if name in IGNORED or self._only not in {None, name}:
            return False
        self.commands.append(name)
        self.bodies.append(body)
        return len(self.commands) == self._at

    def _fail(self) -> None:
        self.reached.set()
        self._cut()


async def _message(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(4)
    (size,) = struct.unpack("<i", header)
    return header + await reader.readexactly(size - 4)


def _command(message: bytes) -> Mapping[str, Any] | None:
    (code,) = struct.unpack_from("<i", message, 12)
    if code != 2013 or message[20] != 0:
        return None
    (size,) = struct.unpack_from("<i", message, 21)
    return bson.decode(message[21 : 21 + size])


@contextlib.asynccontextmanager
async def wire_proxy(url: str) -> AsyncIterator[tuple[WireProxy, str]]:
    """A proxy before the server of a URL, and the URL that leads through it."""
    address = url.removeprefix("mongodb://").partition("/")[0].rpartition("@")[2]
    host, _, port = address.partition(":")
    async with WireProxy(host, int(port or 27017)) as proxy:
        yield proxy, url.replace(address, proxy.address, 1)
