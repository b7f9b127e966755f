"""A door before a server: open, shut, or held so that nothing passes while nobody is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class Door:
    """A TCP proxy. Runs in the test's event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_open = True
        self._passing = asyncio.Event()
        self._passing.set()

    async def __aenter__(self) -> "Door":
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.shut()
        self._passing.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    @property
    def port(self) -> int:
        """Of the loopback interface."""
        assert self._listener is not None
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def shut(self) -> None:
        """Cut all connections, and each new one at once. What was held back is lost."""
        self._is_open = False
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """Pass nothing on any more, until `open` or `shut`."""
        self._passing.clear()

    def open(self) -> None:
        """Let through what comes from now on, and what was held back."""
        self._is_open = True
        self._passing.set()

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Shut for as long as the block takes."""
        self.shut()
        try:
            yield
        finally:
            self.open()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_open:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError):
                answers, out = await asyncio.open_connection(*self._server)
                self._writers |= {writer, out}
                if not self._is_open:
                    writer.transport.abort()
                    out.transport.abort()
                await asyncio.gather(self._pump(reader, out), self._pump(answers, writer))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()


@contextlib.asynccontextmanager
async def door(port: int, host: str = "127.0.0.1") -> AsyncIterator[Door]:
    """A door before a server, open at first."""
    async with Door(host, port) as made:
        yield made


@contextlib.asynccontextmanager
async def door_to_mongodb(url: str) -> AsyncIterator[tuple[Door, str]]:
    """A door before the server of a URL, and the URL that leads through it."""
    address = urlsplit(url).netloc.rpartition("@")[2]
    host, _, port = address.partition(":")
    async with door(int(port or 27017), host) as made:
        yield made, url.replace(address, f"127.0.0.1:{made.port}", 1)
