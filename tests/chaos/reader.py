"""A client of few cycles, so that a thousand of them leave the machine to the server."""

import asyncio
import socket
import time
from typing import Any

import orjson

from tests.integration.transport.clients import frame

CONNECT_TIMEOUT = 30.0


class Reader(asyncio.Protocol):
    """One connection to `/messages`: sends messages, notes how late those of others come, and
    that each seq of its stream comes once and in order.
    """

    def __init__(self, port: int, token: str, stream: str) -> None:
        self.port = port
        self.token = token
        self.stream = stream
        self.position: dict[str, Any] | None = None
        """Where it stands in its stream."""
        self.latencies: list[float] = []
        """Seconds from a message's sending to its arrival here."""
        self.received = 0
        self.faults: list[str] = []
        self.recovered: list[bool] = []
        """What each `ready` said of its stream."""
        self.closing: dict[str, Any] | None = None
        self.ready = asyncio.Event()
        self.closed = asyncio.Event()
        self.measures = True
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._head = False

    async def connect(self, *, receive_buffer: int | None = None) -> None:
        """Connect, or come back with `resume`; returns when `ready` has come."""
        raw = socket.socket()
        raw.setblocking(False)
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", self.port))
        self.ready.clear()
        self.closed.clear()
        self.closing = None
        self._buffer, self._head = b"", True
        await loop.create_connection(lambda: self, sock=raw)
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await self.ready.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        auth: dict[str, Any] = {"token": self.token}
        if self.position is not None:
            auth["resume"] = {self.stream: self.position}
        transport.write(frame(b"40/messages," + orjson.dumps(auth)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed.set()

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
            self.write(b"3")
        elif packet.startswith(b'42/messages,["message.created",'):
            self._message(orjson.loads(packet[12:])[1])
        elif packet.startswith(b'42/messages,["ready",'):
            head = orjson.loads(packet[12:])[1]["streams"][self.stream]
            self.recovered.append(head["recovered"])
            if self.position is None:
                self.position = {"epoch": head["epoch"], "seq": head["seq"]}
            elif self.position["seq"] != head["seq"]:
                self.faults.append(f"stands at {self.position}, ready says {head}")
            self.ready.set()
        elif packet.startswith(b'42/messages,["closing",'):
            self.closing = orjson.loads(packet[12:])[1]
        elif packet.startswith(b"44"):
            self.faults.append(packet.decode())

    def _message(self, event: dict[str, Any]) -> None:
        self.received += 1
        assert self.position is not None
        if event["seq"] != self.position["seq"] + 1:
            self.faults.append(f"{event['seq']} after {self.position['seq']}")
        self.position = {"epoch": event["epoch"], "seq": event["seq"]}
        if self.measures:
            sent = float(event["data"]["body"].partition(" ")[0])
            self.latencies.append(time.monotonic() - sent)

    def send(self, conversation: str, number: int, padding: str) -> None:
        """Send a message that says when it was sent."""
        body = f"{time.monotonic():.6f} {padding}"
        request = {"conversation": conversation, "client_id": str(number), "body": body}
        self.write(b"42/messages," + orjson.dumps(["message.send", request]))

    def write(self, packet: bytes) -> None:
        """Send a packet, if the connection is there."""
        if self._transport is not None:
            self._transport.write(frame(packet))

    def stop_reading(self) -> None:
        """Take nothing any more."""
        assert self._transport is not None
        self.measures = False
        self._transport.pause_reading()

    def go_on_reading(self) -> None:
        """Take again what comes."""
        if self._transport is not None:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()
