"""Sessions have a number: of one address, of one user, in all. Who floods keeps nobody out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from server.transport import admission
from server.transport.application import Connection, ConnectRefused
from tests.integration.transport.clients import Polling, RawSocket, until
from tests.integration.transport.reference import ReferenceApplication, ReferenceServer, serve

TIMES: dict[str, Any] = {"ping_interval": 20.0, "ping_timeout": 20.0, "connect_timeout": 20.0}
OPENED: list[RawSocket] = []
ATTACKER, HONEST = "198.51.100.1", "203.0.113.7"


def said(request: web.BaseRequest) -> str:
    """The address that a test's request claims."""
    return request.headers.get("From", HONEST)


class Owned(ReferenceApplication):
    """Connections are those of the user that they name."""

    async def connect(self, connection: Connection, auth: Any) -> None:
        if not connection.claim(auth["user"]):
            raise ConnectRefused("too many", {"code": "rate_limited"})
        await super().connect(connection, auth)


@asynccontextmanager
async def serving(application: Any = Owned, **options: Any) -> AsyncIterator[ReferenceServer]:
    async with serve(application=application(), address=said, **(TIMES | options)) as server:
        try:
            yield server
        finally:
            for raw in OPENED:
                raw.abort()
            OPENED.clear()


async def open_socket(server: ReferenceServer, address: str = HONEST) -> RawSocket:
    """A websocket of somebody who has said nothing yet."""
    raw = await RawSocket.open(server.port, headers=f"From: {address}\r\n")
    OPENED.append(raw)
    return raw


async def enter(server: ReferenceServer, user: str, address: str = HONEST) -> RawSocket:
    """A websocket of a user who is in."""
    raw = await open_socket(server, address)
    await raw.connect(auth=f'{{"user":"{user}"}}')
    return raw


async def knock(http: aiohttp.ClientSession, server: ReferenceServer, address: str) -> int:
    """The status of a handshake by polling, of one that says nothing further."""
    async with http.get(server.polling_url, headers={"From": address}) as response:
        if response.status >= 400:
            assert response.headers["Retry-After"] == "1"
        return response.status


async def works(raw: RawSocket) -> None:
    raw.send('421["message-with-ack",1]')
    assert await raw.receive() == "431[1]"


async def test_an_address_has_so_many_sessions_and_no_more(http: aiohttp.ClientSession) -> None:
    async with serving(max_sessions_per_address=3) as server:
        inside = [await enter(server, "ann", ATTACKER) for _ in range(2)]
        assert await knock(http, server, ATTACKER) == 200
        assert await knock(http, server, ATTACKER) == 429
        with pytest.raises(ConnectionRefusedError, match="429"):
            await open_socket(server, ATTACKER)
        assert await knock(http, server, HONEST) == 200
        assert server.transport.counters.refused == {admission.SAME_ADDRESS: 2}
        inside[0].abort()
        await until(lambda: server.transport.sessions == 3)
        assert await knock(http, server, ATTACKER) == 200
        await works(inside[1])


async def test_addresses_of_one_ipv6_network_count_together(http: aiohttp.ClientSession) -> None:
    async with serving(max_sessions_per_address=2) as server:
        for host, status in ((1, 200), (2, 200), (3, 429)):
            assert await knock(http, server, f"2001:db8:0:1::{host}") == status
        assert await knock(http, server, "2001:db8:0:2::1") == 200


async def test_an_address_behind_which_there_are_many_has_no_limit(
    http: aiohttp.ClientSession,
) -> None:
    async with serving(max_sessions_per_address=1, unlimited=HONEST.__eq__) as server:
        for _ in range(4):
            assert await knock(http, server, HONEST) == 200


async def test_those_who_say_nothing_make_room_for_others_at_their_address(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "STRANGER_SECONDS", 0.05)
    async with serving(max_sessions_per_address=2) as server:
        assert await knock(http, server, ATTACKER) == 200
        assert await knock(http, server, ATTACKER) == 200
        await asyncio.sleep(0.06)
        inside = await enter(server, "ann", ATTACKER)
        assert server.transport.sessions == 2
        assert server.transport.counters.evicted == {"stranger": 1}
        await works(inside)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_user_has_so_many_sessions_and_no_more(
    http: aiohttp.ClientSession, transport: str
) -> None:
    async with serving(max_sessions_per_user=2) as server:
        inside = [await enter(server, "ann") for _ in range(2)]
        if transport == "websocket":
            third = await open_socket(server)
            third.send('40{"user":"ann"}')
            answer = await third.receive()
            third.send('40{"user":"ben"}')
            assert (await third.receive()).startswith("40")
        else:
            polling = await Polling.open(http, server.polling_url)
            await polling.post('40{"user":"ann"}')
            (answer,) = await polling.packets(1)
            await polling.post('40{"user":"ben"}')
            assert (await polling.packets(1))[0].startswith("40")
        assert answer.startswith("44")
        assert "rate_limited" in answer
        inside[0].abort()
        await until(lambda: server.transport.sessions == 2)
        await enter(server, "ann")
        await works(inside[1])


async def test_namespaces_of_one_session_count_once() -> None:
    async with serving(max_sessions_per_user=1) as server:
        raw = await enter(server, "ann")
        await raw.connect("/custom,", '{"user":"ann"}')
        raw.send("41")
        await until(lambda: len(server.application.connections) == 1)
        await raw.connect("", '{"user":"ann"}')
        await works(raw)


async def test_a_session_that_left_all_namespaces_is_a_strangers(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one account could fill a node with sessions that are nobody's."""
    monkeypatch.setattr(admission, "STRANGER_SECONDS", 0.05)
    async with serving(max_sessions=3, max_sessions_per_user=1) as server:
        for _ in range(3):
            raw = await enter(server, "ann")
            raw.send("41")
            await until(lambda: not server.application.connections)
        await asyncio.sleep(0.06)
        assert await knock(http, server, HONEST) == 200
        assert server.transport.counters.evicted == {"stranger": 1}


async def test_whoever_left_all_namespaces_has_a_time_to_come_back() -> None:
    async with serving(ReferenceApplication, connect_timeout=0.2) as server:
        raw = await open_socket(server)
        await raw.connect()
        raw.send("41")
        raw.send('421["message-with-ack",1]')  # too late, but no offence
        await raw.connect()
        await works(raw)
        raw.send("41")
        assert await raw.close_code() == 1008


async def test_one_address_that_floods_keeps_nobody_out(http: aiohttp.ClientSession) -> None:
    """Its sessions make room at once, however fast it opens new ones."""
    async with serving(max_sessions=20) as server:
        inside = await enter(server, "ann")
        other = await Polling.open(http, server.polling_url)
        while await knock(http, server, ATTACKER) == 200:
            assert server.transport.sessions <= 20
        newcomers = [await enter(server, f"user{number}") for number in range(5)]
        assert (await other.post('40{"user":"ben"}'))[0] == 200
        for each in (inside, *newcomers):
            await works(each)
        assert server.transport.sessions == 20
        assert server.transport.counters.evicted == {"stranger": 5}


async def test_one_user_who_floods_keeps_nobody_out(http: aiohttp.ClientSession) -> None:
    """The oldest of those who have most is told, and goes; nobody with few loses any."""
    few = admission.FEW
    async with serving(max_sessions=few + 3) as server:
        inside = [await enter(server, "ann") for _ in range(2)]
        flood = [await enter(server, "eve") for _ in range(few + 1)]
        newcomer = await enter(server, "ben")
        assert (await flood[0].rest())[-1] == (
            '42["closing",{"code":"too_many_connections","reconnect":true}]'
        )
        await until(lambda: server.transport.sessions == few + 3)
        for each in (*inside, *flood[1:], newcomer):
            await works(each)
        assert server.transport.counters.evicted == {"user": 1}
        # Now nobody has more than a few: who comes is refused.
        assert await knock(http, server, HONEST) == 503


async def test_nothing_is_counted_of_those_who_left() -> None:
    async with serving(max_sessions_per_address=4, max_sessions_per_user=4) as server:
        for _ in range(5):
            sockets = [await enter(server, "ann") for _ in range(3)]
            strangers = [await open_socket(server)]
            for each in (*sockets, *strangers):
                each.abort()
            await until(lambda: server.transport.sessions == 0)
