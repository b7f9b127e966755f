"""The cases of the public Socket.IO v5 test suite (socketio/socket.io-protocol), in Python."""

import asyncio
import json

import pytest

from tests.integration.transport.clients import RawSocket
from tests.integration.transport.reference import ReferenceServer

PLACEHOLDERS = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}'

# Connect.


@pytest.mark.parametrize("namespace", ["", "/custom,"])
@pytest.mark.parametrize(("sent", "greeting"), [("", "{}"), ('{"token":"123"}', '{"token":"123"}')])
async def test_connect(raw: RawSocket, namespace: str, sent: str, greeting: str) -> None:
    raw.send(f"40{namespace}{sent}")
    reply = await raw.receive()
    assert reply.startswith(f"40{namespace}")
    body = json.loads(reply[2 + len(namespace) :])
    assert set(body) == {"sid"}
    assert isinstance(body["sid"], str)
    assert await raw.receive() == f'42{namespace}["auth",{greeting}]'


async def test_connect_without_a_comma_and_with_a_query(raw: RawSocket) -> None:
    raw.send("40/custom?page=1")
    assert (await raw.receive()).startswith('40/custom,{"sid":')


async def test_connect_to_an_unknown_namespace_is_refused(raw: RawSocket) -> None:
    raw.send("40/random")
    assert await raw.receive() == '44/random,{"message":"Invalid namespace"}'


async def test_a_refused_connection_says_why(raw: RawSocket) -> None:
    raw.send("40/refusing,{}")
    assert await raw.receive() == '44/refusing,{"message":"No entry","data":{"code":"forbidden"}}'


async def test_connect_twice_is_once(server: ReferenceServer, raw: RawSocket) -> None:
    await raw.connect()
    raw.send("40")
    raw.send('42["message"]')
    assert await raw.receive() == '42["message-back"]'
    assert len(server.application.connections) == 1


async def test_an_invalid_connect_ends_the_session(raw: RawSocket) -> None:
    raw.send("4abc")
    assert await raw.close_code() == 1007


async def test_without_connect_the_session_ends(server: ReferenceServer, raw: RawSocket) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(Exception, match="closed with 1008"):
        await raw.receive()
    assert 0.9 < loop.time() - started < 4.0
    counters = server.transport.counters
    assert (counters.silent, counters.malformed) == (1, 0)


# Disconnect.


async def test_disconnect_from_the_main_namespace(server: ReferenceServer, raw: RawSocket) -> None:
    await raw.connect()
    raw.send("41")
    assert await raw.receive(pings=True) == "2"
    assert [reason for _, reason in server.application.disconnects] == [
        "client namespace disconnect"
    ]


async def test_disconnect_from_one_of_two_namespaces(
    server: ReferenceServer, raw: RawSocket
) -> None:
    await raw.connect()
    await raw.connect("/custom,")
    raw.send("41/custom")
    raw.send('42["message","message to main namespace"]')
    assert await raw.receive() == '42["message-back","message to main namespace"]'
    assert len(server.application.connections) == 1


async def test_connect_again_after_disconnect(server: ReferenceServer, raw: RawSocket) -> None:
    first = await raw.connect("/custom,")
    raw.send("41/custom,")
    second = await raw.connect("/custom,")
    assert first != second
    assert list(server.application.connections) == [second]


# Messages.


async def test_a_plain_message(raw: RawSocket) -> None:
    await raw.connect()
    raw.send('42["message",1,"2",{"3":[true]}]')
    assert await raw.receive() == '42["message-back",1,"2",{"3":[true]}]'


async def test_a_message_with_attachments(raw: RawSocket) -> None:
    await raw.connect()
    raw.send(f'452-["message",{PLACEHOLDERS}]')
    raw.send(b"\x01\x02\x03")
    raw.send(b"\x04\x05\x06")
    assert await raw.receive() == f'452-["message-back",{PLACEHOLDERS}]'
    assert await raw.receive() == b"\x01\x02\x03"
    assert await raw.receive() == b"\x04\x05\x06"


async def test_a_message_with_ack(raw: RawSocket) -> None:
    await raw.connect()
    raw.send('42456["message-with-ack",1,"2",{"3":[false]}]')
    assert await raw.receive() == '43456[1,"2",{"3":[false]}]'


async def test_a_message_with_attachments_and_ack(raw: RawSocket) -> None:
    await raw.connect("/custom,")
    raw.send(f'452-/custom,789["message-with-ack",{PLACEHOLDERS}]')
    raw.send(b"\x01\x02\x03")
    raw.send(b"\x04\x05\x06")
    assert await raw.receive() == f"462-/custom,789[{PLACEHOLDERS}]"
    assert await raw.receive() == b"\x01\x02\x03"
    assert await raw.receive() == b"\x04\x05\x06"


async def test_acks_of_one_session_come_in_order_though_a_handler_waits(
    server: ReferenceServer, raw: RawSocket
) -> None:
    await raw.connect()
    server.application.gate.clear()
    raw.send('421["wait",1]')
    for n in range(2, 10):
        raw.send(f'42{n}["message-with-ack",{n}]')
    other = await RawSocket.open(server.port)
    await other.connect()
    other.send('420["message-with-ack","other"]')
    assert await other.receive() == '430["other"]'
    assert [name for name, _ in server.application.events] == ["wait", "message-with-ack"]
    server.application.gate.set()
    assert [await raw.receive() for _ in range(9)] == [f"43{n}[{n}]" for n in range(1, 10)]
    other.abort()


@pytest.mark.parametrize(
    "packet",
    ["4abc", "42{}", '42abc["message-with-ack",1,"2",{"3":[false]}]'],
    ids=["unknown packet type", "invalid payload", "invalid ack id"],
)
async def test_an_invalid_packet_ends_the_session(
    server: ReferenceServer, raw: RawSocket, packet: str
) -> None:
    await raw.connect()
    raw.send(packet)
    assert await raw.close_code() == 1007
    raw.abort()


async def test_a_handler_that_fails_costs_one_event(
    raw: RawSocket, caplog: pytest.LogCaptureFixture
) -> None:
    await raw.connect()
    raw.send('421["fail"]')
    raw.send('422["message-with-ack"]')
    assert await raw.receive() == "432[]"
    assert "event failed" in caplog.text
