"""Connections that speak HTTP are counted: of one address, in all, and against file descriptors."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from server.http.accepting import RESERVE
from server.http.door import Door
from server.http.listener import listen
from server.transport.refusals import Refusals
from tests.conftest import StartServer
from tests.integration.http.test_refusals import lines
from tests.integration.transport.clients import RawSocket, until

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ONE, OTHER = "127.0.0.1", "127.0.0.2"

Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[..., Awaitable[Opened]]


@asynccontextmanager
async def serving(
    limit: int = 100, per_address: int = 100, unlimited: str = ""
) -> AsyncIterator[tuple[Connect, Door, asyncio.Event]]:
    """How to connect to a small application, from which address; its door, and what requests wait
    for.
    """
    go_on = asyncio.Event()

    begun = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal begun
        begun += 1
        await go_on.wait()
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    door = Door(
        limit=limit,
        per_address=per_address,
        unlimited=unlimited.__eq__,
        refusals=Refusals(),
    )
    listener = await listen(runner, ONE, 0, door=door)
    port = listener.sockets[0].getsockname()[1]
    opened: list[asyncio.StreamWriter] = []

    async def connect(address: str = ONE, said: bytes = b"") -> Opened:
        def seen() -> int:
            if said:
                return begun + sum(door.refused.values())
            return len(door) + door.evicted

        before = seen()
        reader, writer = await asyncio.open_connection(ONE, port, local_addr=(address, 0))
        opened.append(writer)
        writer.write(said)
        # Taken, in one way or another.
        await until(lambda: seen() > before)
        return reader, writer

    try:
        yield connect, door, go_on
    finally:
        go_on.set()
        for writer in opened:
            writer.transport.abort()
        await until(lambda: not door)
        listener.close()
        await runner.cleanup()


async def told(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and code of a refusal, after which the connection ends."""
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    assert b"\r\nRetry-After: " in head
    assert b"\r\nConnection: close\r\n" in head
    return int(head.split()[1]), json.loads(body)["code"]


async def ended(reader: asyncio.StreamReader) -> bool:
    return await asyncio.wait_for(reader.read(), 10) == b""


async def test_those_of_an_address_that_say_nothing_make_room_for_its_others() -> None:
    async with serving(per_address=3) as (connect, door, go_on):
        go_on.set()
        silent = [await connect() for _ in range(3)]
        reader, writer = await connect(said=REQUEST)
        assert await asyncio.wait_for(reader.readline(), 10) == b"HTTP/1.1 200 OK\r\n"
        assert await ended(silent[0][0])
        assert (len(door), door.evicted) == (3, 1)
        for _, each in (*silent, (reader, writer)):
            each.transport.abort()
        await until(lambda: not door)


async def test_an_address_whose_requests_are_all_busy_gets_no_more() -> None:
    async with serving(per_address=2) as (connect, door, _):
        for _ in range(2):
            await connect(said=REQUEST)
        reader, _ = await connect(said=REQUEST)
        assert await told(reader) == (429, "rate_limited")
        await connect(OTHER, REQUEST)
        assert len(door) == 3
        assert door.refused == {"address": 1}


async def test_an_address_behind_which_there_are_many_has_no_limit() -> None:
    async with serving(per_address=1, unlimited=ONE) as (connect, door, _):
        for _ in range(4):
            await connect()
        assert (len(door), door.evicted) == (4, 0)
        await connect(OTHER)
        await connect(OTHER)
        assert (len(door), door.evicted) == (5, 1)


async def test_whoever_has_most_makes_room() -> None:
    async with serving(limit=8) as (connect, door, go_on):
        go_on.set()
        mine, writer = await connect(OTHER, REQUEST)
        await mine.readuntil(b"\r\n\r\nok")
        flood = [await connect() for _ in range(12)]
        assert (len(door), door.evicted) == (8, 5)
        assert all([await ended(reader) for reader, _ in flood[:5]])
        writer.write(REQUEST)
        await asyncio.wait_for(mine.readuntil(b"\r\n\r\nok"), 10)


async def test_if_nobody_waits_there_is_no_room() -> None:
    async with serving(limit=2) as (connect, door, _):
        for address in (ONE, OTHER):
            await connect(address, REQUEST)
        reader, _ = await connect(said=REQUEST)
        assert await told(reader) == (503, "unavailable")
        assert door.refused == {"full": 1}


async def test_websockets_are_not_counted_here(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, MAX_CONNECTIONS=4)
    sockets = [await RawSocket.open(server.port) for _ in range(4)]
    async with aiohttp.ClientSession() as http, http.get(f"{server.url}/metrics") as reply:
        metrics = await reply.text()
    assert "parley_http_connections 1.0" in metrics
    assert "parley_sessions 4.0" in metrics
    for each in sockets:
        each.abort()
    await asyncio.sleep(0)


def files(pid: int) -> int:
    """The highest descriptor that a process has."""
    return max(int(each.name) for each in Path("/proc", str(pid), "fd").iterdir())


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system sets no others' limits")
async def test_file_descriptors_run_out_and_come_back(start_server: StartServer) -> None:
    """First silent connections make room; then, full of websockets, the server says so and
    refuses; with descriptors gone altogether who comes waits; after each it goes on."""
    server = await asyncio.to_thread(start_server, LOG_FORMAT="json")
    limit = resource.RLIMIT_NOFILE
    before = resource.prlimit(server.pid, limit)
    # So few that a quarter of them is what connections have to leave: room for 30.
    few = (files(server.pid) + 1 + 30) * 4 // 3
    assert few < 4 * RESERVE
    resource.prlimit(server.pid, limit, (few, before[1]))

    async def healthy() -> bool:
        async with aiohttp.ClientSession() as http:
            try:
                async with http.get(f"{server.url}/health/live") as reply:
                    return reply.status == 200
            except aiohttp.ClientError:
                return False

    silent = [await asyncio.open_connection(ONE, server.port) for _ in range(60)]
    assert await healthy()
    assert await asyncio.wait_for(silent[0][0].read(), 10) == b""
    (line,) = lines(server, "connections_not_taken")
    assert (line["level"], line["reason"]) == ("error", "file descriptors run out")

    sockets: list[RawSocket] = []
    while len(sockets) < 60:
        try:
            sockets.append(await RawSocket.open(server.port))
        except (ConnectionError, asyncio.IncompleteReadError):
            break
    assert 10 < len(sockets) < 60
    assert not await healthy()
    sockets[0].send("3")
    for each in sockets[1:]:
        each.abort()
    async with asyncio.timeout(10):
        while not await healthy():
            await asyncio.sleep(0.02)

    resource.prlimit(server.pid, limit, (16, before[1]))  # fewer than there are
    waiting = asyncio.create_task(healthy())
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    assert not done
    resource.prlimit(server.pid, limit, before)
    assert await waiting
    assert len(lines(server, "connections_not_taken")) == 1
    for _, writer in silent:
        writer.transport.abort()
    sockets[0].abort()
    await asyncio.sleep(0)  # for those to end
