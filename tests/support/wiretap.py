"""Listening in on what a server at the other end of a TCP connection says."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator

_CHANNEL = rb"\r\n\$\d+\r\n([^\r\n]+)\r\n"


class Wiretap:
    """A proxy before a Redis that keeps what it says. Runs in the test's event loop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._heard: dict[int, bytearray] = {}
        """By connection."""

    @property
    def url(self) -> str:
        """Where to reach the Redis through it."""
        assert self._listener is not None
        return f"redis://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/0"

    @property
    def heard(self) -> bytes:
        """All that was said, one connection after the other."""
        return b"".join(self._heard.values())

    def forget(self) -> None:
        """Begin anew. Call it when nothing is half said."""
        for heard in self._heard.values():
            heard.clear()

    @property
    def messages(self) -> Counter[str]:
        """How many messages came on each channel."""
        return self._channels(rb"\bs?message")

    @property
    def subscribed(self) -> set[str]:
        """The channels whose subscription was confirmed."""
        return set(self._channels(rb"\bs?subscribe"))

    @property
    def unsubscribed(self) -> set[str]:
        """The channels whose end of subscription was confirmed."""
        return set(self._channels(rb"\bs?unsubscribe"))

    def _channels(self, kind: bytes) -> Counter[str]:
        return Counter(
            channel.decode()
            for heard in self._heard.values()
            for channel in re.findall(kind + _CHANNEL, heard)
        )

    async def __aenter__(self) -> "Wiretap":
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
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
        try:
            answers, out = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers |= {writer, out}
            heard = self._heard[len(self._heard)] = bytearray()
            await asyncio.gather(_pump(reader, out), _pump(answers, writer, heard))
        finally:
            self._tasks.discard(task)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray | None = None
) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            if kept is not None:
                kept += data
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def wiretap(port: int) -> AsyncIterator[Wiretap]:
    """A proxy before the Redis on this port of the loopback interface."""
    async with Wiretap(port) as tap:
        yield tap
