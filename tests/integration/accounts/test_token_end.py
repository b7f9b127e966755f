"""The end of a token, as the official clients live it: warned once per transport, renewed over the
socket, closed when it is not, and back with a newer one.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import pytest
import socketio

from tests.conftest import StartServer
from tests.support.node import NodeClient, NodeProcess, connect_node
from tests.support.recorder import Recorder, unwrap
from tests.support.rest import Account, Api

NAMESPACES = ("/messages", "/reactions", "/presence")
HARMLESS = ("stream.unsubscribe", {"streams": ["messages/none"]})
LIFE = 7
"""Seconds of an access token; half of it is enough for a few requests on a busy machine."""
WAYS = {"websocket": ["websocket"], "polling": ["polling"], "upgraded": ["polling", "websocket"]}


class Official(Protocol):
    """One client with one transport, and what was heard over it, by namespace."""

    heard: dict[str, Recorder]

    async def request(self, namespace: str, command: str, data: Any) -> Any:
        """The answer's data."""

    async def show(self, token: str) -> None:
        """The token to connect with from now on."""


class OnNode:
    """`socket.io-client`."""

    def __init__(self, clients: dict[str, NodeClient], process: NodeProcess) -> None:
        self._clients = clients
        self._process = process
        self.heard: dict[str, Recorder] = dict(clients)

    async def request(self, namespace: str, command: str, data: Any) -> Any:
        return await self._clients[namespace].call(command, data)

    async def show(self, token: str) -> None:
        for namespace in NAMESPACES:
            await self._process.ask("token", namespace=namespace, token=token)


class InPython:
    """`python-socketio`."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.client = socketio.AsyncClient(reconnection_delay=0.1, reconnection_delay_max=0.5)
        self.heard = {namespace: Recorder() for namespace in NAMESPACES}
        for namespace, recorder in self.heard.items():
            self.client.on("*", recorder.record, namespace=namespace)

    def auth(self) -> dict[str, str]:
        """What it shows when it connects."""
        return {"token": self._token}

    async def request(self, namespace: str, command: str, data: Any) -> Any:
        answer = await self.client.call(command, data, namespace=namespace, timeout=10)
        return unwrap(command, answer)

    async def show(self, token: str) -> None:
        self._token = token


@asynccontextmanager
async def official(kind: str, url: str, token: str, way: str) -> AsyncIterator[Official]:
    """A client that is in three namespaces over one transport."""
    async with AsyncExitStack() as stack:
        if kind == "python-socketio":
            python = InPython(token)
            await python.client.connect(
                url, auth=python.auth, namespaces=list(NAMESPACES), transports=WAYS[way]
            )
            stack.push_async_callback(python.client.disconnect)
            for recorder in python.heard.values():
                await recorder.wait_for("ready")
            yield python
            return
        process = await NodeProcess.start()
        clients: dict[str, NodeClient] = {}
        for namespace in NAMESPACES:
            options = {"transports": WAYS[way]}
            client = await connect_node(url, namespace, token, options=options, process=process)
            clients[namespace] = await stack.enter_async_context(client)
        yield OnNode(clients, process)


async def heard(client: Official, name: str) -> list[Any]:
    """All that has come of a name, after everything that was on its way."""
    for namespace in NAMESPACES:
        await client.request(namespace, *HARMLESS)
    return [each for recorder in client.heard.values() for each in recorder.named(name)]


async def until_heard(client: Official, name: str, count: int, within: float = 10.0) -> list[Any]:
    """Wait until something has come so many times, in all namespaces together; never more often."""
    async with asyncio.timeout(within):
        while len(found := await heard(client, name)) < count:
            await asyncio.sleep(0.05)
    assert len(found) == count
    return found


async def newer(api: Api, account: Account) -> str:
    """Another access token of the same session."""
    tokens = await api.post("/auth/refresh", {"refresh_token": account.refresh_token})
    account.refresh_token = tokens["refresh_token"]
    return str(tokens["access_token"])


CLIENTS = pytest.mark.parametrize("kind", ["socket.io-client", "python-socketio"])
TRANSPORTS = pytest.mark.parametrize("way", WAYS)


@CLIENTS
@TRANSPORTS
async def test_it_is_warned_a_minute_before_once_and_again_for_the_next_end(
    start_server: StartServer, kind: str, way: str
) -> None:
    server = start_server(ACCESS_TTL="62s")
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        async with official(kind, server.url, ann.token, way) as client:
            (warning,) = await until_heard(client, "auth.expiring", 1)
            assert warning["expires_in"] <= 61
            token = await newer(api, ann)
            answer = await client.request("/presence", "auth.refresh", {"token": token})
            assert answer["expires_at"] > warning["expires_at"]
            told = await until_heard(client, "auth.expiring", 2)
            ends = sorted(each["expires_at"] for each in told)
            assert ends == [warning["expires_at"], answer["expires_at"]], "once for each end"


@CLIENTS
@TRANSPORTS
async def test_it_lives_on_with_a_newer_token_and_comes_back_after_the_end(
    start_server: StartServer, kind: str, way: str
) -> None:
    server = start_server(ACCESS_TTL=f"{LIFE}s")
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        first_end = time.monotonic() + LIFE
        async with official(kind, server.url, ann.token, way) as client:
            await until_heard(client, "auth.expiring", 1)
            await asyncio.sleep(
                max(0.0, first_end - time.monotonic() - LIFE / 2)
            )  # for a later end
            token = await newer(api, ann)
            await client.request("/reactions", "auth.refresh", {"token": token})
            while time.monotonic() < first_end + 0.5:  # the first token has ended
                await heard(client, "auth.expiring")
                await asyncio.sleep(0.05)
            await until_heard(client, "auth.expiring", 2)
            for recorder in client.heard.values():
                assert len(recorder.named("ready")) == 1, "it was not closed"
            token = await newer(api, ann)
            await client.show(token)  # but does not send it: the connection ends
            for recorder in client.heard.values():
                told = await recorder.wait_for("closing", timeout=10)
                assert told == {"code": "token_expired", "reconnect": True}
                mark = next(n for n, each in enumerate(recorder.events) if each.name == "closing")
                await recorder.wait_for("ready", since=mark, timeout=10)
            # The new transport is told once too: of the token that it was opened with.
            *_, last = await until_heard(client, "auth.expiring", 3)
            assert last["expires_in"] <= LIFE


async def test_another_namespace_is_warned_if_the_one_that_was_is_left(
    start_server: StartServer,
) -> None:
    server = start_server(ACCESS_TTL="30s")  # it is warned at once
    async with Api(server.url) as api, AsyncExitStack() as stack:
        ann = await api.register("Ann")
        process = await NodeProcess.start()
        first, second = [
            await stack.enter_async_context(
                await connect_node(server.url, namespace, ann.token, process=process)
            )
            for namespace in ("/messages", "/reactions")
        ]
        warning = await first.wait_for("auth.expiring")
        await second.call(*HARMLESS)
        assert not second.named("auth.expiring")
        await process.ask("close", namespace="/messages")
        assert (await second.wait_for("auth.expiring"))["expires_at"] == warning["expires_at"]
