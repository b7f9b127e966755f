"""`PARLEY_MAX_CONNECTIONS_PER_USER` and `_PER_ADDRESS`, as clients and operators meet them."""

import asyncio

import aiohttp
import pytest

from tests.conftest import StartServer
from tests.integration.http.test_refusals import lines
from tests.integration.transport.clients import RawSocket
from tests.support.client import connect
from tests.support.recorder import ConnectRefused
from tests.support.rest import Api

PROXIED = "X-Forwarded-For: {}\r\n"


async def test_a_user_with_too_many_connections_is_told_so(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, MAX_CONNECTIONS_PER_USER=2, LOG_FORMAT="json")
    async with Api(server.url) as api:
        ann, ben = await api.register("Ann"), await api.register("Ben")
        first = await connect(server.url, "/messages", ann.token)
        second = await connect(server.url, "/presence", ann.token)
        with pytest.raises(ConnectRefused) as refused:
            await connect(server.url, "/messages", ann.token)
        error = refused.value.data
        assert error["code"] == "rate_limited"
        assert error["retry_after"] > 0
        assert "too many connections" in error["message"]
        (line,) = lines(server, "connect_refused")
        assert line["reason"] == "rate_limited"
        other = await connect(server.url, "/messages", ben.token)
        await first.close()
        again = None
        async with asyncio.timeout(5):
            while again is None:
                try:
                    again = await connect(server.url, "/messages", ann.token)
                except ConnectRefused:
                    await asyncio.sleep(0.02)
        for each in (second, other, again):
            await each.close()


async def test_who_comes_through_a_proxy_is_counted_and_the_proxy_is_not(
    start_server: StartServer,
) -> None:
    server = await asyncio.to_thread(
        start_server,
        MAX_CONNECTIONS_PER_ADDRESS=2,
        TRUSTED_PROXIES="127.0.0.1",
        LOG_FORMAT="json",
    )
    opened = [await RawSocket.open(server.port) for _ in range(4)]
    crowd = PROXIED.format("198.51.100.1")
    opened += [await RawSocket.open(server.port, headers=crowd) for _ in range(2)]
    with pytest.raises(ConnectionRefusedError, match="429"):
        await RawSocket.open(server.port, headers=crowd)
    opened.append(await RawSocket.open(server.port, headers=PROXIED.format("198.51.100.2")))
    (line,) = lines(server, "handshake_refused")
    assert (line["address"], line["reason"]) == (
        "198.51.100.1",
        "Too many connections from this address",
    )
    async with aiohttp.ClientSession() as http:
        async with http.get(
            f"{server.url}/socket.io/?EIO=4&transport=polling",
            headers={"X-Forwarded-For": "198.51.100.1"},
        ) as reply:
            assert reply.status == 429
            assert (await reply.json())["message"] == line["reason"]
        async with http.get(f"{server.url}/metrics") as reply:
            metrics = await reply.text()
    name = 'parley_handshakes_refused_total{reason="Too many connections from this address"}'
    assert f"{name} 2.0" in metrics
    for each in opened:
        each.abort()
