"""Why a session was closed reaches the official clients before its end, and who may come back
does, on each transport and by itself.
"""

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import aiohttp
import pytest
import socketio

from tests.integration.transport.clients import Polling, until
from tests.integration.transport.reference import ReferenceServer, serve
from tests.support.node import NodeClient, NodeProcess

NAMESPACE = "/custom"


@pytest.fixture
def options() -> dict[str, Any]:
    return {"ping_interval": 20.0, "ping_timeout": 20.0}


class Official(Protocol):
    """An official client, and what happened to it, in order."""

    story: list[str]

    async def connect(self, url: str, transport: str) -> None: ...

    async def ask(self, event: str, data: Any) -> None: ...

    async def stop(self) -> None: ...


class Python:
    def __init__(self) -> None:
        self.story: list[str] = []
        self.client = client = socketio.AsyncClient(
            reconnection_delay=0.05, reconnection_delay_max=0.1, randomization_factor=0.0
        )
        client.on("connect", lambda: self.story.append("connect"), NAMESPACE)
        client.on("disconnect", lambda _: self.story.append("disconnect"), NAMESPACE)
        client.on("closing", lambda data: self.story.append(data["code"]), NAMESPACE)

    async def connect(self, url: str, transport: str) -> None:
        await self.client.connect(url, transports=[transport], namespaces=[NAMESPACE])

    async def ask(self, event: str, data: Any) -> None:
        await self.client.emit(event, data, namespace=NAMESPACE)

    async def stop(self) -> None:
        await self.client.shutdown()


class _Told(NodeClient):
    def __init__(self, process: NodeProcess, story: list[str]) -> None:
        super().__init__(process, NAMESPACE)
        self.story = story

    def on_said(self, said: dict[str, Any]) -> None:
        super().on_said(said)
        if said.get("event") == "closing":
            self.story.append(said["args"][0]["code"])
        elif said.get("state") in ("connected", "disconnected"):
            self.story.append(said["state"].removesuffix("ed"))


class JavaScript:
    def __init__(self) -> None:
        self.story: list[str] = []

    async def connect(self, url: str, transport: str) -> None:
        self.process = await NodeProcess.start()
        self.process.clients[NAMESPACE] = _Told(self.process, self.story)
        options = {"transports": [transport], "reconnectionDelay": 50, "reconnectionDelayMax": 100}
        await self.process.ask("connect", url=url, namespace=NAMESPACE, options=options)

    async def ask(self, event: str, data: Any) -> None:
        await self.process.ask("emit", namespace=NAMESPACE, event=event, data=data)

    async def stop(self) -> None:
        await self.process.stop()


CLIENTS = pytest.mark.parametrize("kind", [Python, JavaScript])
TRANSPORTS = pytest.mark.parametrize("transport", ["polling", "websocket"])


@CLIENTS
@TRANSPORTS
async def test_who_may_come_back_does(
    server: ReferenceServer, kind: type[Official], transport: str
) -> None:
    client = kind()
    await client.connect(server.url, transport)
    try:
        for times in (1, 2):
            await until(lambda times=times: client.story.count("connect") == times)
            await client.ask("close-me", True)
        await until(lambda: client.story.count("connect") == 3)
    finally:
        await client.stop()
    assert client.story[:7] == ["connect", "slow_consumer", "disconnect"] * 2 + ["connect"]


@CLIENTS
@TRANSPORTS
async def test_who_may_not_come_back_does_not(
    server: ReferenceServer, kind: type[Official], transport: str
) -> None:
    client = kind()
    await client.connect(server.url, transport)
    try:
        await until(lambda: client.story == ["connect"])
        await client.ask("close-me", False)
        await until(lambda: "disconnect" in client.story)
        await until(lambda: not server.transport.sessions)
        with suppress(TimeoutError):  # several times as long as it would take
            async with asyncio.timeout(0.5):
                await until(lambda: client.story[-1] == "connect")
    finally:
        await client.stop()
    assert client.story == ["connect", "revoked", "disconnect"]


@CLIENTS
@TRANSPORTS
async def test_a_restart_is_told_and_survived(kind: type[Official], transport: str) -> None:
    client = kind()
    async with serve(ping_interval=20.0) as server:
        await client.connect(server.url, transport)
        await until(lambda: client.story == ["connect"])
        async with asyncio.timeout(2.0):  # one client is no reason to wait
            await server.transport.drain(10.0)
    try:
        async with serve(server.port, ping_interval=20.0):
            await until(lambda: client.story.count("connect") == 2)
            assert client.story == ["connect", "shutdown", "disconnect", "connect"]
    finally:
        await client.stop()


@pytest.mark.parametrize("reconnect", [True, False])
async def test_who_is_between_two_polls_hears_it(
    server: ReferenceServer, http: aiohttp.ClientSession, reconnect: bool
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    (connection,) = server.application.connections.values()
    connection.close("revoked", reconnect=reconnect)
    # What it sends meanwhile is no reason to turn it away before it knows.
    assert await polling.post('42["message"]') == (200, "ok")
    status, body = await polling.get()
    assert status == 200
    assert (
        body.split("\x1e")[0]
        == f'42["closing",{{"code":"revoked","reconnect":{str(reconnect).lower()}}}]'
    )
    assert (await polling.get())[0] == 400
    assert server.application.events == []
    assert server.transport.sessions == 0


@CLIENTS
async def test_who_stood_still_comes_back(kind: type[Official]) -> None:
    """Its poll waits, and its answer to the ping does not come in time."""
    client = kind()
    async with serve(ping_interval=20.0) as server:
        await client.connect(server.url, "polling")
        try:
            await until(lambda: client.story == ["connect"])
            (session,) = server.transport._sessions.values()
            await until(lambda: session.out.poll_waiting)
            session.lost("ping timeout")
            await until(lambda: client.story == ["connect", "disconnect", "connect"])
        finally:
            await client.stop()


async def test_who_never_polls_again_is_forgotten(http: aiohttp.ClientSession) -> None:
    async with serve(last_poll_timeout=0.2, ping_interval=20.0) as server:
        polling = await Polling.open(http, server.polling_url)
        await polling.connect()
        (connection,) = server.application.connections.values()
        connection.emit("message", "x" * 1000)
        connection.close("revoked", reconnect=False)
        await until(lambda: not server.transport.sessions)
        assert server.transport.counters.queued_bytes == 0


async def test_last_words_give_way_when_too_much_waits(http: aiohttp.ClientSession) -> None:
    async with serve(max_queued_total=100_000, ping_interval=20.0) as server:
        first = await Polling.open(http, server.polling_url)
        await first.connect()
        (connection,) = server.application.connections.values()
        connection.emit("message", "x" * 90_000)
        connection.close("revoked", reconnect=False)
        second = await Polling.open(http, server.polling_url)
        await second.connect()
        (other,) = server.application.connections.values()
        other.emit("message", "x" * 50_000)
        await until(lambda: server.transport.sessions == 1)
        assert not other.closed
