"""Order on one connection, and what happens to a client that does not keep up."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from domain.delivery import Delivery
from tests.integration.transport.clients import Polling, RawSocket, until
from tests.integration.transport.reference import ReferenceServer, serve


@pytest.fixture
def options() -> dict[str, object]:
    return {"ping_interval": 20.0, "ping_timeout": 20.0, "stuck_timeout": 0.5}


async def join(raw: RawSocket, room: str) -> None:
    raw.send(f'420["join","{room}"]')
    assert await raw.receive() == "430[]"


async def test_acks_rooms_and_direct_events_keep_their_order(
    server: ReferenceServer, raw: RawSocket
) -> None:
    """Many times over, so that rooms are busy and gather."""
    await raw.connect()
    await join(raw, "/a")
    (connection,) = server.application.connections.values()
    expected = []
    for n in range(0, 900, 3):
        server.hub.publish("/a", "n", b"%d" % n, Delivery.VOLATILE)
        connection.emit("n", n + 1)
        connection.acknowledge(b"7", [n + 2])  # type: ignore[attr-defined]
        expected += [f'42["n",{n}]', f'42["n",{n + 1}]', f"437[{n + 2}]"]
        if n % 10 == 0:
            await asyncio.sleep(0)
    assert [await raw.receive() for _ in expected] == expected


async def test_an_event_published_by_a_handler_comes_before_its_ack(
    server: ReferenceServer, raw: RawSocket
) -> None:
    await raw.connect()
    await join(raw, "/a")

    async def publish(connection: Any, name: str, args: Any) -> list[int]:
        server.hub.publish("/a", "said", b"%d" % args[0], Delivery.DURABLE)
        return [args[0]]

    server.application.event = publish  # type: ignore[method-assign]
    for n in range(50):
        raw.send(f'42{n}["say",{n}]')
    got = [await raw.receive() for _ in range(100)]
    assert got == [line for n in range(50) for line in (f'42["said",{n}]', f"43{n}[{n}]")]


async def test_what_is_emitted_while_connecting_follows_the_reply(
    server: ReferenceServer, raw: RawSocket
) -> None:
    application = server.application

    async def connect(connection: Any, auth: Any) -> None:
        server.hub.join("/a", connection)
        connection.emit("first")
        server.hub.publish("/a", "second", b"1", Delivery.DURABLE)
        await asyncio.sleep(0.02)
        connection.emit("third")
        application.connections[connection.id] = connection

    application.connect = connect  # type: ignore[method-assign]
    raw.send("40")
    raw.send('421["message-with-ack"]')
    assert (await raw.receive()).startswith("40{")
    assert [await raw.receive() for _ in range(4)] == [
        '42["first"]',
        '42["second",1]',
        '42["third"]',
        "431[]",
    ]


async def slow_client(server: ReferenceServer) -> tuple[RawSocket, Any]:
    """A connected client with small buffers that reads nothing by itself, in room /a."""
    before = set(server.application.connections)
    slow = await RawSocket.open(server.port, receive_buffer=4096, read_limit=1024)
    await slow.connect()
    await join(slow, "/a")
    (name,) = set(server.application.connections) - before
    return slow, server.application.connections[name]


async def fill(server: ReferenceServer, connection: Any) -> None:
    """Send durable events until the client's socket takes no more."""
    session = connection._session
    n = 0
    while connection.direct is not None:
        connection.emit("fill", n, "x" * 8000)
        n += 1
        if n % 16 == 0:
            await asyncio.sleep(0.001)
    assert session.out.waiting > 0


async def test_a_slow_client_loses_volatile_keeps_newest_latest_and_all_durable() -> None:
    async with serve(
        ping_interval=20.0, ping_timeout=20.0, stuck_timeout=20.0, max_queue=50_000_000
    ) as server:
        slow, connection = await slow_client(server)
        other = await RawSocket.open(server.port)
        await other.connect()
        await join(other, "/a")
        await fill(server, connection)
        hub = server.hub
        for n in range(100):
            hub.publish("/a", "typing", b"%d" % n, Delivery.VOLATILE)
            hub.publish("/a", "presence", b"%d" % n, Delivery.LATEST, f"user{n % 2}")
            hub.publish("/a", "message", b"%d" % n, Delivery.DURABLE)
            connection.emit("unread", n, delivery=Delivery.LATEST, key="me")
            await asyncio.sleep(0)
        healthy = [json.loads((await other.receive())[2:]) for _ in range(300)]
        assert [n for name, n in healthy if name == "message"] == list(range(100))
        assert [n for name, n in healthy if name == "typing"] == list(range(100))
        assert [n for name, n in healthy if name == "presence"] == list(range(100))
        counters = server.transport.counters
        assert counters.dropped == 100
        assert counters.coalesced == 98 + 99
        assert counters.queued_bytes > 0
        connection.emit("end")
        seen: list[Any] = []
        while not seen or seen[-1][0] != "end":
            seen.append(json.loads((await slow.receive())[2:]))
        fills = [args[0] for name, *args in seen if name == "fill"]
        assert fills == list(range(len(fills)))
        assert [args[0] for name, *args in seen if name == "message"] == list(range(100))
        assert [args[0] for name, *args in seen if name == "presence"] == [98, 99]
        assert [args[0] for name, *args in seen if name == "unread"] == [99]
        assert not [1 for name, *_ in seen if name == "typing"]
        await until(lambda: connection.direct is not None)
        assert counters.queued_bytes == 0
        hub.publish("/a", "typing", b"1", Delivery.VOLATILE)
        assert await slow.receive() == '42["typing",1]'
        slow.abort()
        other.abort()


async def test_a_stuck_client_is_closed_with_a_reason_and_others_are_not_held_up(
    server: ReferenceServer,
) -> None:
    slow, connection = await slow_client(server)
    other = await RawSocket.open(server.port)
    await other.connect()
    await join(other, "/a")
    await fill(server, connection)
    loop = asyncio.get_running_loop()
    times: list[float] = []
    while server.transport.sessions > 1:
        started = loop.time()
        server.hub.publish("/a", "n", b"1", Delivery.DURABLE)
        assert await other.receive() == '42["n",1]'
        times.append(loop.time() - started)
    assert sorted(times)[len(times) * 95 // 100] < 0.1
    assert server.transport.counters.closes == {"slow_consumer": 1}
    assert server.transport.counters.queued_bytes == 0
    await until(lambda: len(server.application.connections) == 1)
    assert server.application.disconnects == [(connection.id, "slow_consumer")]
    slow.abort()
    other.abort()


async def test_a_slow_client_that_comes_back_in_time_reads_the_reason(
    server: ReferenceServer,
) -> None:
    slow, connection = await slow_client(server)
    await fill(server, connection)
    await until(lambda: server.transport.counters.closes["slow_consumer"] == 1)
    assert (await slow.rest())[-1] == '42["closing",{"code":"slow_consumer","reconnect":true}]'
    slow.abort()


async def test_a_client_with_too_much_waiting_is_closed() -> None:
    async with serve(max_queue=200_000, stuck_timeout=60.0) as server:
        slow, connection = await slow_client(server)
        await fill(server, connection)
        for n in range(100):
            connection.emit("more", n, "x" * 8000)
            if connection.closed:
                break
            await asyncio.sleep(0)
        assert connection.closed
        assert server.transport.counters.closes == {"slow_consumer": 1}
        slow.abort()


async def test_past_the_cap_of_the_process_the_worst_goes_first() -> None:
    async with serve(
        max_queue=50_000_000, max_queued_total=2_000_000, stuck_timeout=60.0
    ) as server:
        worst, bad = await slow_client(server), await slow_client(server)
        for _, connection in (worst, bad):
            await fill(server, connection)
        for _ in range(20):
            bad[1].emit("more", "x" * 8000)
        for _ in range(250):
            worst[1].emit("more", "x" * 8000)
        await until(lambda: worst[1].closed)
        assert not bad[1].closed
        for socket, _ in (worst, bad):
            socket.abort()


async def test_a_polling_client_that_does_not_fetch_is_bounded_too(
    http: aiohttp.ClientSession,
) -> None:
    async with serve(max_queue=200_000, ping_interval=20.0) as server:
        polling = await Polling.open(http, server.polling_url)
        await polling.connect()
        (connection,) = server.application.connections.values()
        for n in range(1000):
            connection.emit("typing", n, "x" * 1000, delivery=Delivery.VOLATILE)
        assert server.transport.counters.dropped > 900
        assert not connection.closed
        for n in range(200):
            connection.emit("message", n, "x" * 1000)
        await until(lambda: connection.closed)
        status, body = await polling.get()
        assert (status, body) == (200, '42["closing",{"code":"slow_consumer","reconnect":true}]')
        assert (await polling.get())[0] == 400


async def test_a_polling_response_is_bounded_in_bytes(http: aiohttp.ClientSession) -> None:
    async with serve(max_payload=10_000, ping_interval=20.0) as server:
        polling = await Polling.open(http, server.polling_url)
        await polling.connect()
        (connection,) = server.application.connections.values()
        for n in range(100):
            connection.emit("n", n, "x" * 990)
        connection.emit("big", "x" * 20_000)
        sizes: list[int] = []
        events: list[str] = []
        while len(events) < 101:
            _, body = await polling.get()
            sizes.append(len(body))
            events += body.split("\x1e")
        assert [json.loads(e[2:])[1] for e in events[:100]] == list(range(100))
        assert max(sizes[:-1]) <= 10_200
        assert len(sizes) < 15


async def test_a_slow_handler_stops_reading_but_not_the_session() -> None:
    """Its client's pongs cannot be read for a while; it is alive nevertheless."""
    async with serve(ping_interval=0.2, ping_timeout=0.2, max_pending=8) as server:
        raw = await RawSocket.open(server.port)
        await raw.connect()
        server.application.gate.clear()
        for n in range(100):
            raw.send(f'42{n}["wait",{n}]')
        await asyncio.sleep(1.0)
        assert server.transport.sessions == 1
        assert len(server.application.events) == 1
        server.application.gate.set()
        assert [await raw.receive() for _ in range(100)] == [f"43{n}[{n}]" for n in range(100)]
        raw.abort()


async def test_what_was_sent_before_leaving_is_handled(
    server: ReferenceServer, raw: RawSocket
) -> None:
    await raw.connect()
    server.application.gate.clear()
    raw.send('42["wait"]')
    raw.send('42["message",1]')
    await until(lambda: server.application.events)
    raw.send("1")
    await until(lambda: server.transport.sessions == 0, 3.0)
    assert server.application.disconnects == []
    server.application.gate.set()
    await until(lambda: server.application.disconnects)
    assert [name for name, _ in server.application.events] == ["wait", "message"]
    assert [reason for _, reason in server.application.disconnects] == ["client disconnect"]


async def test_what_was_sent_before_being_revoked_is_not_handled(
    server: ReferenceServer, raw: RawSocket
) -> None:
    await raw.connect()
    (connection,) = server.application.connections.values()
    server.application.gate.clear()
    raw.send('42["wait"]')
    raw.send('42["message",1]')
    await until(lambda: server.application.events)
    connection.close("revoked", reconnect=False)
    server.application.gate.set()
    await until(lambda: server.application.disconnects)
    assert [name for name, _ in server.application.events] == ["wait"]


async def test_close_tells_every_namespace_after_what_was_sent(
    server: ReferenceServer, raw: RawSocket
) -> None:
    await raw.connect()
    await raw.connect("/custom,")
    connections = list(server.application.connections.values())
    await join(raw, "/a")
    server.hub.publish("/a", "last", b"1", Delivery.DURABLE)
    connections[0].close("token_expired", reconnect=True)
    connections[1].close("revoked", reconnect=False)
    body = '{"code":"token_expired","reconnect":true}'
    assert [await raw.receive() for _ in range(3)] == [
        '42["last",1]',
        f'42["closing",{body}]',
        f'42/custom,["closing",{body}]',
    ]
    assert await raw.close_code() == 1000
    raw.abort()
    await until(lambda: len(server.application.disconnects) == 2)
    assert {reason for _, reason in server.application.disconnects} == {"token_expired"}
    assert server.hub.rooms() == []


async def test_a_session_closed_in_the_middle_of_its_upgrade_is_told_why(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    """A client that has been answered its probe fetches no more."""
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    (connection,) = server.application.connections.values()
    socket = await RawSocket.open(server.port, sid=polling.sid)
    socket.send("2probe")
    assert await socket.receive() == "3probe"
    connection.close("token_expired", reconnect=True)
    socket.send("5")
    assert await socket.rest() == ['42["closing",{"code":"token_expired","reconnect":true}]']
    socket.abort()
    await until(lambda: server.transport.sessions == 0)
