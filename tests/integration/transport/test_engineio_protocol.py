"""The cases of the public Engine.IO v4 test suite (socketio/engine.io-protocol), in Python."""

import asyncio
import json

import aiohttp
import pytest

from tests.integration.transport.clients import Polling, RawSocket
from tests.integration.transport.reference import ReferenceServer

HANDSHAKE_KEYS = {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}


def check_handshake(value: dict[str, object], upgrades: list[str]) -> None:
    assert set(value) == HANDSHAKE_KEYS
    assert isinstance(value["sid"], str)
    assert value["upgrades"] == upgrades
    assert value["pingInterval"] == 300
    assert value["pingTimeout"] == 200
    assert value["maxPayload"] == 65536


# Handshake.


async def test_polling_opens_a_session(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    async with http.get(server.polling_url) as response:
        assert response.status == 200
        body = await response.text()
    assert body[0] == "0"
    check_handshake(json.loads(body[1:]), ["websocket"])


@pytest.mark.parametrize(
    "query",
    [
        "transport=polling",
        "EIO=abc&transport=polling",
        "EIO=3&transport=polling",
        "EIO=4",
        "EIO=4&transport=abc",
        "EIO=4&transport=polling&sid=unknown",
        "EIO=4&transport=websocket",
    ],
)
async def test_polling_refuses_a_bad_handshake(
    server: ReferenceServer, http: aiohttp.ClientSession, query: str
) -> None:
    async with http.get(f"{server.url}/socket.io/?{query}") as response:
        assert response.status == 400
        assert set(await response.json()) == {"code", "message"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_polling_refuses_another_method(
    server: ReferenceServer, http: aiohttp.ClientSession, method: str
) -> None:
    async with http.request(method, server.polling_url) as response:
        assert response.status == 400


async def test_websocket_opens_a_session(raw: RawSocket) -> None:
    check_handshake(raw.handshake, [])


@pytest.mark.parametrize(
    "query",
    ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=abc"],
)
async def test_websocket_refuses_a_bad_handshake(
    server: ReferenceServer, http: aiohttp.ClientSession, query: str
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(f"{server.url}/socket.io/?{query}")
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "headers",
    [{"Sec-WebSocket-Version": "12"}, {"Sec-WebSocket-Key": "short"}, {"Sec-WebSocket-Key": ""}],
)
async def test_websocket_refuses_a_wrong_version_or_key(
    server: ReferenceServer, http: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    complete = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **headers,
    }
    async with http.get(server.ws_url.replace("ws:", "http:"), headers=complete) as response:
        assert response.status == 400


# Messages, over Socket.IO packets: a session carries nothing else.


async def test_polling_carries_several_packets_in_one_request(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    body = "\x1e".join(f'42["message",{n}]' for n in range(3))
    assert await polling.post(body) == (200, "ok")
    assert await polling.packets(3) == [f'42["message-back",{n}]' for n in range(3)]


async def test_polling_carries_text_and_binary(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    await polling.post(
        '42["message","hello"]\x1e451-["message",{"_placeholder":true,"num":0}]\x1ebAQIDBA=='
    )
    assert await polling.packets(3) == [
        '42["message-back","hello"]',
        '451-["message-back",{"_placeholder":true,"num":0}]',
        "bAQIDBA==",
    ]


async def test_polling_ends_on_an_invalid_packet(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    assert (await polling.post("abc"))[0] == 400
    assert (await polling.get())[0] == 400


async def test_polling_ends_on_two_polls_at_once(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    first = asyncio.create_task(polling.get())
    session = server.transport._sessions[polling.sid]
    while not session.out.poll_waiting:
        await asyncio.sleep(0.001)
    assert (await polling.get())[0] == 400
    assert await first == (200, "1")
    assert (await polling.get())[0] == 400


async def test_websocket_ends_on_an_invalid_packet(raw: RawSocket) -> None:
    raw.send("abc")
    assert await raw.close_code() == 1007


# Heartbeat.


@pytest.mark.alone
async def test_polling_pings(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    polling = await Polling.open(http, server.polling_url)
    for _ in range(3):
        assert await polling.get() == (200, "2")
        assert await polling.post("3") == (200, "ok")


async def test_polling_ends_without_pong(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await asyncio.sleep(0.3 + 0.2)
    assert (await polling.get())[0] == 400


@pytest.mark.alone
async def test_websocket_pings(raw: RawSocket) -> None:
    for _ in range(3):
        assert await raw.receive(pings=True) == "2"
        raw.send("3")


async def test_websocket_ends_without_pong(raw: RawSocket) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await raw.close_code() == 1000
    assert 0.3 < loop.time() - started < 3.0


# Close.


async def test_polling_closes(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    polling = await Polling.open(http, server.polling_url)
    poll = asyncio.create_task(polling.get())
    session = server.transport._sessions[polling.sid]
    while not session.out.poll_waiting:
        await asyncio.sleep(0.001)
    assert await polling.post("1") == (200, "ok")
    assert await poll == (200, "6")
    assert (await polling.get())[0] == 400
    assert server.transport.sessions == 0


async def test_websocket_closes(server: ReferenceServer, raw: RawSocket) -> None:
    raw.send("1")
    assert await raw.close_code() == 1000
    raw.abort()


# Upgrade.


async def test_upgrade(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    socket = await RawSocket.open(server.port, sid=polling.sid)
    socket.send("2probe")
    assert await socket.receive() == "3probe"
    assert await polling.get() == (200, "6")
    socket.send("5")
    socket.send('42["message","hello"]')
    assert await socket.receive() == '42["message-back","hello"]'
    socket.abort()


async def test_upgrade_ends_a_waiting_poll(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    poll = asyncio.create_task(polling.get())
    socket = await RawSocket.open(server.port, sid=polling.sid)
    socket.send("2probe")
    assert await socket.receive() == "3probe"
    assert await poll == (200, "6")
    socket.abort()


async def test_requests_are_refused_after_an_upgrade(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    socket = await RawSocket.open(server.port, sid=polling.sid)
    socket.send("2probe")
    socket.send("5")
    socket.send('42["message","one"]')
    assert await socket.receive() == "3probe"
    assert await socket.receive() == '42["message-back","one"]'
    assert (await polling.get())[0] == 400
    assert (await polling.post("3"))[0] == 400
    socket.send('42["message","two"]')
    assert await socket.receive() == '42["message-back","two"]'
    socket.abort()


async def test_a_second_websocket_is_closed_after_an_upgrade(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    socket = await RawSocket.open(server.port, sid=polling.sid)
    socket.send("2probe")
    socket.send("5")
    socket.send('42["message","one"]')
    assert await socket.receive() == "3probe"
    assert await socket.receive() == '42["message-back","one"]'
    second = await RawSocket.open(server.port, sid=polling.sid)
    assert await second.close_code() == 1000
    socket.send('42["message","two"]')
    assert await socket.receive() == '42["message-back","two"]'
    socket.abort()
    second.abort()


async def test_a_failed_upgrade_leaves_the_session_polling(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    socket = await RawSocket.open(server.port, sid=polling.sid)
    socket.send("2probe")
    assert await socket.receive() == "3probe"
    socket.send("z")
    assert await socket.close_code() == 1007
    await polling.post('42["message","still here"]')
    assert await polling.packets(1) == ['42["message-back","still here"]']
    socket.abort()


async def test_what_is_sent_between_probe_and_upgrade_arrives_once_and_in_order(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    (connection,) = server.application.connections.values()
    socket = await RawSocket.open(server.port, sid=polling.sid)
    socket.send("2probe")
    assert await socket.receive() == "3probe"
    for n in range(100):
        connection.emit("n", n)
    socket.send("5")
    connection.emit("n", 100)
    assert [await socket.receive() for _ in range(101)] == [f'42["n",{n}]' for n in range(101)]
    socket.abort()
