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

import pytest

from tests.support.client import connect
from tests.support.redis import require_redis
from tests.support.rest import Api
from tests.support.server import ROOT, clean_environment, free_port


@pytest.fixture(autouse=True)
def programs(stand_in: None) -> None:
    require_redis()
    if shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin") is None:
        reason = "haproxy is not installed: `make cluster` is not tested"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


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


@pytest.fixture
def command(tmp_path: Path) -> Iterator[tuple[Command, int]]:
    port = free_port()
    command = Command(tmp_path / "log", "--port", str(port))
    yield command, port
    if command.process.poll() is None:
        command.process.terminate()
        command.process.wait(30)


async def status_of(port: int, target: str) -> int:
    """What a request with exactly this target is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def test_a_node_is_killed_and_one_key_ends_everything(command: tuple[Command, int]) -> None:
    running, port = command
    await running.until_said(r"Ctrl-C ends everything")
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


async def test_a_polling_session_stays_at_its_node(command: tuple[Command, int]) -> None:
    running, port = command
    await running.until_said(r"Ctrl-C ends everything")
    async with Api(f"http://127.0.0.1:{port}") as api:
        for _ in range(4):
            opened = await api.request("GET", "//socket.io/?EIO=4&transport=polling")
            assert opened.status == 200
            sid = re.search(r'"sid":"([^"]+)"', opened.body.decode())
            assert sid
            cookie = opened.headers["set-cookie"].partition(";")[0]
            for _ in range(3):
                reply = await api.request(
                    "POST",
                    f"//socket.io/?EIO=4&transport=polling&sid={sid[1]}",
                    data=b"3",
                    headers={"Cookie": cookie, "Content-Type": "text/plain"},
                )
                assert reply.status == 200, "the session is unknown: it came to another node"


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
