"""The endpoint as a whole: who may come in, how it ends, and what it takes from aiohttp."""

import asyncio
import gc
import json
import weakref
from typing import Any

import aiohttp
import pytest
from aiohttp import web, web_protocol

from tests.integration.transport.clients import Closed, Polling, RawSocket, frame, until
from tests.integration.transport.reference import ReferenceServer, serve


@pytest.fixture
def options() -> dict[str, object]:
    return {
        "ping_interval": 20.0,
        "ping_timeout": 20.0,
        "origins": lambda origin: origin.lower() == "https://app.example",
        "max_sessions": 20,
    }


ORIGINS = [
    (None, True),
    ("https://app.example", True),
    ("HTTPS://APP.EXAMPLE", True),
    ("own", True),
    ("http://127.0.0.1:1", False),
    ("https://app.example.evil.example", False),
    ("https://evil.example", False),
    ("null", False),
    ("", False),
    ("http://[", False),
]


@pytest.mark.parametrize(("origin", "allowed"), ORIGINS)
async def test_origins_on_every_request(
    server: ReferenceServer, http: aiohttp.ClientSession, origin: str | None, allowed: bool
) -> None:
    polling = await Polling.open(http, server.polling_url)
    if origin == "own":
        origin = server.url
    headers = {"Origin": origin} if origin is not None else {}
    for method, url in [("GET", server.polling_url), ("POST", polling.url)]:
        async with http.request(method, url, headers=headers, data="40") as response:
            assert response.status == (200 if allowed else 403)
            echoed = response.headers.get("Access-Control-Allow-Origin")
            assert echoed == (origin if allowed else None)
    async with http.options(server.polling_url, headers=headers) as response:
        assert response.status == (204 if allowed else 403)
        if allowed and origin:
            assert response.headers["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"
            assert response.headers["Access-Control-Allow-Credentials"] == "true"
    line = f"Origin: {origin}\r\n" if origin is not None else ""
    if allowed:
        raw = await RawSocket.open(server.port, headers=line)
        raw.abort()
    else:
        with pytest.raises(ConnectionRefusedError, match="403"):
            await RawSocket.open(server.port, headers=line)


OWN = "chat.example"


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        (OWN, "https://chat.example", True),
        (OWN, "wss://chat.example", True),
        (OWN, "ws://chat.example", True),
        (OWN, "https://chat.example:443", True),
        (OWN, "http://chat.example:80", True),
        ("chat.example:443", "https://chat.example", True),
        ("chat.example:443", "wss://chat.example", True),
        ("chat.example:80", "http://chat.example", True),
        ("CHAT.example:443", "https://chat.EXAMPLE:443", True),
        ("chat.example:8443", "wss://chat.example:8443", True),
        ("[2001:db8::1]:443", "https://[2001:db8::1]", True),
        ("chat.example:8443", "https://chat.example", False),
        (OWN, "https://chat.example:8443", False),
        (OWN, "https://evilchat.example", False),
        (OWN, "https://chat.example.evil", False),
        (OWN, "wss://chat.example.evil", False),
        (OWN, "https://chat.example.evil:443", False),
        (OWN, "https://chat.example@evil.example", False),
        (OWN, "https://evil.example/chat.example", False),
        (OWN, "https://evil.example#chat.example", False),
        (OWN, "https://x.chat.example", False),
        (OWN, "https://example", False),
        (OWN, "ftp://chat.example", False),
        (OWN, "capacitor://chat.example", False),
        (OWN, "chat.example", False),
        ("chat.example:4430", "https://chat.example", False),
    ],
)
async def test_the_own_origin_and_what_looks_like_it(
    server: ReferenceServer, http: aiohttp.ClientSession, host: str, origin: str, allowed: bool
) -> None:
    headers = {"Host": host, "Origin": origin}
    async with http.get(server.polling_url, headers=headers) as response:
        assert response.status == (200 if allowed else 403)
        credentials = response.headers.get("Access-Control-Allow-Credentials")
        assert credentials == ("true" if allowed else None)


async def test_any_origin_when_all_are_allowed(http: aiohttp.ClientSession) -> None:
    async with serve(origins=lambda origin: True, named_origins=lambda origin: False) as server:
        headers = {"Origin": "https://anywhere.example"}
        async with http.get(server.polling_url, headers=headers) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == "https://anywhere.example"
            assert "Access-Control-Allow-Credentials" not in response.headers


async def test_sessions_are_bounded(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    sockets = [await RawSocket.open(server.port) for _ in range(20)]
    async with http.get(server.polling_url) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
    with pytest.raises(ConnectionRefusedError, match="503"):
        await RawSocket.open(server.port)
    sockets.pop().abort()
    await until(lambda: server.transport.sessions == 19)
    sockets.append(await RawSocket.open(server.port))
    for socket in sockets:
        socket.abort()


async def test_drain_answers_what_was_sent_tells_everybody_and_refuses_newcomers(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    sockets = [await RawSocket.open(server.port) for _ in range(5)]
    for socket in sockets:
        await socket.connect()
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    poll = asyncio.create_task(polling.get())
    server.application.gate.clear()
    sockets[0].send('421["wait","done"]')
    await until(lambda: server.application.events)
    drain = asyncio.create_task(server.transport.drain(2.0))
    await asyncio.sleep(0.02)
    with pytest.raises(ConnectionRefusedError, match="503"):
        await RawSocket.open(server.port)
    server.application.gate.set()
    closing = '42["closing",{"code":"shutdown","reconnect":true}]'
    assert await sockets[0].receive() == '431["done"]'
    for socket in sockets:
        assert await socket.receive() == closing
        with pytest.raises(Closed):
            await socket.receive()
        socket.abort()
    assert await poll == (200, closing)
    await drain
    assert server.transport.sessions == 0
    assert len(server.application.disconnects) == 6
    assert server.application.connections == {}


async def test_drain_does_not_wait_for_a_client_that_does_not_read() -> None:
    async with serve(close_timeout=0.3) as server:
        slow = await RawSocket.open(server.port, receive_buffer=4096, read_limit=1024)
        await slow.connect()
        (connection,) = server.application.connections.values()
        while connection.direct is not None:
            connection.emit("fill", "x" * 8000)
            await asyncio.sleep(0)
        async with asyncio.timeout(3.0):
            await server.transport.drain(2.0)
        assert server.transport.sessions == 0
        slow.abort()


async def test_each_accepted_connection_is_disconnected_once(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    """However the sessions end, and with what came in still waiting."""
    seen = 0
    for way in ["abort", "close frame", "close packet", "malformed", "server"]:
        raw = await RawSocket.open(server.port)
        await raw.connect()
        await raw.connect("/custom,")
        connection = next(iter(server.application.connections.values()))
        raw.send('42["message"]')
        if way == "close frame":
            raw.send_raw(b"\x88\x80\x00\x00\x00\x00")
        elif way == "close packet":
            raw.send("1")
        elif way == "malformed":
            raw.send("z")
        elif way == "server":
            connection.close("revoked", reconnect=False)
        if way == "abort":
            raw.abort()
        else:
            await raw.close_code()
            raw.abort()
        seen += 2
        await until(lambda seen=seen: len(server.application.disconnects) == seen)
        await until(lambda: server.transport.sessions == 0)
    assert len({name for name, _ in server.application.disconnects}) == seen
    assert server.transport.counters.connections.total() == 0
    assert server.transport.counters.sessions == 0


async def test_a_client_that_leaves_while_connecting_is_disconnected_once(
    server: ReferenceServer,
) -> None:
    application = server.application
    gate = asyncio.Event()
    connected = application.connect

    async def connect(connection: Any, auth: Any) -> None:
        await gate.wait()
        server.hub.join("/a", connection)
        await connected(connection, auth)

    application.connect = connect  # type: ignore[method-assign]
    raw = await RawSocket.open(server.port)
    raw.send("40")
    await until(lambda: server.transport.counters.packets_in == 1)
    raw.abort()
    await until(lambda: server.transport.sessions == 0)
    gate.set()
    await until(lambda: len(application.disconnects) == 1)
    assert server.hub.rooms() == []


async def test_nothing_of_a_session_is_kept_after_its_end(server: ReferenceServer) -> None:
    raw = await RawSocket.open(server.port)
    await raw.connect()
    server_connection = next(iter(server.application.connections.values()))
    raw.send('420["join","/a"]')
    await raw.receive()
    raw.abort()
    await until(lambda: server.transport.sessions == 0)
    await until(lambda: not server.application.connections)
    assert server.hub.rooms() == []
    assert server.hub.rooms_of(server_connection) == []


async def test_what_the_transport_takes_from_aiohttp_is_there(server: ReferenceServer) -> None:
    """Names that an aiohttp release may move; see docs/decisions/0002-own-transport.md."""
    handler = web_protocol.RequestHandler
    assert callable(handler.set_parser)
    assert callable(handler.connection_lost)
    names = {name for cls in handler.__mro__ for name in getattr(cls, "__slots__", ())}
    assert {"transport", "_request_count", "_waiter"} <= names
    assert isinstance(web.BaseRequest.protocol, property)
    assert isinstance(web.BaseRequest.transport, property)


async def test_aiohttp_lets_go_of_a_connection_that_became_a_websocket(
    server: ReferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request handler, and with it parser, request and task, are freed."""
    made: list[weakref.ref[Any]] = []
    handled = server.transport._serve

    async def serve_request(request: web.Request, name: str, sid: str | None) -> Any:
        made.append(weakref.ref(request.task))
        return await handled(request, name, sid)

    monkeypatch.setattr(server.transport, "_serve", serve_request)
    gc.collect()  # what other tests left
    before = sum(issubclass(type(o), web_protocol.RequestHandler) for o in gc.get_objects())
    sockets = [await RawSocket.open(server.port) for _ in range(10)]
    for socket in sockets:
        await socket.connect()
    gc.collect()
    after = sum(issubclass(type(o), web_protocol.RequestHandler) for o in gc.get_objects())
    assert len(made) == 10
    assert not any(ref() for ref in made)
    assert after == before
    for socket in sockets:
        socket.send('42["message"]')
        assert await socket.receive() == '42["message-back"]'
        socket.abort()


async def test_what_comes_with_the_handshake_request_is_not_lost(server: ReferenceServer) -> None:
    """A client need not wait for the answer before it sends, and some proxies join the two."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n" + frame(b"40") + frame(b'421["message-with-ack",1]')
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    raw = RawSocket(reader, writer)
    assert json.loads((await raw.receive())[1:])["upgrades"] == []
    assert (await raw.receive()).startswith("40{")
    assert await raw.receive() == '42["auth",{}]'
    assert await raw.receive() == "431[1]"
    raw.abort()


async def test_stop_gives_up_a_handler_that_does_not_end(
    server: ReferenceServer, caplog: pytest.LogCaptureFixture
) -> None:
    stays, gone = [await RawSocket.open(server.port) for _ in range(2)]
    server.application.gate.clear()
    for raw in (stays, gone):
        await raw.connect()
        raw.send('42["wait"]')
    await until(lambda: len(server.application.events) == 2)
    gone.abort()
    await until(lambda: server.transport.sessions == 1)
    async with asyncio.timeout(2.0):
        await server.transport.stop(0.1)
    assert "did not end in time: 2" in caplog.text
    assert server.transport.sessions == 0
    assert not [task for task in asyncio.all_tasks() if "_work" in repr(task.get_coro())]
    stays.abort()
