"""The harness itself: a server that ends or hangs fails with what it said, and test runs keep out
of each other's way, also those that were killed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local.ports import free_port, listened, take
from tests.conftest import StartServer
from tests.support.redis import require_redis
from tests.support.server import ROOT, ServerFailed, ServerProcess, clean_environment


def test_a_server_that_does_not_start_shows_its_log(start_server: StartServer) -> None:
    with pytest.raises(ServerFailed, match="PARLEY_LOG_LEVEL must be one of"):
        start_server(LOG_LEVEL="loud")


def test_stop_kill_and_restart(fresh_server: ServerProcess) -> None:
    first, port = fresh_server.pid, fresh_server.port
    assert fresh_server.stop() == 0
    assert not fresh_server.ready()
    fresh_server.start()
    assert fresh_server.pid != first
    assert fresh_server.port == port
    fresh_server.restart(kill=True)
    assert fresh_server.ready()


def test_a_server_that_was_there_before_is_not_taken_for_ours(
    server: ServerProcess, tmp_path: Path
) -> None:
    second = ServerProcess(tmp_path, {"PORT": server.port})
    with pytest.raises(AssertionError, match=f"somebody else listens on port {server.port}"):
        second.start()


@contextmanager
def another_run(source: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """Another process of tests; its first line was read when the block begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def says(process: "subprocess.Popen[str]") -> list[str]:
    """The words of its next line."""
    assert process.stdout is not None
    return process.stdout.readline().split()


TAKE = """
import sys
from deploy.local.ports import free_port, take
print(free_port(), take(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_a_port_is_given_to_one_run_until_that_ends() -> None:
    ours = free_port()
    with another_run(TAKE, ours) as other:
        theirs, has_ours = says(other)
        assert has_ours == "False"
        assert not take(int(theirs))
        other.kill()
        other.wait()
        assert take(int(theirs))


SERVE = """
import signal
import sys
from pathlib import Path
from tests.support.nursery import Nursery
from tests.support.redis import RedisProcess
from tests.support.server import ServerProcess
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where ours is ignored
directory = Path(sys.argv[1])
with Nursery() as ServerProcess.nursery, RedisProcess(directory) as redis:
    with ServerProcess(directory / "server") as server:
        print(server.port, redis.port, server.pid, flush=True)
        sys.stdin.read()
"""


def until_nobody_listens(port: int) -> None:
    deadline = time.monotonic() + 20
    while listened(port):
        assert time.monotonic() < deadline, f"somebody still listens on {port}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    require_redis()
    with another_run(SERVE, tmp_path) as other:
        server, redis, _ = map(int, says(other))
        assert listened(server)
        assert listened(redis)
        other.send_signal(number)
        other.wait(30)
    until_nobody_listens(server)
    until_nobody_listens(redis)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_servers_end_with_the_process_that_made_them(tmp_path: Path) -> None:
    require_redis()
    with another_run(SERVE, tmp_path) as other:
        server, _, pid = map(int, says(other))
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        os.kill(int(parent), signal.SIGKILL)
        until_nobody_listens(server)
