"""`/docs` and `/metrics` can be switched off, or given an address of their own."""

import socket
from collections.abc import Callable

import aiohttp
import pytest

from deploy.local.ports import free_port
from tests.support.server import ServerFailed, ServerProcess

DOCS = ("/docs", "/openapi.json", "/asyncapi.json", "/docs/start.js", "/")
METRICS = "/metrics"


async def statuses(url: str, *paths: str) -> set[int]:
    found = set()
    async with aiohttp.ClientSession() as session:
        for path in paths:
            async with session.get(url + path, allow_redirects=False) as answer:
                found.add(200 if answer.status == 302 else answer.status)
    return found


async def test_switched_off(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(DOCS="off", METRICS="off")
    assert await statuses(server.url, *DOCS, METRICS) == {404}
    assert "/docs" not in server.log().split("request", 1)[0]


@pytest.mark.parametrize("shared", [True, False], ids=["one address", "two addresses"])
async def test_at_an_address_of_their_own(
    start_server: Callable[..., ServerProcess], shared: bool
) -> None:
    docs = f"127.0.0.1:{free_port()}"
    metrics = docs if shared else f"127.0.0.1:{free_port()}"
    server = start_server(DOCS=docs, METRICS=metrics)
    assert await statuses(server.url, *DOCS, METRICS) == {404}
    assert await statuses(f"http://{docs}", *DOCS) == {200}
    assert await statuses(f"http://{metrics}", METRICS) == {200}
    assert await statuses(f"http://{docs}", METRICS) == {200 if shared else 404}
    assert await statuses(f"http://{metrics}", "/api/v1/users/me", "/health/live") == {404}
    assert f"http://{docs}/docs" in server.log()


def test_an_address_that_is_taken_stops_the_start(
    start_server: Callable[..., ServerProcess],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerFailed, match=f"cannot listen on 127.0.0.1:{port}"):
            start_server(METRICS=f"127.0.0.1:{port}")
