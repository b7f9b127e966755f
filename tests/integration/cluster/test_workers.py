"""`PARLEY_WORKERS`: several processes on one port, that end, crash and come back."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.workers.supervisor import LONGEST_DELAY, delay
from tests.chaos.load import Load
from tests.conftest import StartServer
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import Api
from tests.support.server import ROOT, ServerProcess

WORKERS = 2

HANGS_AFTER = 4.0
"""Seconds; longer than a busy machine keeps a worker from its turn."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    require_redis()
    with RedisProcess(tmp_path / "redis") as redis:
        yield redis


@pytest.fixture
def workers(
    redis: RedisProcess, mongodb: str, start_server: StartServer
) -> Iterator[ServerProcess]:
    """A running supervisor; it is stopped by `start_server`, before the database is removed."""
    with scratch(mongodb) as database:
        server = start_server(
            WORKERS=WORKERS,
            WORKER_TIMEOUT=f"{HANGS_AFTER:g}s",
            REDIS_URL=redis.url,
            STORE_URL=database.url,
        )
        yield server
        server.stop()


def pids(server: ServerProcess) -> list[int]:
    """The processes that the supervisor has started and that have not ended."""
    path = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    return [int(word) for word in path.read_text().split()]


async def wait_for(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {timeout:g} s"
        await asyncio.sleep(0.02)


async def scrape(api: Api) -> dict[str, list[Any]]:
    """The samples of each family."""
    answer = await api.request("GET", "//metrics")
    assert answer.status == 200
    return {
        family.name: family.samples
        for family in text_string_to_metric_families(answer.body.decode())
    }


async def all_up(api: Api) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            told = (await scrape(api))["parley_worker_up"]
        except aiohttp.ClientConnectionError:  # it was one to a worker that has just died
            told = []
        up = {each.labels["worker"]: each.value for each in told}
        if up == {str(number): 1 for number in range(1, WORKERS + 1)}:
            return
        assert time.monotonic() < deadline, f"not all workers are up: {up}"
        await asyncio.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")


async def test_a_worker_is_killed_under_load_and_comes_back(workers: ServerProcess) -> None:
    async with Api(workers.url) as api:
        await all_up(api)
        async with Load(api, senders=4, listeners=4, rooms=2) as load:
            await load.progress(60)
            sessions = (await scrape(api))["parley_sessions"]
            assert sum(each.value for each in sessions) == 8, "each worker's sessions are told"
            before = pids(workers)
            os.kill(before[0], signal.SIGKILL)
            await load.progress(60)
            await all_up(api)
            assert len(pids(workers)) == WORKERS
            assert before[0] not in pids(workers)
            assert set(before[1:]) < set(pids(workers)), "the others go on"
            await load.finish()
            await load.check()
    assert workers.stop() == 0


async def test_a_worker_that_hangs_is_replaced(workers: ServerProcess) -> None:
    async with Api(workers.url) as api:
        await all_up(api)
        hangs, goes_on = pids(workers)
        began = time.monotonic()
        os.kill(hangs, signal.SIGSTOP)
        await wait_for(lambda: gone(hangs), "end of the worker", HANGS_AFTER * 3)
        assert time.monotonic() - began > HANGS_AFTER / 2
        await wait_for(lambda: len(pids(workers)) == WORKERS, "other worker")
        await all_up(api)
        assert goes_on in pids(workers)
    told = [line for line in workers.log().splitlines() if "worker_hangs" in line]
    assert len(told) == 1
    assert f"pid={hangs}" in told[0]
    # Where all stood still nobody hangs.
    before = pids(workers)
    for pid in (workers.pid, *before):
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(HANGS_AFTER * 1.25)
    for pid in (workers.pid, *before):
        os.kill(pid, signal.SIGCONT)
    await asyncio.sleep(HANGS_AFTER / 2)
    assert pids(workers) == before
    assert workers.log().count("worker_hangs") == 1


async def test_sigterm_drains_all_workers(workers: ServerProcess) -> None:
    async with Api(workers.url) as api:
        await all_up(api)
        started = pids(workers)
        async with Load(api, senders=2, listeners=4, rooms=1) as load:
            await load.progress(20)
            clients = [guest.main for guest in load.guests]
            began = time.monotonic()
            workers.signal(signal.SIGTERM)
            assert await asyncio.to_thread(workers.wait) == 0
            assert time.monotonic() - began < float(workers.settings["SHUTDOWN_GRACE"]) + 1
            assert [client.closing for client in clients] == [
                {"code": "shutdown", "reconnect": True}
            ] * len(clients)
            assert all(map(gone, started))
            await asyncio.to_thread(workers.start)
            await load.progress(20)
            await load.finish()
            await load.check()


async def test_workers_do_not_outlive_their_supervisor(workers: ServerProcess) -> None:
    async with Api(workers.url) as api:
        await all_up(api)
    started = pids(workers)
    workers.kill()
    await wait_for(lambda: all(map(gone, started)), "end of the workers")


async def test_polling_is_refused_with_the_reason(workers: ServerProcess) -> None:
    async with Api(workers.url) as api:
        answer = await api.request("GET", "//socket.io/?EIO=4&transport=polling")
        assert answer.status == 400
        assert answer.json["code"] == 0
        assert 'transports: ["websocket"]' in answer.json["message"]


def test_a_port_that_is_taken_is_one_line(
    redis: RedisProcess, mongodb: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        settings = {"WORKERS": WORKERS, "REDIS_URL": redis.url, "STORE_URL": f"{mongodb}/none"}
        server = ServerProcess(tmp_path / "second", {**settings, "PORT": port})
        ended = subprocess.run(
            [sys.executable, "-m", "server"],
            cwd=ROOT,
            env=server.environment(),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert ended.returncode == 1
    told = [line for line in ended.stderr.splitlines() if line.startswith("parley: ")]
    assert told == [
        f"parley: cannot listen on 127.0.0.1:{port}: Address already in use "
        "(another is chosen with PARLEY_PORT)"
    ]


def test_what_keeps_workers_from_starting_is_said_once(
    redis: RedisProcess, mongodb: str, tmp_path: Path
) -> None:
    settings = {"WORKERS": 3, "REDIS_URL": redis.url, "STORE_URL": f"{mongodb}/none"}
    server = ServerProcess(tmp_path / "wrong", {**settings, "RATE_LIMITS": "message.sned=5/s"})
    ended = subprocess.run(
        [sys.executable, "-m", "server"],
        cwd=ROOT,
        env=server.environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 2
    told = [line for line in ended.stderr.splitlines() if line.startswith("parley: ")]
    assert told == ["parley: PARLEY_RATE_LIMITS message.sned is no bucket"]


def test_crashes_are_answered_ever_slower() -> None:
    for crashes in range(1, 200):
        longest = min(LONGEST_DELAY, 0.25 * 2 ** (crashes - 1))
        assert longest / 2 <= delay(crashes) <= longest
    assert len({delay(5) for _ in range(20)}) > 1, "without jitter all come back at once"
