"""Refused is said: in the log with origin, host and address, a bounded number of times."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.conftest import StartServer
from tests.integration.transport.clients import RawSocket, until
from tests.support.server import ServerProcess

FOREIGN = "https://elsewhere.example"


def lines(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    logged = [
        json.loads(line) for line in server.log_path.read_text().splitlines() if line[:1] == "{"
    ]
    return [each for each in logged if each["event"] == event]


async def test_each_door_says_whom_it_refused_and_why(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, LOG_FORMAT="json")
    socket_io = f"{server.url}/socket.io/"
    who = {"origin": FOREIGN, "host": f"127.0.0.1:{server.port}", "address": "127.0.0.1"}
    headers = {"Origin": FOREIGN}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(socket_io, params={"EIO": "4", "transport": "polling"}) as reply:
            assert reply.status == 403
        await until(lambda: len(lines(server, "handshake_refused")) == 1)
        with pytest.raises(ConnectionRefusedError, match="403"):
            await RawSocket.open(server.port, headers=f"Origin: {FOREIGN}\r\n")
        await until(lambda: len(lines(server, "handshake_refused")) == 2)
        for line in lines(server, "handshake_refused"):
            assert (
                line.items() >= {**who, "reason": "origin not allowed", "level": "warning"}.items()
            )
        async with http.options(
            f"{server.url}/api/v1/users/me", headers={"Access-Control-Request-Method": "GET"}
        ) as reply:
            assert "Access-Control-Allow-Origin" not in reply.headers
        await until(lambda: lines(server, "cors_refused"))
        (line,) = lines(server, "cors_refused")
        assert line.items() >= {**who, "reason": "origin not allowed", "method": "OPTIONS"}.items()

    raw = await RawSocket.open(server.port, headers=f"Origin: {server.url}\r\n")
    for namespace, auth, reason in (
        ("/messages", '{"token":"rubbish-and-secret"}', "unauthenticated"),
        ("/none", "{}", "Invalid namespace"),
    ):
        raw.send(f"40{namespace},{auth}")
        assert (await raw.receive()).startswith(f"44{namespace},")
        line = lines(server, "connect_refused")[-1]
        expected = {**who, "origin": server.url, "reason": reason, "namespace": namespace}
        assert line.items() >= {**expected, "transport": "websocket"}.items()
    text = server.log_path.read_text()
    assert "rubbish-and-secret" not in text
    assert raw.sid not in text
    raw.abort()


async def test_one_who_floods_does_not_fill_the_log(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, LOG_FORMAT="json")
    async with aiohttp.ClientSession(headers={"Origin": FOREIGN}) as http:
        for _ in range(40):
            async with http.get(f"{server.url}/socket.io/?EIO=4&transport=polling") as reply:
                assert reply.status == 403
        async with http.get(f"{server.url}/metrics") as reply:
            metrics = await reply.text()
    assert 'parley_handshakes_refused_total{reason="Forbidden"} 40.0' in metrics
    assert len(lines(server, "handshake_refused")) == 10


async def test_a_probe_that_says_nothing_is_not_malformed(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, LOG_FORMAT="json")
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.transport.abort()
    (await RawSocket.open(server.port)).abort()
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{server.url}/health/live") as reply:
            assert reply.status == 200
        async with http.get(f"{server.url}/metrics") as reply:
            assert "parley_malformed_closes_total 0.0" in await reply.text()
    assert "malformed" not in server.log_path.read_text()
