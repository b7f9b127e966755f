"""`PARLEY_BASE_PATH`: everything works below a path, behind an nginx that keeps it or takes it away."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
import socketio

from deploy.local.ports import free_port
from tests.conftest import StartServer
from tests.integration.docs.test_docs import run
from tests.support.nginx import Nginx, here
from tests.support.node import connect_node
from tests.support.rest import Api
from tests.support.server import ServerFailed, ServerProcess
from tests.support.snippets import DOCS, block, named, script

BASE = "/chat"
SOCKETS = f"{BASE}/socket.io/"

OPERATIONS = DOCS / "operations.md"


def site(taken_away: bool) -> str:
    """The documented site with the documented change."""
    text = named(OPERATIONS, "nginx.conf")
    place, passed, end = named(OPERATIONS, "nginx-below.conf").splitlines()
    assert end.strip() == "}"
    if taken_away:
        passed = passed.replace("http://parley;", "http://parley/;")
    text, places = re.subn(r"    location / \{\n +proxy_pass .*", f"{place}\n{passed}", text)
    assert places == 1
    return text.replace("location = /metrics", f"location = {BASE}/metrics")


@pytest.fixture(params=["kept", "taken away"])
def below(
    request: pytest.FixtureRequest, start_server: StartServer, tmp_path: Path
) -> Iterator[tuple[str, ServerProcess]]:
    """A server's address below `/chat`, and the server."""
    server = start_server(BASE_PATH=f"{BASE}/", TRUSTED_PROXIES="127.0.0.1")
    port, directory = free_port(), tmp_path / "nginx"
    text = site(request.param == "taken away")
    text = here(text, port, {"127.0.0.1:8000": server.port}, directory)
    with Nginx(directory, text, port) as nginx:
        yield nginx.url + BASE, server


@pytest.fixture
async def api(below: tuple[str, ServerProcess]) -> AsyncIterator[Api]:
    async with Api(below[0]) as api:
        yield api


def origin(url: str) -> str:
    return url.removesuffix(BASE)


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
async def test_the_official_clients_come_through(
    below: tuple[str, ServerProcess], api: Api, transports: list[str]
) -> None:
    ann, ben = await api.register("Ann"), await api.register("Ben")
    python = socketio.AsyncClient(reconnection=False)
    created: list[Any] = []
    python.on("message.created", created.append, namespace="/messages")
    options = {"path": SOCKETS, "transports": transports}
    async with await connect_node(
        origin(below[0]), "/messages", ben.token, options=options
    ) as node:
        await python.connect(
            origin(below[0]),
            socketio_path=SOCKETS,
            transports=transports,
            namespaces=["/messages"],
            auth={"token": ann.token},
        )
        try:
            asked = {"kind": "direct", "members": [ben.id], "client_id": "1"}
            answer = await python.call("conversation.create", asked, namespace="/messages")
            sent = {"conversation": answer["data"]["id"], "body": "Hi", "client_id": "2"}
            told = await python.call("message.send", sent, namespace="/messages")
            assert told["ok"], told
            await node.wait_for("message.created", lambda event: event["data"]["body"] == "Hi")
        finally:
            await python.disconnect()


async def test_the_documented_ways_in(
    below: tuple[str, ServerProcess], api: Api, tmp_path: Path
) -> None:
    ann = await api.register("Ann")
    there = block("operations.md", "js").strip().rstrip(";")
    there = there.replace("https://example.com", origin(below[0]))
    ready = await script(
        f'const socket = {there};\nsocket.on("ready", print);', below[0], ann.token
    )
    assert ready["user"] == ann.id
    for language in ("javascript", "python"):
        output = await run(language, below[0], tmp_path, 6, 10)
        assert "holds 0,1,2,3,4,5 at 7 " in output
        assert " failed 0 " in output


async def test_what_is_said_of_addresses_leads_there(
    below: tuple[str, ServerProcess], api: Api
) -> None:
    url, server = below
    ann = await api.register("Ann")
    form = aiohttp.FormData()
    form.add_field("file", b"hello", filename="a.txt", content_type="text/plain")
    made = await ann.api.request("POST", "/uploads", data=form)
    made.expect(201)
    async with aiohttp.ClientSession() as session:
        where = urljoin(url, made.headers["location"])
        assert where.startswith(f"{url}/api/v1/uploads/")
        bearer = {"Authorization": f"Bearer {ann.token}"}
        async with session.get(where, headers=bearer) as answer:
            assert await answer.text() == "hello"
        text, script = "", b""
        for start in (f"{url}/", url, f"{url}/docs/"):
            async with session.get(start) as page:
                assert (page.status, str(page.url)) == (200, f"{url}/docs"), start
                text = await page.text()
        needed = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert len(needed) == 4
        for each in needed:
            async with session.get(urljoin(f"{url}/docs", each)) as answer:
                assert answer.status == 200, each
                script = await answer.read()
        (document,) = re.findall(r'url: "([^"]+)"', script.decode())
        async with session.get(urljoin(f"{url}/docs", document)) as answer:
            openapi = await answer.json()
        (place,) = openapi["servers"]
        base = urljoin(f"{url}/openapi.json", place["url"])
        assert "/api/v1/users/me" in openapi["paths"]
        async with session.get(f"{base}/api/v1/users/me", headers=bearer) as answer:
            assert answer.status == 200
        async with session.get(f"{url}/asyncapi.json") as answer:
            asyncapi = await answer.json()
        assert asyncapi["servers"]["parley"]["pathname"] == SOCKETS
        for path in ("/health/live", "/health/ready", "/metrics"):
            async with session.get(url + path) as answer:
                assert answer.status == (404 if path == "/metrics" else 200), path
            for inside in (server.url + path, server.url + BASE + path):
                async with session.get(inside) as answer:
                    assert answer.status == 200, inside
    assert f"is at {server.url}{BASE}\n" in server.log()


async def test_metrics_and_logs_name_routes_without_it(
    below: tuple[str, ServerProcess], api: Api
) -> None:
    ann = await api.register("Ann")
    await ann.api.get("/users/me")
    async with Api(below[1].url) as inside:
        metrics = (await inside.request("GET", "//metrics")).body.decode()
    assert 'route="/api/v1/users/me"' in metrics
    assert BASE not in metrics
    assert "path=/api/v1/users/me" in re.sub(r"\x1b\[\d*m", "", below[1].log())


async def test_only_the_whole_base_path_counts(start_server: StartServer) -> None:
    server = start_server(BASE_PATH=BASE)
    async with Api(server.url) as api:
        for path in ("/chatter/health/live", "/chat/chat/health/live", "/chat//docs"):
            assert (await api.request("GET", f"/{path}")).status == 404, path
        both = "//chat/docs/start.js?x=%2Fchat%2F"
        assert (await api.request("GET", both)).status == 200
        problem = (await api.request("GET", "//chat/api/v1/users/me?a=1")).expect(401)
        assert problem["code"] == "unauthenticated"


@pytest.mark.parametrize("path", ["chat", "/docs", "/api/v1", "/a/../b", "/a b", "/socket.io/x"])
def test_a_path_that_cannot_be_stops_the_start(start_server: StartServer, path: str) -> None:
    with pytest.raises(ServerFailed, match="PARLEY_BASE_PATH must"):
        start_server(BASE_PATH=path)


def test_logs_for_machines_name_it(start_server: StartServer) -> None:
    server = start_server(BASE_PATH=BASE, LOG_FORMAT="json")
    started = [json.loads(line) for line in server.log().splitlines() if '"started"' in line]
    assert started[0]["url"] == server.url + BASE
