"""Malformed connections: what is said before a client is anybody, in Socket.IO, HTTP and TCP."""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter

import pytest

from tests.chaos.control import Stopwatch
from tests.chaos.hostile import CODES, WITHIN, Target, withstand
from tests.chaos.values import VALUES, request, short
from tests.integration.transport.clients import Closed, RawSocket
from tests.support.rest import Api

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

# -- connecting -------------------------------------------------------------------------------


async def hostile_connects(target: Target) -> str:
    """CONNECT with every value for every part of `auth`."""
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    async with Api(target.server.url) as api:
        ann = await api.register("Ann")
        token = json.dumps(ann.token)
        auths = {f"auth: {text}": value for text, value in VALUES.items()}
        auths |= {f"token: {text}": f'{{"token":{value}}}' for text, value in VALUES.items()}
        for text, value in VALUES.items():
            auths[f"resume: {text}"] = f'{{"token":{token},"resume":{value}}}'
            auths[f"resume of a stream: {text}"] = (
                f'{{"token":{token},"resume":{{"messages/x":{value}}}}}'
            )
            for field in ("epoch", "seq"):
                place = request({"epoch": '"e"', "seq": "1", field: value})
                auths[f"{field}: {text}"] = f'{{"token":{token},"resume":{{"messages/x":{place}}}}}'
        for namespace, (text, auth) in itertools.product(("/messages", "/presence"), auths.items()):
            raw = await RawSocket.open(target.server.port)
            watch = Stopwatch(target.server.pid)
            raw.send(f"40{namespace},{auth}")
            try:
                reply = await raw.receive()
            except Closed:
                outcomes["closed"] += 1
            else:
                what = f"{namespace} with {text}: {short(reply)}"
                assert reply.startswith((f"40{namespace},", f"44{namespace},")), what
                if reply.startswith("44"):
                    code = json.loads(reply[3 + len(namespace) :])["data"]["code"]
                    assert code in CODES, what
                    outcomes[code] += 1
                else:
                    outcomes["ok"] += 1
            slowest = max(slowest, watch.seconds())
            raw.abort()
            assert slowest < WITHIN
    counts = ", ".join(f"{code} {count}" for code, count in outcomes.most_common())
    return f"{outcomes.total()} CONNECTs: {counts}; slowest {slowest * 1000:.0f} ms"


async def connects_without_token(target: Target, count: int) -> str:
    """Many connections at once that are nobody's: each is refused in time."""
    slowest = 0.0
    gate = asyncio.Semaphore(100)

    async def one() -> None:
        nonlocal slowest
        async with gate:
            raw = await RawSocket.open(target.server.port)
            watch = Stopwatch(target.server.pid)
            raw.send("40/messages,{}")
            reply = await raw.receive()
            slowest = max(slowest, watch.seconds())
            assert json.loads(reply.partition(",")[2])["data"]["code"] == "unauthenticated"
            raw.abort()

    await asyncio.gather(*(one() for _ in range(count)))
    assert slowest < WITHIN
    return f"{count} connections without a token; slowest refusal {slowest * 1000:.0f} ms"


# -- below: HTTP and TCP ----------------------------------------------------------------------

GARBAGE: dict[str, bytes] = {
    "TLS": bytes.fromhex("16030100f1010000ed0303") + b"\x55" * 230,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9,
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no request line": b"\0\1\2\3\r\n\r\n",
    "an endless request line": b"GET /" + b"a" * 200_000,
    "an endless header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 200_000,
    "100,000 headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: \0\r\n\r\n",
    "no length": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a huge length": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: "
    + b"9" * 40
    + b"\r\n\r\n{}",
    "two lengths": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Content-Length: 3\r\n\r\n{}",
    "length and chunks": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a wrong chunk": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "an unknown encoding": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: brotli\r\n\r\n{}",
    "a wrong method": b"\xc3\x28 / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a half-escaped path": b"GET /%zz%e0%80%80/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "an absolute path": b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a wrong websocket key": b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n",
    "a websocket over HTTP/1.0": b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.0\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "a session that is none": b"GET /socket.io/?EIO=4&transport=polling&sid=%00%ff HTTP/1.1\r\n"
    b"Host: x\r\nConnection: close\r\n\r\n",
    "a token of NUL": b"GET /api/v1/users/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Authorization: Bearer \xff\xfe\r\n\r\n",
}


async def garbage_for_http(target: Target) -> str:
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for text, garbage in GARBAGE.items():
        reader, writer = await asyncio.open_connection("127.0.0.1", target.server.port)
        watch = Stopwatch(target.server.pid)
        writer.write(garbage)
        answer = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                await writer.drain()
                answer = await reader.read(65536)
        took = watch.seconds()
        slowest = max(slowest, took)
        what = f"{text}: {short(answer.decode(errors='replace'))}"
        assert took < WITHIN, f"{took:.2f} s: {what}"
        assert b"Traceback" not in answer, what
        status = answer.split()[1].decode() if answer.startswith(b"HTTP/") else "closed"
        assert status == "closed" or int(status) < 500, what
        outcomes[status] += 1
        writer.transport.abort()
    counts = ", ".join(f"{code} {count}" for code, count in outcomes.most_common())
    return f"{len(GARBAGE)} kinds of garbage: {counts}; slowest {slowest * 1000:.0f} ms"


SLOW: dict[str, tuple[bytes, bytes]] = {
    "a request line": (b"GET /", b"a"),
    "headers": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n"),
    "a body": (
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100000\r\n\r\n",
        b" ",
    ),
    "a handshake": (
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n",
        b"X: y\r\n",
    ),
    "a websocket": (
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff",
        b"",
    ),
    "nothing": (b"", b""),
    "nothing but line ends": (b"", b"\r\n"),
}


async def slow_requests(target: Target, count: int, seconds: float) -> str:
    """Connections that say what they want one byte at a time, or never."""
    begun: list[tuple[asyncio.StreamWriter, bytes]] = []
    for _, (head, drip) in zip(range(count), itertools.cycle(SLOW.values()), strict=False):
        _, writer = await asyncio.open_connection("127.0.0.1", target.server.port)
        writer.write(head)
        begun.append((writer, drip))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for writer, drip in begun:
            if drip and not writer.is_closing():
                writer.write(drip)
        await asyncio.sleep(0.2)
    for writer, _ in begun:
        writer.transport.abort()
    return f"{count} slow requests of {len(SLOW)} kinds for {seconds:g} s"


# -- the tests --------------------------------------------------------------------------------


async def test_hostile_connects(target: Target) -> None:
    await withstand(target, hostile_connects)


async def test_thousands_of_connects_without_a_token(target: Target, full: bool) -> None:
    await withstand(target, lambda at: connects_without_token(at, 5000 if full else 1000))


async def test_garbage_instead_of_http(target: Target) -> None:
    await withstand(target, garbage_for_http)


async def test_slow_requests(target: Target, full: bool) -> None:
    count, seconds = (1000, 20.0) if full else (300, 3.0)
    await withstand(target, lambda at: slow_requests(at, count, seconds))
