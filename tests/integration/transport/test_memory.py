"""What is over is freed by its reference count: the cycle collector hardly ever looks."""

import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from server.transport.session import Session
from server.transport.websocket import WebSocket
from tests.integration.transport.clients import Polling, RawSocket, until
from tests.integration.transport.reference import ReferenceServer

End = Callable[[ReferenceServer, aiohttp.ClientSession], Awaitable[None]]


def there() -> Counter[str]:
    """The objects of connections that are in memory, by type."""
    return Counter(
        type(each).__name__
        for each in gc.get_objects()
        if str(type(each).__module__).startswith(("server.transport.", "aiohttp.web_"))
        and type(each).__module__ != "aiohttp.web_urldispatcher"
    )


@pytest.fixture
async def no_collector() -> AsyncIterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def websocket(server: ReferenceServer, namespace: str = "") -> RawSocket:
    socket = await RawSocket.open(server.port)
    await socket.connect(namespace)
    return socket


async def cut_off(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    (await websocket(server)).abort()


async def handshake_and_gone(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    (await RawSocket.open(server.port)).abort()


async def said_goodbye(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    socket = await websocket(server)
    socket.send("41")
    socket.send("1")
    await socket.close_code()
    socket.abort()


async def sent_away(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    socket = await websocket(server)
    socket.send('42["close-me",false]')
    await socket.close_code()
    socket.abort()


async def malformed(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    socket = await websocket(server)
    socket.send("nonsense")
    await socket.close_code()
    socket.abort()


async def refused_at_connect(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    socket = await RawSocket.open(server.port)
    socket.send("40/refusing,")
    assert (await socket.receive()).startswith("44/refusing,")
    socket.send("40/unknown,")
    assert (await socket.receive()).startswith("44/unknown,")
    socket.abort()


async def never_answered(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    socket = await websocket(server)
    await socket.rest()
    socket.abort()


async def refused_handshake(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{server.url}/socket.io/?EIO=3&transport=polling") as response:
        assert response.status == 400
    with pytest.raises(ConnectionRefusedError):
        await RawSocket.open(server.port, headers="Origin: https://evil.example\r\n")
    async with http.get(server.polling_url + "&sid=unknown") as response:
        assert response.status == 400


async def polled(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    assert await polling.post("1") == (200, "ok")


async def polled_and_sent_away(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    await polling.post('42["close-me",true]')
    while (await polling.get())[0] == 200:
        pass


async def polled_and_gone(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()


async def upgraded(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    probe = await RawSocket.open(server.port, sid=polling.sid)
    probe.send("2probe")
    assert await probe.receive() == "3probe"
    probe.send("5")
    probe.send('42["message"]')
    assert await probe.receive() == '42["message-back"]'
    probe.abort()


async def probe_refused(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    probe = await RawSocket.open(server.port, sid=polling.sid)
    probe.send("nonsense")
    await probe.close_code()
    probe.abort()
    await polling.post("1")


ENDS: list[End] = [
    cut_off,
    handshake_and_gone,
    said_goodbye,
    sent_away,
    malformed,
    refused_at_connect,
    never_answered,
    refused_handshake,
    polled,
    polled_and_sent_away,
    polled_and_gone,
    upgraded,
    probe_refused,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_nothing_is_left_of_what_is_over(
    server: ReferenceServer, no_collector: None, end: End
) -> None:
    async def once() -> None:
        async with aiohttp.ClientSession() as http:
            await end(server, http)
        await until(lambda: not server.transport.sessions)

    others = there()  # what a test before this one may have left
    await once()  # what is made once for all
    await until(lambda: not there()["HttpConnection"] and not there()["RequestHandler"])
    before = there()
    for _ in range(3):
        await once()
    left: dict[str, Any] = {}

    def gone() -> bool:
        nonlocal left
        left = dict(there() - before)
        return not left

    try:
        await until(gone)
    except TimeoutError:
        pytest.fail(f"still there: {left}")
    kept = there() - others
    assert not kept[Session.__name__]
    assert not kept[WebSocket.__name__]
