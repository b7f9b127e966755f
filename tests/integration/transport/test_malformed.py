"""What no client should send: a clean end within a second, nobody else disturbed, no traceback."""

import asyncio
import logging

import aiohttp
import pytest

from tests.integration.transport.clients import Polling, RawSocket, frame, until
from tests.integration.transport.reference import ReferenceServer


@pytest.fixture
def options() -> dict[str, object]:
    return {"ping_interval": 20.0, "ping_timeout": 20.0, "connect_timeout": 20.0}


SECONDS = 2.0
"""Within a second, and as much again for a machine that does other things meanwhile."""

PLACEHOLDER = '{"_placeholder":true,"num":0}'

TEXTS = {
    "unknown Engine.IO type": "z",
    "empty": "",
    "unknown digit": "9",
    "open from a client": "0",
    "ping from a client": "2",
    "empty Socket.IO packet": "4",
    "unknown Socket.IO type": "4z",
    "refusal from a client": '44{"message":"x"}',
    "event without payload": "42",
    "event with an object": "42{}",
    "ack id too long": "42" + "1" * 401 + '["message"]',
    "ack id 10^400": "421" + "0" * 400 + '["message"]',
    "ack id negative": '42-1["message"]',
    "ack without id": "43[]",
    "binary header without count": f'45["message",{PLACEHOLDER}]',
    "binary header with huge count": f'45999999999-["message",{PLACEHOLDER}]',
    "binary header with too many": f'4517-["message",{PLACEHOLDER}]',
    "binary header negative": f'45-1-["message",{PLACEHOLDER}]',
    "text where an attachment is due": f'451-["message",{PLACEHOLDER}]\x00',
    "attachments never coming": f'451-["message",{PLACEHOLDER}]',
    "disconnect with payload": "41{}",
    "connect with a list": "40[]",
    "connect with a number": "401",
    "namespace too long": "40/" + "n" * 1000,
    "event for a namespace that does not exist": '42/none,["message"]',
    "event without the comma": '42/custom["message"]',
    "large and no packet": "42" + "x" * 70_000,
    "large and no ack's id": "42" + "1" * 70_000 + "[]",
    "binary ack from nowhere": "461-[]",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_websocket_text(
    server: ReferenceServer, raw: RawSocket, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    other = await RawSocket.open(server.port)
    await other.connect()
    await raw.connect()
    raw.send(text)
    async with asyncio.timeout(SECONDS):
        assert await raw.close_code() == 1007
        raw.abort()
        await until(lambda: server.transport.sessions == 1)
        await until(lambda: len(server.application.connections) == 1)
    other.send('42["message",1]')
    assert await other.receive() == '42["message-back",1]'
    other.abort()
    assert not caplog.records
    assert not [name for name, _ in server.application.events if name != "message"]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_websocket_text_before_connect(
    server: ReferenceServer, raw: RawSocket, text: str
) -> None:
    raw.send(text)
    async with asyncio.timeout(SECONDS):
        assert await raw.close_code() == 1007
    raw.abort()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_polling_text(
    server: ReferenceServer,
    http: aiohttp.ClientSession,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    caplog.set_level(logging.WARNING)
    await polling.post(text)
    async with asyncio.timeout(SECONDS):
        while (await polling.get())[0] == 200:
            pass
    await until(lambda: server.transport.sessions == 0)
    assert not caplog.records


FRAMES = {
    "not masked": (frame(b"40", masked=False), 1002),
    "reserved bit": (b"\xc1\x80\x00\x00\x00\x00", 1002),
    "unknown opcode": (frame(b"", 3), 1002),
    "continuation of nothing": (frame(b"x", 0), 1002),
    "a message inside another": (frame(b"4", fin=False) + frame(b"2"), 1002),
    "a ping in fragments": (frame(b"", 9, fin=False), 1002),
    "a ping too long": (frame(b"x" * 126, 9), 1002),
    "too large": (frame(b"4" * 65_537), 1009),
    "header says 2^63": (b"\x81\xff" + b"\x7f" + b"\xff" * 7, 1009),
    "too large in fragments": (frame(b"4" * 60_000, fin=False) + frame(b"4" * 6_000, 0), 1009),
    "not UTF-8": (frame(b'42["message","\xff\xfe"]'), 1007),
    "not UTF-8 in a namespace": (frame(b"40/\xff"), 1007),
    "an attachment without its packet": (frame(b"\x00", 2), 1007),
    "random": (bytes(range(1, 200)), 1002),
}


@pytest.mark.parametrize(("data", "code"), FRAMES.values(), ids=FRAMES.keys())
async def test_websocket_frame(
    server: ReferenceServer,
    raw: RawSocket,
    data: bytes,
    code: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await raw.connect()
    caplog.set_level(logging.WARNING)
    raw.send_raw(data)
    async with asyncio.timeout(SECONDS):
        assert await raw.close_code() == code
    raw.abort()
    await until(lambda: server.transport.sessions == 0)
    await until(lambda: not server.application.connections)
    assert not caplog.records


async def test_a_client_that_goes_on_sending_what_is_too_large_is_cut_off(
    server: ReferenceServer, raw: RawSocket
) -> None:
    await raw.connect()
    raw.send_raw(frame(b"4" * 65_537))
    for _ in range(200):
        raw.send_raw(b"x" * 65_536)
    await until(lambda: server.transport.sessions == 0, 2.0)


async def test_messages_in_pieces(raw: RawSocket) -> None:
    await raw.connect()
    text = '42["message","' + "ä" * 300 + '"]'
    whole = frame(b"4", fin=False) + frame(b"ping", 9) + frame(text.encode()[1:], 0)
    for at in range(0, len(whole), 7):
        raw.send_raw(whole[at : at + 7])
        await asyncio.sleep(0)
    assert await raw.receive() == ("pong", b"ping")
    assert await raw.receive() == '42["message-back","' + "ä" * 300 + '"]'


async def test_attachments_in_one_request_and_in_the_next(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    assert (await polling.post(f'451-["message",{PLACEHOLDER}]'))[0] == 200
    assert (await polling.post("bAQID"))[0] == 200
    assert await polling.packets(2) == [f'451-["message-back",{PLACEHOLDER}]', "bAQID"]


async def test_a_request_too_large(server: ReferenceServer, http: aiohttp.ClientSession) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    assert (await polling.post("4" * 65_537))[0] == 413
    assert (await polling.get())[0] == 400


async def test_a_chunked_request_too_large(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()

    async def body() -> object:
        for _ in range(100):
            yield b"4" * 8192

    try:
        async with http.post(polling.url, data=body()) as response:
            assert response.status == 413
    except aiohttp.ClientError:
        pass  # The answer may be lost when the server stops reading.
    assert (await polling.get())[0] == 400


@pytest.mark.alone
async def test_the_most_a_client_may_send_does_not_stall_others(server: ReferenceServer) -> None:
    """Keys as many as a frame holds, and small packets as many as one read brings.

    The best of some rounds: other programs on the machine may stall a round, not all of them.
    """
    other = await RawSocket.open(server.port)
    await other.connect()
    loop = asyncio.get_running_loop()
    keys = ",".join(f'"{n:x}":0' for n in range(7_000))
    payloads = [
        frame(f'42["message",{{{keys}}}]'.encode()),
        frame(b"3") * 9_000,
        frame(b'42["m"]') * 3_000,
    ]
    rounds: list[float] = []
    while len(rounds) < 2 or (min(rounds) >= 0.1 and len(rounds) < 8):
        hostile = await RawSocket.open(server.port)
        await hostile.connect()
        worst = 0.0
        for payload in payloads:
            hostile.send_raw(payload)
            for _ in range(3):
                started = loop.time()
                other.send('420["message-with-ack"]')
                assert await other.receive() == "430[]"
                worst = max(worst, loop.time() - started)
        rounds.append(worst)
        hostile.abort()
    assert min(rounds) < 0.1
    other.abort()


async def test_a_flood_ends_the_session() -> None:
    from tests.integration.transport.reference import serve

    async with serve(max_packet_rate=100) as server:
        raw = await RawSocket.open(server.port)
        await raw.connect()
        raw.send_raw(frame(b"3") * 501)
        assert await raw.receive() == '42["closing",{"code":"flood","reconnect":false}]'
        assert await raw.receive() == "41"
        assert await raw.close_code() == 1000
        assert server.transport.counters.closes == {"flood": 1}
        raw.abort()
