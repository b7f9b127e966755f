"""Clients that speak Engine.IO by hand, so that they can also speak it wrongly."""

import asyncio
import base64
import json
import os
import socket as sockets
from typing import Any

import aiohttp


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True, masked: bool = True) -> bytes:
    """A client's websocket frame."""
    head = bytes([(0x80 if fin else 0) | opcode])
    flag = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += bytes([flag | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


class Closed(Exception):
    """The server ended the connection; `code` is its close frame's, or None without one."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class RawSocket:
    """A websocket over a plain TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.handshake: dict[str, Any] = {}
        self.sid = ""

    @classmethod
    async def open(
        cls,
        port: int,
        *,
        sid: str = "",
        headers: str = "",
        receive_buffer: int | None = None,
        read_limit: int = 65536,
    ) -> "RawSocket":
        """Connect, and read the Engine.IO handshake unless this is an upgrade of `sid`."""
        raw = sockets.socket()
        raw.setblocking(False)
        if receive_buffer is not None:
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=read_limit)
        key = base64.b64encode(os.urandom(16)).decode()
        query = "EIO=4&transport=websocket" + (f"&sid={sid}" if sid else "")
        writer.write(
            f"GET /socket.io/?{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"{headers}\r\n".encode()
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
            raise
        if not head.startswith(b"HTTP/1.1 101 "):
            writer.transport.abort()
            raise ConnectionRefusedError(head.split(b"\r\n")[0].decode())
        self = cls(reader, writer)
        if not sid:
            self.handshake = json.loads((await self.receive())[1:])
            self.sid = self.handshake["sid"]
        return self

    def send(self, packet: str | bytes) -> None:
        """A text message for a str, a binary one for bytes."""
        if isinstance(packet, str):
            self.writer.write(frame(packet.encode()))
        else:
            self.writer.write(frame(packet, 2))

    def send_raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(data)

    async def receive(self, *, pings: bool = False) -> Any:
        """The next message: str or bytes. Engine.IO pings are answered and passed over.

        Raises Closed.
        """
        while True:
            message = await asyncio.wait_for(self._receive(), 10)
            if message == "2" and not pings:
                self.send("3")
                continue
            return message

    async def _receive(self) -> Any:
        try:
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size >= 126:
                width = 2 if size == 126 else 8
                size = int.from_bytes(await self.reader.readexactly(width), "big")
            payload = await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            raise Closed(None) from None
        opcode = first & 0x0F
        if opcode == 8:
            raise Closed(int.from_bytes(payload[:2], "big"))
        if opcode == 10:
            return ("pong", payload)
        return payload.decode() if opcode == 1 else payload

    async def connect(self, namespace: str = "", auth: str = "") -> str:
        """CONNECT to a namespace (with its comma), pass over `auth`; the connection's id."""
        self.send(f"40{namespace}{auth}")
        reply = await self.receive()
        assert reply.startswith(f"40{namespace}"), reply
        greeting = await self.receive()
        assert greeting.startswith(f'42{namespace}["auth"'), greeting
        sid: str = json.loads(reply[2 + len(namespace) :])["sid"]
        return sid

    async def rest(self) -> list[Any]:
        """All messages until the end."""
        messages: list[Any] = []
        try:
            while True:
                messages.append(await self.receive(pings=True))
        except Closed:
            return messages

    async def close_code(self) -> int | None:
        """Read to the end; the code of the close frame, None if there was none."""
        try:
            while True:
                await self.receive(pings=True)
        except Closed as closed:
            return closed.code

    def abort(self) -> None:
        """Cut the connection."""
        self.writer.transport.abort()


class Polling:
    """A polling session."""

    def __init__(self, http: aiohttp.ClientSession, url: str, handshake: dict[str, Any]) -> None:
        self.http = http
        self.handshake = handshake
        self.sid: str = handshake["sid"]
        self.url = f"{url}&sid={self.sid}"

    @classmethod
    async def open(cls, http: aiohttp.ClientSession, url: str) -> "Polling":
        async with http.get(url) as response:
            assert response.status == 200
            return cls(http, url, json.loads((await response.text())[1:]))

    async def get(self) -> tuple[int, str]:
        """Status and body of one poll."""
        async with self.http.get(self.url) as response:
            return response.status, await response.text()

    async def post(self, body: str | bytes) -> tuple[int, str]:
        """Status and body of bringing packets."""
        async with self.http.post(self.url, data=body) as response:
            return response.status, await response.text()

    async def packets(self, count: int) -> list[str]:
        """The next packets, pings answered and passed over."""
        found: list[str] = []
        while len(found) < count:
            status, body = await self.get()
            assert status == 200, body
            for packet in body.split("\x1e"):
                if packet == "2":
                    await self.post("3")
                elif packet != "6":
                    found.append(packet)
        return found

    async def connect(self, namespace: str = "") -> None:
        """CONNECT to a namespace and pass over its greeting."""
        assert (await self.post(f"40{namespace}")) == (200, "ok")
        reply, greeting = await self.packets(2)
        assert reply.startswith(f"40{namespace}")
        assert greeting.startswith(f'42{namespace}["auth"')


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Wait until `condition()` holds; fail if it does not come true in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
