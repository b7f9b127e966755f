"""Bodies that come slowly, in part, or never: what others have to hold of them is bounded."""

import asyncio
import http.client
import io
import json
import re
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import orjson

from tests.conftest import StartServer
from tests.integration.connections.test_memory_of_connections import rss
from tests.integration.transport.clients import RawSocket, frame
from tests.support.client import connect
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess

KIB, MIB = 1 << 10, 1 << 20
LOGIN = "/api/v1/auth/login"
Value = TypeVar("Value")
JSON = "Content-Type: application/json"


class Raw:
    """One connection, on which requests are sent as somebody pleases."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, server: ServerProcess, stack: AsyncExitStack) -> "Raw":
        raw = cls(*await asyncio.open_connection("127.0.0.1", server.port))
        stack.callback(raw.writer.close)
        return raw

    def ask(self, path: str, body: bytes, *headers: str, method: str = "POST") -> None:
        """Send a head, and of the body what there is."""
        lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)

    async def answer(self) -> tuple[int, http.client.HTTPMessage, Any]:
        """The next answer: status, headers, JSON."""
        async with asyncio.timeout(20):
            head = await self._reader.readuntil(b"\r\n\r\n")
            line, _, fields = head.partition(b"\r\n")
            headers = http.client.parse_headers(io.BytesIO(fields))
            body = await self._reader.readexactly(int(headers["Content-Length"]))
        kind = headers.get("Content-Type") or ""
        return int(line.split()[1]), headers, orjson.loads(body) if "json" in kind else body

    async def answer_if_any(self) -> tuple[int, http.client.HTTPMessage, Any] | None:
        """As `answer`; None if the connection was reset before it was read. TCP does that where a
        connection is closed while more is coming in than was taken (RFC 9112, section 9.6).
        """
        try:
            return await self.answer()
        except ConnectionResetError:
            return None

    async def ended(self) -> None:
        """Wait until the server has closed it."""
        async with asyncio.timeout(20):
            try:
                await self._reader.read()
            except ConnectionResetError:
                return


async def number(api: Api, name: str) -> float:
    """A metric's value."""
    text = (await api.request("GET", "//metrics")).body.decode()
    found = re.search(rf"^{name} (\S+)$", text, re.M)
    assert found is not None, name
    return float(found[1])


async def create(who: Account, client_id: str) -> None:
    group = {"kind": "group", "members": [], "title": "x", "client_id": client_id}
    await who.api.post("/conversations", group, 201)


async def test_connections_that_stop_in_the_middle_are_held_within_one_budget(
    start_server: StartServer,
) -> None:
    server = start_server(MAX_BODY_TOTAL="4MiB", MAX_BODY="1MiB")
    async with Api(server.url) as api, AsyncExitStack() as stack:
        ann = await api.register("Ann")
        await create(ann, "before")
        before = rss(server.pid)
        silent = []
        for _ in range(200):
            raw = await Raw.open(server, stack)
            token = f"Authorization: Bearer {ann.token}"
            raw.ask("/api/v1/conversations", b"", JSON, token, f"Content-Length: {MIB}")
            raw.writer.write(b"x" * 700 * KIB)
            silent.append(raw)
        async with asyncio.timeout(30):
            while (await number(api, "parley_arriving_refused_total")) < 190:
                await asyncio.sleep(0.05)
        assert 0 < await number(api, "parley_arriving_bytes") <= 4 * MIB
        grown = rss(server.pid) - before
        assert grown < 40 * MIB, f"{grown / MIB:.0f} MiB for 200 connections"
        # What comes whole is served as always.
        await create(ann, "meanwhile")
        await api.register("Ben")
        answers = [asyncio.create_task(raw.answer()) for raw in silent]
        done, held = await asyncio.wait(answers, timeout=5)
        for task in held:
            task.cancel()
        assert len(done) >= 190
        for task in done:
            status, headers, problem = task.result()
            assert (status, problem["code"], headers["Retry-After"]) == (503, "unavailable", "1")
        for raw in silent:
            raw.writer.transport.abort()
        async with asyncio.timeout(20):
            while await number(api, "parley_arriving_bytes"):
                await asyncio.sleep(0.05)
        assert server.log_path.read_text().count("too_much_arriving") == 1


async def test_sockets_and_uploads_are_held_within_the_same_budget(
    start_server: StartServer,
) -> None:
    server = start_server(MAX_BODY_TOTAL="2MiB", MAX_BODY="1MiB")
    polling = "/socket.io/?EIO=4&transport=polling"
    part = frame(b"4" + b"x" * 60_000)[:50_000]
    async with Api(server.url) as api, AsyncExitStack() as stack:
        ann = await api.register("Ann")
        token = json.dumps({"token": ann.token})
        # Strangers have half of it, over whichever door they come.
        polled = []
        for _ in range(40):
            raw = await Raw.open(server, stack)
            raw.ask(polling, b"", method="GET")
            sid = orjson.loads((await raw.answer())[2][1:])["sid"]
            raw.ask(f"{polling}&sid={sid}", b"4" + b"x" * 50_000, f"Content-Length: {60_000}")
            polled.append(raw)
        await refused_at_least(api, 40 - MIB // 50_000)
        strangers = [await RawSocket.open(server.port) for _ in range(5)]
        for socket in strangers:
            socket.send_raw(part)
            assert await socket.close_code() == 1013
            socket.abort()
        assert await number(api, "parley_arriving_bytes") <= MIB
        # Those who are known have the other half.
        known = [await RawSocket.open(server.port) for _ in range(40)]
        for socket in known:
            stack.callback(socket.abort)
            socket.send(f"40/messages,{token}")
            while not (await socket.receive()).startswith('42/messages,["ready"'):
                pass
        gone = await number(api, "parley_arriving_refused_total")
        for socket in known:
            socket.send_raw(part)
        await refused_at_least(api, int(gone) + 40 - MIB // 50_000 - 1)
        closing = '42/messages,["closing",{"code":"unavailable","reconnect":true}]'
        for messages in await first_of([socket.rest() for socket in known], 15):
            assert messages[-1] == closing
        raw = await Raw.open(server, stack)
        form = ("Content-Type: multipart/form-data; boundary=x", f"Content-Length: {MIB}")
        raw.ask("/api/v1/uploads", b"--x\r\n", *form, f"Authorization: Bearer {ann.token}")
        assert (await raw.answer())[2]["code"] == "unavailable"
        # What comes whole is served.
        await create(ann, "meanwhile")
        async with await connect(server.url, "/messages", ann.token) as here:
            await here.call("conversation.list", {})
        for answer in await first_of([raw.answer() for raw in polled], 15):
            assert answer[0] == 503
    async with Api(server.url) as api, asyncio.timeout(20):
        while await number(api, "parley_arriving_bytes"):
            await asyncio.sleep(0.05)


async def first_of(coming: Iterable[Coroutine[Any, Any, Value]], count: int) -> list[Value]:
    """What so many of these come to, or more; the others are given up."""
    tasks = [asyncio.ensure_future(each) for each in coming]
    async with asyncio.timeout(20):
        while sum(task.done() for task in tasks) < count:
            await asyncio.sleep(0.01)
    done = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    return [task.result() for task in done]


async def refused_at_least(api: Api, count: int) -> None:
    async with asyncio.timeout(30):
        while await number(api, "parley_arriving_refused_total") < count:
            await asyncio.sleep(0.05)


async def test_strangers_send_little(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        raw = await Raw.open(server, stack)
        raw.ask(LOGIN, b"", JSON, f"Content-Length: {16 * KIB + 1}")
        status, _, problem = await raw.answer()
        assert (status, problem["code"]) == (413, "too_large")
        raw = await Raw.open(server, stack)
        raw.ask(LOGIN, b"4001\r\n" + b" " * (16 * KIB + 1), JSON, "Transfer-Encoding: chunked")
        status, _, problem = await raw.answer()
        assert (status, problem["code"]) == (413, "too_large")
        raw = await Raw.open(server, stack)
        raw.ask(LOGIN, b" " * (16 * KIB - 2) + b"{}", JSON, f"Content-Length: {16 * KIB}")
        status, _, problem = await raw.answer()
        assert (status, problem["code"]) == (400, "invalid")


async def test_limits_are_looked_at_before_the_body(start_server: StartServer) -> None:
    server = start_server(RATE_LIMITS="auth.login=1/h,conversation.create=1/h")
    async with Api(server.url) as api, AsyncExitStack() as stack:
        ann = await api.register("Ann")
        await create(ann, "first")
        await api.request("POST", "/auth/login", json={"email": "x", "password": "y"})
        token = f"Authorization: Bearer {ann.token}"
        for path, headers in ((LOGIN, ()), ("/api/v1/conversations", (token,))):
            raw = await Raw.open(server, stack)
            raw.ask(path, b"", JSON, "Content-Length: 100", *headers)
            status, _, problem = await raw.answer()
            assert (status, problem["code"]) == (429, "rate_limited"), path


async def test_a_head_has_a_bound(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        raw = await Raw.open(server, stack)
        raw.writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n")
        for each in range(9):
            raw.writer.write(b"X-%d: " % each + b"x" * 8000 + b"\r\n")
        told = await raw.answer_if_any()
        assert told is None or told[0] == 431


async def test_what_comes_behind_a_request_has_a_bound(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        polling = "/socket.io/?EIO=4&transport=polling"
        raw = await Raw.open(server, stack)
        raw.ask(polling, b"", method="GET")
        opening = (await raw.answer())[2]
        raw.ask(f"{polling}&sid={orjson.loads(opening[1:])['sid']}", b"", method="GET")
        # While that waits, nobody reads what comes.
        ended = asyncio.create_task(raw.ended())
        async with asyncio.timeout(10):
            while not ended.done():
                raw.ask(LOGIN, b"x" * 8000, JSON, "Content-Length: 8000")
                await asyncio.sleep(0.005)
        # A few small ones are answered in their order.
        raw = await Raw.open(server, stack)
        for path in ("/health/live", "/health/lived") * 3:
            raw.ask(path, b"", method="GET")
        assert [(await raw.answer())[0] for _ in range(6)] == [200, 404] * 3


async def test_heads_that_do_not_come_whole_are_counted(start_server: StartServer) -> None:
    server = start_server(MAX_BODY_TOTAL="1MiB")
    fields = b"".join(b"X-%d: %b\r\n" % (each, b"x" * 8000) for each in range(5))
    async with Api(server.url) as api, AsyncExitStack() as stack:
        silent = []
        for _ in range(30):
            raw = await Raw.open(server, stack)
            raw.writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + fields)
            silent.append(raw)
        refused = 30 - 512 * KIB // len(fields)
        await refused_at_least(api, refused)
        told = await first_of([raw.answer_if_any() for raw in silent], refused)
        answers = [each for each in told if each is not None]
        assert answers
        for status, headers, _ in answers:
            assert (status, headers["Retry-After"]) == (503, "1")
        assert 0 < await number(api, "parley_arriving_bytes") <= 512 * KIB
        await api.register("Ann")
        for raw in silent:
            raw.writer.close()
        async with asyncio.timeout(20):
            while await number(api, "parley_arriving_bytes"):
                await asyncio.sleep(0.05)
