"""`make cluster` and `make cluster-demo`: a cluster from one command, ended by one key."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.docs.test_docs import run
from tests.integration.docs.test_readme import example
from tests.support.client import connect
from tests.support.node import NODE_DIR, node, run_to_end
from tests.support.redis import require_redis
from tests.support.rest import Api
from tests.support.server import ROOT, clean_environment, free_port


@pytest.fixture(scope="module", autouse=True)
def programs(stand_in: None) -> None:
    require_redis()
    if shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin") is None:
        reason = "haproxy is not installed: `make cluster` is not tested"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


READY = r"Ctrl-C ends everything"


class Command:
    """`python -m deploy.cluster`, and what it says."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cluster", *arguments],
                cwd=ROOT,
                env={**clean_environment(), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self._log.read_text()

    async def until_said(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + 40
        while not (found := re.search(pattern, self.said())):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            await asyncio.sleep(0.05)
        return found

    def session(self) -> list[int]:
        """All that runs in its session."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == self.process.pid and fields[0] != "Z":
                found.append(int(path.parent.name))
        return found


def running(directory: Path) -> Iterator[tuple[Command, int]]:
    """A cluster, with the port of its balancer; ended afterwards."""
    port = free_port()
    command = Command(directory / "log", "--port", str(port))
    yield command, port
    if command.process.poll() is None:
        command.process.terminate()
        command.process.wait(30)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[tuple[Command, int]]:
    """A cluster of this test's own."""
    yield from running(tmp_path)


async def status_of(port: int, target: str) -> int:
    """What a request with exactly this target is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def test_a_node_is_killed_and_one_key_ends_everything(command: tuple[Command, int]) -> None:
    running, port = command
    await running.until_said(READY)
    nodes = re.findall(r"node (\d) +(http://\S+) +pid (\d+)", running.said())
    assert [number for number, _, _ in nodes] == ["1", "2", "3"]
    async with Api(f"http://127.0.0.1:{port}") as api:
        ann, ben = await api.register("Ann"), await api.register("Ben")
        request = {"kind": "direct", "members": [ben.id], "client_id": "talk"}
        room = (await ann.api.post("/conversations", request, 201))["id"]
        async with (
            await connect(nodes[0][1], "/messages", ann.token) as here,
            await connect(nodes[1][1], "/messages", ben.token) as there,
        ):
            message = {"conversation": room, "client_id": "1", "body": "Hello, other node."}
            sent = await here.call("message.send", message)
            await there.wait_for("message.created", lambda each: each["data"]["id"] == sent["id"])
        for path in ("/metrics", "/%6detrics", "/metrics?x", "http://x/metrics", "/unknown"):
            assert await status_of(port, path) == 404, path
        for path in ("/docs", "/openapi.json", "/asyncapi.json", "/health/ready"):
            assert await status_of(port, path) == 200, path
        os.kill(int(nodes[2][2]), signal.SIGKILL)
        await running.until_said(r"node 3 ended with -9")
        for _ in range(6):
            assert (await ann.api.get("/users/me"))["id"] == ann.id, "nobody notices"
        await running.until_said(r"node 3 is back")
        assert len(running.session()) >= 7
    os.killpg(running.process.pid, signal.SIGINT)
    assert await asyncio.to_thread(running.process.wait, 30) == 0
    assert running.session() == []
    assert running.said().endswith("\nended\n")


async def test_nobody_notices_a_node_that_stops_but_those_it_has(
    command: tuple[Command, int],
) -> None:
    running, port = command
    await running.until_said(READY)
    nodes = re.findall(r"node (\d) +(http://\S+) +pid (\d+)", running.said())
    async with Api(f"http://127.0.0.1:{port}") as api:
        ann = await api.register("Ann")
        while not (sid := await opened(api)).startswith("node3."):
            pass
        assert await asked(api, sid, f'40/messages,{{"token":"{ann.token}"}}') == 200
        os.kill(int(nodes[2][2]), signal.SIGTERM)
        while await ready(nodes[2][1]):
            await asyncio.sleep(0.005)
        # It waits for the one who polls. Until the balancer has seen that it stops, some of these
        # come to it.
        await asyncio.gather(*(opened(api) for _ in range(30)))
        for number in range(20):
            async with await connect(api.url, "/messages", ann.token):
                pass
            conversation = {"kind": "group", "members": [], "client_id": f"{number}"}
            await ann.api.post("/conversations", conversation, 201)
        said = b""
        while b"closing" not in said:
            answer = await api.request("GET", f"//socket.io/?EIO=4&transport=polling&sid={sid}")
            assert answer.status == 200
            said = answer.body
        await running.until_said(r"node 3 ended with 0")


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, programs: None
) -> Iterator[tuple[Command, int]]:
    """A cluster for the tests that leave it as it was."""
    yield from running(tmp_path_factory.mktemp("cluster"))


async def ready(url: str) -> bool:
    """Whether a node says that it is."""
    async with Api(url) as api:
        try:
            return (await api.request("GET", "//health/ready")).status == 200
        except aiohttp.ClientError:
            return False


async def opened(api: Api) -> str:
    """The id of a new polling session."""
    answer = await api.request("GET", "//socket.io/?EIO=4&transport=polling")
    assert answer.status == 200
    assert "set-cookie" not in answer.headers, "many clients do not keep cookies"
    sid = re.search(r'"sid":"([^"]+)"', answer.body.decode())
    assert sid
    return sid[1]


async def asked(api: Api, sid: str, packets: str = "3") -> int:
    """What a polling session's next request is answered."""
    answer = await api.request(
        "POST",
        f"//socket.io/?EIO=4&transport=polling&sid={sid}",
        data=packets.encode(),
        headers={"Content-Type": "text/plain"},
    )
    return answer.status


async def test_a_polling_session_stays_at_its_node(shared: tuple[Command, int]) -> None:
    command, port = shared
    await command.until_said(READY)
    async with Api(f"http://127.0.0.1:{port}") as api:
        sids = [await opened(api) for _ in range(6)]
        assert len({sid.partition(".")[0] for sid in sids}) > 1, "all of them at one node"
        for sid in sids * 3:
            assert await asked(api, sid) == 200, "the session is unknown: it came to another node"


@pytest.mark.parametrize("sid", ["node2.unknown", "node9.unknown", "unknown", "", ".", "%00.x"])
async def test_a_session_that_no_node_has_is_refused_at_once(
    shared: tuple[Command, int], sid: str
) -> None:
    command, port = shared
    await command.until_said(READY)
    async with Api(f"http://127.0.0.1:{port}") as api:
        assert await asked(api, sid) == 400


async def test_a_session_whose_node_is_gone_is_refused_so_that_its_client_begins_anew(
    command: tuple[Command, int],
) -> None:
    running, port = command
    await running.until_said(READY)
    nodes = re.findall(r"node (\d) +(http://\S+) +pid (\d+)", running.said())
    async with Api(f"http://127.0.0.1:{port}") as api:
        while not (sid := await opened(api)).startswith("node3."):
            pass
        os.kill(int(nodes[2][2]), signal.SIGKILL)
        await running.until_said(r"node 3 ended with -9")
        assert await asked(api, sid) == 400, "of a node that is down"
        assert not (await opened(api)).startswith("node3.")
        await running.until_said(r"node 3 is back")
        assert await asked(api, sid) == 400, "of a node that was started again"


@pytest.mark.parametrize("name", ["first.mjs", "first.py"])
async def test_the_first_client_reaches_the_cluster(
    shared: tuple[Command, int], tmp_path: Path, name: str
) -> None:
    command, port = shared
    await command.until_said(READY)
    javascript = name.endswith(".mjs")
    program = (node(), "--input-type=module", "-") if javascript else (sys.executable, "-")
    for _ in range(3):  # to each node
        output = await run_to_end(
            *program,
            source=example(name),
            environment={"PARLEY_URL": f"http://127.0.0.1:{port}"},
            cwd=NODE_DIR if javascript else tmp_path,
        )
        assert re.search(r"#\d+ Hello!", output), output


@pytest.mark.parametrize("language", ["javascript", "python"])
async def test_the_documented_client_reaches_the_cluster(
    shared: tuple[Command, int], tmp_path: Path, language: str
) -> None:
    command, port = shared
    await command.until_said(READY)
    output = await run(language, f"http://127.0.0.1:{port}", tmp_path, 20, 20)
    assert f"holds {','.join(map(str, range(20)))} at 21 " in output
    assert " failed 0 " in output


async def test_the_demo_across_nodes_misses_nothing(tmp_path: Path) -> None:
    if not (ROOT / "demo" / "node_modules").is_dir():
        pytest.skip("the demo's packages are not installed: make node-clients")
    demo = Command(tmp_path / "log", "--demo")
    try:
        assert await asyncio.to_thread(demo.process.wait, 50) == 0, demo.said()
    finally:
        demo.process.terminate()
    assert "Ben's node is killed (kill -9)" in demo.said()
    assert "10 of 10 messages, each once and in order: nothing was missed" in demo.said()
    assert demo.session() == []
