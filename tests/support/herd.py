"""Thousands of clients of few cycles, that come back by themselves as the official client does."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from tests.integration.transport.clients import frame

FIRST_DELAY, LAST_DELAY, JITTER = 1.0, 5.0, 0.5
"""Seconds before the first and the later attempts, and what share of them is left to chance:
`reconnectionDelay`, `reconnectionDelayMax`, `randomizationFactor` of socket.io-client."""

NEWER = b'42/messages,["message.created",'
READY = b'42/messages,["ready",'
CLOSING = b'42/messages,["closing",'
REFUSED = b"44/messages,"


class HerdClient(asyncio.Protocol):
    """One connection to `/messages`, and where it stands in its streams."""

    def __init__(self, port: Callable[[], int], token: str, chance: random.Random) -> None:
        """`port`: where to connect now."""
        self.token = token
        self.streams: dict[str, dict[str, Any]] = {}
        self.ready = False
        self.ready_at = 0.0
        """`time.monotonic()` of the latest `ready`."""
        self.connects = 0
        self.received = 0
        self.faults: list[str] = []
        self.closings: list[str] = []
        self.refusals: list[str] = []
        self._port = port
        self._chance = chance
        self._attempt = 0
        self._stopped = False
        self._transport: asyncio.Transport | None = None
        self._pending: asyncio.Task[None] | None = None
        self._buffer = b""
        self._head = False
        self._entered = asyncio.Event()

    async def enter(self, timeout: float = 60.0) -> None:
        """Connect for the first time, and wait for `ready`."""
        await self._connect()
        async with asyncio.timeout(timeout):
            await self._entered.wait()

    def stop(self) -> None:
        """Go for good."""
        self._stopped = True
        if self._pending is not None:
            self._pending.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _connect(self) -> None:
        self._buffer, self._head = b"", True
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self, "127.0.0.1", self._port())
        except OSError:
            self._later()

    def _later(self) -> None:
        if not self._stopped:
            self._pending = asyncio.get_running_loop().create_task(self._come_back())

    async def _come_back(self) -> None:
        delay = min(FIRST_DELAY * 2**self._attempt, LAST_DELAY)
        self._attempt += 1
        await asyncio.sleep(delay * self._chance.uniform(1 - JITTER, 1 + JITTER))
        await self._connect()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.connects += 1
        transport.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        auth: dict[str, Any] = {"token": self.token}
        if self.streams:
            auth["resume"] = self.streams
        transport.write(frame(b"40/messages," + orjson.dumps(auth)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.ready = False
        self._later()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        place = 0
        if self._head:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            self._head = False
            place = end + 4
        while len(buffer) - place >= 2:
            size, start = buffer[place + 1], place + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                if len(buffer) < start + width:
                    break
                size = int.from_bytes(buffer[start : start + width], "big")
                start += width
            if len(buffer) < start + size:
                break
            if buffer[place] & 0x0F == 1:
                self._packet(buffer[start : start + size])
            place = start + size
        self._buffer = buffer[place:]

    def _packet(self, packet: bytes) -> None:
        if packet == b"2":
            if self._transport is not None:
                self._transport.write(frame(b"3"))
        elif packet.startswith(NEWER):
            self._event(orjson.loads(packet[12:])[1])
        elif packet.startswith(READY):
            self._ready(orjson.loads(packet[12:])[1]["streams"])
        elif packet.startswith(CLOSING):
            self.closings.append(orjson.loads(packet[12:])[1]["code"])
        elif packet.startswith(REFUSED):
            self.refusals.append(packet[len(REFUSED) :].decode())
            if self._transport is not None:
                self._transport.abort()

    def _event(self, event: dict[str, Any]) -> None:
        self.received += 1
        known = self.streams[event["stream"]]
        if event["seq"] != known["seq"] + 1:
            self.faults.append(f"{event['stream']}: {event['seq']} after {known['seq']}")
        self.streams[event["stream"]] = {"epoch": event["epoch"], "seq": event["seq"]}

    def _ready(self, heads: dict[str, dict[str, Any]]) -> None:
        for stream, head in heads.items():
            known = self.streams.get(stream)
            if known is not None and (not head["recovered"] or known["seq"] != head["seq"]):
                self.faults.append(f"{stream}: stands at {known}, ready says {head}")
            self.streams[stream] = {"epoch": head["epoch"], "seq": head["seq"]}
        self._attempt = 0
        self.ready, self.ready_at = True, time.monotonic()
        self._entered.set()

    def reached(self, heads: dict[str, int]) -> bool:
        """Whether it is in, and has everything of its streams up to these seqs."""
        return self.ready and all(
            place["seq"] >= heads.get(stream, 0) for stream, place in self.streams.items()
        )


async def assemble(clients: Sequence[HerdClient], at_once: int = 100) -> None:
    """Connect them all for the first time."""
    turns = asyncio.Semaphore(at_once)

    async def enter(client: HerdClient) -> None:
        async with turns:
            await client.enter()

    await asyncio.gather(*map(enter, clients))
