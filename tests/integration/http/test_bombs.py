"""Bodies and frames that are small as they come and huge as they are meant."""

import asyncio
import os
import zlib
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

from tests.integration.connections.test_memory_of_connections import rss
from tests.integration.http.test_bodies import JSON, LOGIN, MIB, Raw
from tests.integration.transport.clients import RawSocket, frame
from tests.support.rest import Api
from tests.support.server import ServerProcess

MEANT = 512 * MIB
POLLING = "/socket.io/?EIO=4&transport=polling"


def packed(window: int, piece: bytes) -> bytes:
    """So many times `piece` that it is `MEANT` bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    pieces = [packer.compress(piece * (MIB // len(piece))) for _ in range(MEANT // MIB)]
    return b"".join([*pieces, packer.flush()])


def worked(pid: int) -> float:
    """Seconds of the processors' time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(("encoding", "window"), [("gzip", 31), ("deflate", 15), ("deflate", -15)])
async def test_a_bomb_is_refused_and_not_unpacked(
    server: ServerProcess, encoding: str, window: int
) -> None:
    bomb = packed(window, b" ")
    headers = (JSON, f"Content-Encoding: {encoding}", f"Content-Length: {len(bomb)}")
    chunked = (*headers[:2], "Transfer-Encoding: chunked")
    async with Api(server.url) as api, AsyncExitStack() as stack:
        ann = await api.register("Ann")
        token = f"Authorization: Bearer {ann.token}"
        raw = await Raw.open(server, stack)
        raw.ask(POLLING, b"", method="GET")
        sid = orjson.loads((await raw.answer())[2][1:])["sid"]
        before, work = rss(server.pid), worked(server.pid)
        for path, fields, status in (
            (LOGIN, headers, 413),
            (LOGIN, chunked, 413),
            ("/api/v1/conversations", (*chunked, token), 413),
            ("/api/v1/conversations", headers, 401),
            ("/api/v1/nowhere", headers, 404),
            (POLLING, chunked, 400),  # there is no such session
            (f"{POLLING}&sid={sid}", chunked, 413),  # one packet
        ):
            raw = await Raw.open(server, stack)
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(bomb), bomb) if fields is not headers else bomb
            raw.ask(path, body, *fields)
            assert (await raw.answer())[0] == status, path
            # Nor is what is behind the answer: the next request's turn comes at once.
            raw.ask("/health/live", b"", method="GET")
            assert (await raw.answer())[0] == 200, path
        assert worked(server.pid) - work < 1
        assert rss(server.pid) - before < 24 * MIB


async def test_packets_that_come_packed_are_bounded_as_they_are_meant(
    server: ServerProcess,
) -> None:
    async with AsyncExitStack() as stack:
        raw = await Raw.open(server, stack)
        raw.ask(POLLING, b"", method="GET")
        session = f"{POLLING}&sid={orjson.loads((await raw.answer())[2][1:])['sid']}"
        bomb = packed(31, b"3\x1e")
        before, work = rss(server.pid), worked(server.pid)
        raw = await Raw.open(server, stack)
        raw.ask(session, bomb, "Content-Encoding: gzip", f"Content-Length: {len(bomb)}")
        assert (await raw.answer())[0] in (400, 413)
        assert worked(server.pid) - work < 2
        assert rss(server.pid) - before < 24 * MIB


async def test_websockets_are_never_packed(server: ServerProcess) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n%b\r\n" % offer.encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 101")
    assert b"sec-websocket-extensions" not in head.lower()
    writer.close()
    before, work = rss(server.pid), worked(server.pid)
    bomb = packed(-15, b"3")[:60_000]
    for part in (bomb, b""):
        socket = await RawSocket.open(server.port, headers=offer)
        whole = bytearray(frame(part))
        whole[0] |= 0x40  # RSV1: it is packed
        socket.send_raw(bytes(whole))
        assert await socket.close_code() == 1002
        socket.abort()
    assert worked(server.pid) - work < 1
    assert rss(server.pid) - before < 24 * MIB
