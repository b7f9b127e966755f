"""Connections that say nothing, say it slowly, or take nothing: none of them is kept."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from server.http.departing import Departing
from server.http.listener import HEAD_SECONDS, KEEP_ALIVE, Deadline, listen
from tests.conftest import StartServer
from tests.support.rest import Api
from tests.support.server import ServerProcess

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 32 * 1024 * 1024

Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Opened]]


@asynccontextmanager
async def serving(
    head_seconds: float, stall_seconds: float = 60.0, departing: Departing | None = None
) -> AsyncIterator[Connect]:
    """A small application; how to connect to it."""

    async def live(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="ok")

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(4 * head_seconds)
        return web.Response(text="ok")

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    app = web.Application()
    app.router.add_route("*", "/health/live", live)
    app.router.add_get("/slow", slow)
    app.router.add_get("/large", large)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = await listen(
        runner,
        "127.0.0.1",
        0,
        head_seconds=head_seconds,
        stall_seconds=stall_seconds,
        departing=departing,
    )
    port = listener.sockets[0].getsockname()[1]
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        for writer in opened:
            writer.transport.abort()
        listener.close()
        await runner.cleanup()


async def answered(reader: asyncio.StreamReader) -> bytes:
    """A response without more than `ok` in it."""
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 10)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection, with nothing said."""
    try:
        return await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionResetError:
        return True  # what was sent to it meanwhile is answered so


@pytest.mark.parametrize("said", [b"", b"G", REQUEST[:-1], b"POST / HTTP/1.1\r\nX: y\r\n"])
async def test_a_head_that_does_not_come_ends_the_connection(said: bytes) -> None:
    async with serving(0.3) as connect:
        reader, writer = await connect()
        writer.write(said)
        assert await ended(reader)


async def test_a_head_that_comes_byte_by_byte_ends_the_connection() -> None:
    async with serving(0.3) as connect:
        reader, writer = await connect()
        ending = asyncio.create_task(ended(reader))
        for byte in REQUEST * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if ending.done():
                break
        assert await ending


async def test_the_next_head_has_to_come_as_well_once_it_has_begun() -> None:
    async with serving(0.3) as connect:
        reader, writer = await connect()
        writer.write(REQUEST)
        await answered(reader)
        await asyncio.sleep(0.6)  # idle as long as it likes
        writer.write(REQUEST)
        await answered(reader)
        writer.write(REQUEST[:5])
        assert await ended(reader)


async def test_a_body_and_an_answer_may_take_longer() -> None:
    async with serving(0.2) as connect:
        reader, writer = await connect()
        writer.write(b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(0.1)
            writer.write(b"x")
        await answered(reader)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await answered(reader)


async def test_many_stalled_connections_go_and_others_are_served() -> None:
    async with serving(0.5) as connect:
        stalled = [await connect() for _ in range(200)]
        for _, writer in stalled:
            writer.write(REQUEST[:20])
        reader, writer = await connect()
        writer.write(REQUEST)
        await answered(reader)
        assert all([await ended(reader) for reader, _ in stalled])


async def test_a_peer_that_takes_nothing_of_its_answer_is_cut_off() -> None:
    async with serving(0.3, stall_seconds=0.3) as connect:
        reader, writer = await connect()
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1.0)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(LARGE), 10)


async def test_answers_that_nobody_takes_are_bounded_together() -> None:
    limit = 4 * LARGE - LARGE // 2
    departing = Departing(limit)
    async with serving(5, departing=departing) as connect:
        peers = []
        for _ in range(10):
            peers.append(await connect())
            peers[-1][1].write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await peers[-1][0].readuntil(b"\r\n\r\n")
        async with asyncio.timeout(10):
            while departing.cut < 6:
                await asyncio.sleep(0.01)
        assert 0 < departing.held <= limit
        for reader, _ in peers[:6]:  # who waited for longest
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(LARGE), 10)
        await asyncio.wait_for(peers[-1][0].readexactly(LARGE), 10)
        for _, writer in peers:
            writer.transport.abort()
        async with asyncio.timeout(10):
            while departing.held:
                await asyncio.sleep(0.01)


async def test_a_peer_that_takes_its_answer_slowly_gets_it() -> None:
    async with serving(0.3, stall_seconds=0.3) as connect:
        reader, writer = await connect()
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"Content-Length: {LARGE}".encode() in head
        came, pause = 0, time.monotonic()
        while came < LARGE:
            came += len(await asyncio.wait_for(reader.read(1 << 20), 10))
            if came < LARGE // 2 and time.monotonic() - pause > 0.01:
                await asyncio.sleep(0.02)
                pause = time.monotonic()


async def test_the_server_lets_go_of_what_says_nothing(server: ServerProcess) -> None:
    """With its real times, which proxies have to agree with."""
    assert HEAD_SECONDS < KEEP_ALIVE
    assert KEEP_ALIVE > 60  # what nginx keeps its connections for
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    began = time.monotonic()
    writer.write(b"GET /health/live HTTP/1.1\r\nHost")
    assert await asyncio.wait_for(reader.read(), HEAD_SECONDS + 10) == b""
    assert time.monotonic() - began > HEAD_SECONDS - 1
    writer.close()
    async with Api(server.url) as api:
        (await api.request("GET", "//health/live")).expect(200)


async def test_while_it_stops_a_body_that_goes_on_is_waited_for_and_no_other() -> None:
    begun = asyncio.Semaphore(0)

    async def take(request: web.Request) -> web.Response:
        begun.release()
        await request.read()
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=60)
    await runner.setup()
    listener = await listen(runner, "127.0.0.1", 0, still_seconds=0.5)
    port = listener.sockets[0].getsockname()[1]
    (silent, writer), (reader, talking) = [
        await asyncio.open_connection("127.0.0.1", port) for _ in range(2)
    ]
    for each in (writer, talking):
        each.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
        await begun.acquire()
    listener.close()
    stopping = asyncio.ensure_future(runner.cleanup())
    over = asyncio.ensure_future(ended(silent))
    sent = 1
    while not over.done():
        talking.write(b"x")
        sent += 1
        await asyncio.sleep(0.05)
    assert over.result()
    assert not stopping.done()
    talking.write(b"x" * (100 - sent))
    await answered(reader)
    await asyncio.wait_for(stopping, 10)
    for each in (writer, talking):
        each.close()


async def test_what_is_not_over_at_the_deadline_of_a_stop_is_cut_off() -> None:
    begun = asyncio.Semaphore(0)

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        begun.release()
        while True:
            await response.write(bytes(1 << 16))

    async def endless(_: web.Request) -> web.Response:
        begun.release()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_get("/large", large)
    app.router.add_get("/endless", endless)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=60)
    await runner.setup()
    deadline = Deadline()
    listener = await listen(runner, "127.0.0.1", 0, deadline=deadline)
    port = listener.sockets[0].getsockname()[1]
    opened = [await asyncio.open_connection("127.0.0.1", port, limit=1024) for _ in range(2)]
    for (_, writer), path in zip(opened, ("large", "endless"), strict=True):
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await begun.acquire()
    listener.close()
    deadline.at = asyncio.get_running_loop().time() + 0.5
    with capture_logs() as logs:
        await asyncio.wait_for(runner.cleanup(), 10)
    assert sorted(each["path"] for each in logs) == ["/endless", "/large"]
    assert {each["event"] for each in logs} == {"request_cut_off"}
    for _, writer in opened:
        writer.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no such sockets")
async def test_two_colons_are_all_addresses_of_ipv4_too() -> None:
    runner = web.AppRunner(web.Application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = await listen(runner, "::", 0)
    try:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 404")
        writer.close()
    finally:
        listener.close()
        await runner.cleanup()


async def number(api: Api, name: str) -> float:
    text = (await api.request("GET", "//metrics")).body.decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " "))


async def test_a_stranger_who_reads_nothing_is_cut_off_in_one_line(
    start_server: StartServer,
) -> None:
    server = start_server(SEND_QUEUE_TOTAL="1MiB")
    peers = []
    try:
        async with Api(server.url) as api, asyncio.timeout(20):
            cut = 0.0
            while cut < 5:
                peer = socket.socket()
                peers.append(peer)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                peer.connect(("127.0.0.1", server.port))
                peer.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")
                cut = await number(api, "parley_departing_cut_total")
                assert await number(api, "parley_departing_bytes") <= 1 << 20
    finally:
        for peer in peers:
            peer.close()
    await asyncio.to_thread(server.stop)
    written = server.log()
    assert written.count("too_much_departing") == 1
    assert "Traceback" not in written
