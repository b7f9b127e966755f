"""Two nodes behind a balancer with the configuration of `deploy/`: clients need not know it."""

import asyncio
import re
import signal
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from deploy.cluster import configuration, haproxy
from deploy.local.ports import free_port
from tests.conftest import StartServer
from tests.integration.cluster.test_cluster_command import asked, opened, status_of
from tests.integration.docs.test_docs import run, sent
from tests.support.certificate import make_certificate
from tests.support.door import door
from tests.support.mongod import scratch
from tests.support.nginx import PATH, Nginx, here, require_proxy
from tests.support.node import connect_node
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import Api
from tests.support.server import ROOT, ServerProcess
from tests.support.snippets import block

SETTINGS = {"SECRET_KEY": "of both nodes " * 3, "TRUSTED_PROXIES": "127.0.0.1"}


@dataclass
class Balanced:
    """Two nodes, node1 and node2, and the balancer before them."""

    nodes: list[ServerProcess]
    port: int
    logs: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def before(kind: str, nodes: list[ServerProcess], directory: Path, stack: ExitStack) -> Balanced:
    """A balancer before nodes, until the stack ends."""
    port = free_port()
    if kind == "nginx":
        servers = {f"node{n}:8000": node.port for n, node in enumerate(nodes, 1)}
        text = here((ROOT / "deploy" / "nginx.conf").read_text(), port, servers, directory)
        stack.enter_context(Nginx(directory, text, port))
    else:
        directory.mkdir()
        template = (ROOT / "deploy" / "haproxy.cfg").read_text()
        text = configuration(template.replace("local0 notice", "local0 info"), port, nodes, ())
        (directory / "haproxy.cfg").write_text(text)
        stack.enter_context(haproxy(directory / "haproxy.cfg"))
    return Balanced(nodes, port, directory)


@pytest.fixture
def life() -> str:
    """Of access tokens."""
    return "15m"


@pytest.fixture(params=["haproxy", "nginx"])
def balanced(
    request: pytest.FixtureRequest,
    life: str,
    tmp_path: Path,
    mongodb: str,
    start_server: StartServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Balanced]:
    require_redis()
    monkeypatch.setenv("PATH", PATH)
    require_proxy(request.param)
    with (
        RedisProcess(tmp_path / "redis") as redis,
        scratch(mongodb) as database,
        ExitStack() as stack,
    ):
        urls = {"REDIS_URL": redis.url, "STORE_URL": database.url}
        settings = {**SETTINGS, **urls, "ACCESS_TTL": life}
        nodes = [start_server(**settings, NODE_NAME=f"node{n}") for n in (1, 2)]
        yield before(request.param, nodes, tmp_path / "balancer", stack)
        for each in nodes:
            each.stop()


async def test_polling_sessions_stay_at_their_node_and_others_are_refused(
    balanced: Balanced,
) -> None:
    async with Api(balanced.url) as api:
        sids = [await opened(api) for _ in range(6)]
        assert {sid.partition(".")[0] for sid in sids} == {"node1", "node2"}
        for sid in sids * 3:
            assert await asked(api, sid) == 200, "it came to another node"
        for sid in ("node2.unknown", "node9.unknown", "unknown", "", ".", "%00.x", "rest"):
            assert await asked(api, sid) == 400, sid
        (of_node2, *_) = [sid for sid in sids if sid.startswith("node2.")]
        await asyncio.to_thread(balanced.nodes[1].kill)
        assert await asked(api, of_node2) == 400, "its node is gone"
        for _ in range(6):
            assert (await opened(api)).startswith("node1.")
            await api.register("Ann")


async def test_newcomers_go_elsewhere_while_a_node_stops(balanced: Balanced) -> None:
    node2 = balanced.nodes[1]
    async with Api(balanced.url) as api:
        ann = await api.register("Ann")
        while not (sid := await opened(api)).startswith("node2."):
            pass
        assert await asked(api, sid, f'40/messages,{{"token":"{ann.token}"}}') == 200
        node2.signal(signal.SIGTERM)
        while await asyncio.to_thread(node2.ready):
            pass
        for found in await asyncio.gather(*(opened(api) for _ in range(10))):
            assert found.startswith("node1.")
        said = b""
        while b"closing" not in said:
            answer = await api.request("GET", f"//socket.io/?EIO=4&transport=polling&sid={sid}")
            assert answer.status == 200, "a session is served until it has heard why it ends"
            said = answer.body
        while node2.running:
            await asyncio.sleep(0.02)
        assert node2.exit_code == 0


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
async def test_people_on_two_nodes_talk(balanced: Balanced, transports: list[str]) -> None:
    options = {"transports": transports}
    async with Api(balanced.url) as api:
        ann, ben = await api.register("Ann"), await api.register("Ben")
        asked_for = {"kind": "direct", "members": [ben.id], "client_id": "d"}
        direct = (await ann.api.post("/conversations", asked_for, 201))["id"]
    async with (
        await connect_node(balanced.url, "/messages", ann.token, options=options) as here,
        await connect_node(balanced.url, "/messages", ben.token, options=options) as there,
    ):
        message = {"conversation": direct, "body": "Hi", "client_id": "1"}
        await here.call("message.send", message)
        await there.wait_for("message.created")
        for client in (here, there):
            while await client.transport() != transports[-1]:
                await asyncio.sleep(0.02)


async def test_nothing_but_what_clients_use_comes_through(balanced: Balanced) -> None:
    for path in ("/metrics", "/%6detrics", "//metrics", "/metrics?x", "/metrics/", "/unknown"):
        assert await status_of(balanced.port, path) == 404, path
    for path in (
        "/api/../metrics",
        "/docs/..%2fmetrics",
        "/docs/%2e%2e/metrics",
        "http://x/metrics",
    ):
        assert await status_of(balanced.port, path) == 404, path
    for path in ("/docs", "/docs/start.js", "/openapi.json", "/asyncapi.json", "/health/ready"):
        assert await status_of(balanced.port, path) == 200, path


@pytest.mark.parametrize("language", ["javascript", "python"])
async def test_logs_have_no_ids_of_sessions(
    balanced: Balanced, tmp_path: Path, language: str
) -> None:
    output = await run(language, balanced.url, tmp_path, 6, 10)
    assert "holds 0,1,2,3,4,5 at 7 " in output
    logs = {path.name: path.read_text() for path in balanced.logs.glob("*.log")}
    assert re.search(r"POST /api/v1/auth/register", "".join(logs.values()))
    assert re.search(r"GET /socket\.io/", "".join(logs.values()))
    for name, text in logs.items():
        assert "sid=" not in text, name
        assert "EIO=" not in text, name


async def test_haproxy_with_tls_as_documented(server: ServerProcess, tmp_path: Path) -> None:
    require_proxy("haproxy")
    certificate = make_certificate(tmp_path)
    (tmp_path / "certs").mkdir()
    both = certificate.path.read_text() + certificate.key.read_text()
    (tmp_path / "certs" / "127.0.0.1.pem").write_text(both)
    secure, plain = free_port(), free_port()
    lines = block("cluster.md", "haproxy").replace("/etc/haproxy/certs", f"{tmp_path}/certs")
    lines = lines.replace(":443", f"127.0.0.1:{secure}").replace(":80\n", f"127.0.0.1:{plain}\n")
    template = (ROOT / "deploy" / "haproxy.cfg").read_text()
    template = template.replace("frontend public\n    bind :8000\n", lines)
    (tmp_path / "haproxy.cfg").write_text(configuration(template, 0, [server], ()))
    context = ssl.create_default_context(cafile=str(certificate.path))
    with haproxy(tmp_path / "haproxy.cfg"):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            async with session.get(f"https://127.0.0.1:{secure}/health/ready") as answer:
                assert answer.status == 200
                assert answer.headers["strict-transport-security"] == "max-age=31536000"
            insecure = f"http://127.0.0.1:{plain}/docs?x=1"
            async with session.get(insecure, allow_redirects=False) as answer:
                assert answer.status == 308
                assert answer.headers["location"] == f"https://127.0.0.1:{plain}/docs?x=1"


async def until_sent(count: int, balanced: Balanced, client: "asyncio.Task[str]") -> None:
    """Wait until the nodes have taken so many messages more."""
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(Api(node.url)) for node in balanced.nodes]
        first = None
        while not client.done():
            total = sum([await sent(api) for api in apis])
            first = total if first is None else first
            if total >= first + count:
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("life", ["5s"])
@pytest.mark.parametrize(
    ("balanced", "language"),
    [("haproxy", "javascript"), ("haproxy", "python"), ("nginx", "javascript")],
    indirect=["balanced"],
)
async def test_the_documented_client_holds_everything_though_each_node_dies_in_turn(
    balanced: Balanced, tmp_path: Path, language: str
) -> None:
    count = 60
    async with door(balanced.port) as way:
        url = f"http://127.0.0.1:{way.port}"
        client = asyncio.create_task(run(language, url, tmp_path, count, 150))
        await until_sent(4, balanced, client)
        async with way.away():
            await asyncio.sleep(0.3)  # the client tries meanwhile
        for dies in balanced.nodes:
            await until_sent(4, balanced, client)
            await asyncio.to_thread(dies.restart, kill=True)
        output = await client
    found = re.search(r"holds (\S*) at (\d+) refreshed (\d+) failed (\d+)", output)
    assert found, output
    assert found[1] == ",".join(map(str, range(count))), output
    assert int(found[2]) == count + 1
    assert int(found[3]) >= 2, "its tokens did not end"
    assert found[4] == "0", output
