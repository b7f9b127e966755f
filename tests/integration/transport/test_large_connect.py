"""A CONNECT packet carries `resume` and may be larger than all others: taken within bounds, refused
with an answer, never by a close that makes the client come back with the same.
"""

import asyncio
import json

import aiohttp
import pytest

from server.transport.large import MAX_FAILURES, MAX_PASSED_OVER
from tests.integration.transport.clients import Polling, RawSocket, frame, until
from tests.integration.transport.reference import ReferenceServer, serve

MAX_CONNECT = 300_000


@pytest.fixture
def options() -> dict[str, object]:
    return {
        "ping_interval": 20.0,
        "ping_timeout": 20.0,
        "connect_timeout": 20.0,
        "max_connect": MAX_CONNECT,
    }


def large(size: int, namespace: str = "") -> tuple[str, str]:
    """A CONNECT packet of this size, and its payload."""
    empty = f"40{namespace}" + json.dumps({"resume": ""})
    text = json.dumps({"resume": "x" * (size - len(empty))})
    return f"40{namespace}{text}", text


def fragments(packet: str, *sizes: int) -> bytes:
    """The packet as a browser sends it when its pipe is full."""
    data, parts = packet.encode(), list[bytes]()
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    parts.append(data)
    last = len(parts) - 1
    return b"".join([frame(part, 0 if n else 1, fin=n == last) for n, part in enumerate(parts)])


def error(packet: str, namespace: str = "") -> dict[str, object]:
    """The `data` of a CONNECT_ERROR."""
    assert packet.startswith(f"44{namespace}"), packet[:200]
    data: dict[str, object] = json.loads(packet[2 + len(namespace) :])["data"]
    return data


async def accepted(raw: RawSocket, text: str, namespace: str = "") -> bool:
    """Whether the CONNECT packet with this payload is answered, and came whole."""
    reply, greeting = await raw.receive(), await raw.receive()
    return (
        reply.startswith(f"40{namespace}")
        and greeting
        == f'42{namespace}["auth",' + json.dumps(json.loads(text), separators=(",", ":")) + "]"
    )


@pytest.mark.parametrize("cut", [(), (131_072,), (3, 65_536, 1, 0, 65_536), (65_536,) * 4])
async def test_it_is_taken_in_one_frame_and_in_fragments(raw: RawSocket, cut: list[int]) -> None:
    packet, text = large(MAX_CONNECT, "/custom,")
    raw.send_raw(fragments(packet, *cut))
    assert await accepted(raw, text, "/custom,")
    await raw.connect()
    raw.send('421["message-with-ack",1]')
    assert await raw.receive() == "431[1]"


async def test_it_is_taken_in_a_polling_request(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    packet, _ = large(200_000)
    assert await polling.post(f"{packet}\x1e40/custom,") == (200, "ok")
    found = await polling.packets(4)
    assert [each[:8] for each in found if each.startswith("40")] == ['40{"sid"', "40/custo"]
    assert server.transport.places.free == server.transport.options.max_large


@pytest.mark.parametrize("cut", [(), (131_072,), (10, 131_072, 0, 5, 131_072), (300_000, 30_000)])
async def test_one_too_large_is_refused_and_the_session_goes_on(
    server: ReferenceServer, raw: RawSocket, cut: list[int]
) -> None:
    packet, _ = large(MAX_CONNECT + 40_000, "/custom,")
    data = fragments(packet, *cut)
    if not cut:
        for at in range(0, len(data), 50_001):
            raw.send_raw(data[at : at + 50_001])
            await raw.writer.drain()
    else:
        raw.send_raw(data)
    refused = error(await raw.receive(), "/custom,")
    assert refused["code"] == "too_large"
    assert refused["data"] == {"limit": MAX_CONNECT}
    await raw.connect("/custom,")
    raw.send('42/custom,1["message-with-ack",1]')
    assert await raw.receive() == "43/custom,1[1]"
    assert server.transport.places.free == server.transport.options.max_large
    assert server.transport.counters.refused["CONNECT too_large"] == 1


async def test_one_too_large_is_refused_over_polling(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    packet, _ = large(MAX_CONNECT + 1, "/custom,")
    assert await polling.post(packet) == (200, "ok")
    (refused,) = await polling.packets(1)
    assert error(refused, "/custom,")["code"] == "too_large"

    async def chunks() -> object:
        for at in range(0, len(packet), 10_000):
            yield packet[at : at + 10_000].encode()

    async with http.post(polling.url, data=chunks()) as response:
        assert response.status == 200
    (refused,) = await polling.packets(1)
    assert error(refused, "/custom,")["code"] == "too_large"
    await polling.connect("/custom,")


async def test_what_is_far_too_large_ends_the_session(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    raw = await RawSocket.open(server.port)
    raw.send_raw(b"\x81\xff" + (MAX_PASSED_OVER + 1).to_bytes(8, "big") + b"\0\0\0\x0040")
    assert await raw.close_code() == 1009
    raw.abort()
    raw = await RawSocket.open(server.port)
    part = frame(b"40" + b"x" * 1_000_000, fin=False)
    with_next = frame(b"x" * 1_000_000, 0, fin=False)
    raw.send_raw(part)
    sent = 1
    while server.transport.sessions and sent < 30:
        raw.send_raw(with_next)
        await asyncio.sleep(0.01)
        sent += 1
    await until(lambda: server.transport.sessions == 0)
    raw.abort()
    polling = await Polling.open(http, server.polling_url)
    head = {"Content-Length": str(MAX_PASSED_OVER + 1)}
    async with http.post(polling.url, data=b"40", headers=head) as response:
        assert response.status == 413
    await until(lambda: server.transport.sessions == 0)


@pytest.mark.parametrize("packet", ["41" + "x" * 80_000, "3" + "0" * 80_000, "b" + "A" * 120_000])
async def test_no_other_packet_may_be_so_large(
    server: ReferenceServer, http: aiohttp.ClientSession, raw: RawSocket, packet: str
) -> None:
    await raw.connect()
    raw.send(packet)
    assert await raw.close_code() == 1009
    polling = await Polling.open(http, server.polling_url)
    assert (await polling.post(packet))[0] == 413
    polling = await Polling.open(http, server.polling_url)
    assert (await polling.post(f"40\x1e{packet}"))[0] == 413


async def test_a_session_may_fail_only_a_few_times(raw: RawSocket) -> None:
    packet, _ = large(100_000, "/refusing,")
    for _ in range(MAX_FAILURES):
        raw.send(packet)
        assert error(await raw.receive(), "/refusing,")["code"] == "forbidden"
    raw.send(packet)
    assert await raw.close_code() == 1007


async def test_an_accepted_connection_clears_the_failures(raw: RawSocket) -> None:
    refused, _ = large(100_000, "/refusing,")
    for namespace in ("", "/custom,"):
        for _ in range(MAX_FAILURES):
            raw.send(refused)
            assert error(await raw.receive(), "/refusing,")
        await raw.connect(namespace)


async def test_only_so_many_are_received_at_a_time() -> None:
    """The one that finds no place is told to try again; a place is free when its packet is
    handled, and when its connection breaks off.
    """
    async with serve(max_connect=MAX_CONNECT, max_large=1, ping_interval=20.0) as server:
        first, second, third = [await RawSocket.open(server.port) for _ in range(3)]
        packet, text = large(200_000)
        data = frame(packet.encode())
        first.send_raw(data[:150_000])
        await until(lambda: server.transport.places.free == 0)
        second.send(packet)
        assert error(await second.receive())["code"] == "unavailable"
        first.send_raw(data[150_000:])
        assert await accepted(first, text)
        assert server.transport.places.free == 1
        second.send_raw(data[:150_000])
        await until(lambda: server.transport.places.free == 0)
        second.abort()
        await until(lambda: server.transport.places.free == 1)
        third.send(packet)
        assert await accepted(third, text)
        for each in (first, third):
            each.abort()


async def test_nothing_more_is_taken_in_while_one_is_handled(
    server: ReferenceServer, raw: RawSocket
) -> None:
    application = server.application
    gate, connected = asyncio.Event(), application.connect

    async def connect(connection: object, auth: object) -> None:
        await gate.wait()
        await connected(connection, auth)  # type: ignore[arg-type]

    application.connect = connect  # type: ignore[method-assign]
    packet, text = large(MAX_CONNECT)
    raw.send(packet)
    await until(lambda: server.transport.counters.packets_in == 1)
    # Without echo: what a client does not read fast enough closes it.
    for _ in range(20):
        raw.send('42["take","' + "x" * 60_000 + '"]')
    raw.send('42["message","end"]')
    await asyncio.sleep(0.1)
    assert server.transport.counters.packets_in == 1
    gate.set()
    assert await accepted(raw, text)
    assert await raw.receive() == '42["message-back","end"]'
    assert len(application.events) == 21


async def test_what_waits_is_bounded_in_bytes(server: ReferenceServer, raw: RawSocket) -> None:
    await raw.connect()
    server.application.gate.clear()
    raw.send('42["wait"]')
    for _ in range(40):
        raw.send('42["take","' + "x" * 60_000 + '"]')
    raw.send('42["message","end"]')
    await until(lambda: server.application.events)
    before = 0
    while before != (before := server.transport.counters.packets_in):
        await asyncio.sleep(0.1)
    assert before < 20
    server.application.gate.set()
    assert await raw.receive() == '42["message-back","end"]'
    assert len(server.application.events) == 42


async def test_a_request_of_very_many_packets_is_a_flood(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    assert (await polling.post("40" + "\x1e3" * 100_000))[0] == 400
    assert server.transport.counters.closes == {"flood": 1}
