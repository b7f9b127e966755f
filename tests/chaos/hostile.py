"""A server under attack: a clear answer within a second, everybody else undisturbed, nothing left
behind. What is done to it is in `test_hostile_*.py`.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.control import Control
from tests.support.rest import PASSWORD, Api
from tests.support.server import ServerProcess

WITHIN = 1.0
"""Seconds until an answer or the end, by a `Stopwatch`: the server's, not the machine's."""

STALL = 0.1
"""Seconds that others may wait longer than they do anyway."""

TRIES = 3
"""Times an attack is repeated before a wait is put down to the server and not to the machine."""

ADMIN = "admin@example.com"

CODES = {
    "invalid",
    "unauthenticated",
    "forbidden",
    "not_found",
    "conflict",
    "too_large",
    "rate_limited",
}


class Target(NamedTuple):
    """The server, and a client in peace whose waiting time tells how it does."""

    server: ServerProcess
    control: Control


@contextmanager
def target_in(directory: Path) -> Iterator[Target]:
    """A running target with an administrator; its data goes into the directory."""
    admin = {"ADMIN_EMAIL": ADMIN, "ADMIN_PASSWORD": PASSWORD}
    with ServerProcess(directory, admin) as server:
        token, conversation = asyncio.run(_quiet_person(server))
        with Control(server.url, token, conversation, server.pid) as control:
            yield Target(server, control)


async def _quiet_person(server: ServerProcess) -> tuple[str, str]:
    async with Api(server.url) as api:
        person = await api.register("Quiet")
        body = {"kind": "group", "members": [], "client_id": "quiet"}
        return person.token, (await person.api.post("/conversations", body, 201))["id"]


Attack = Callable[[Target], Awaitable[str]]


async def withstand(target: Target, attack: Attack) -> None:
    """Carry out an attack, and hold the server to its promises."""
    normal = (await asyncio.to_thread(target.control.wait, 0.7))[:]
    median = normal[len(normal) // 2]
    worst = 0.0
    for _ in range(TRIES):
        started = time.monotonic()
        report = await attack(target)
        took = time.monotonic() - started
        await asyncio.to_thread(target.control.wait)
        waits = target.control.since(started)
        worst = waits[-1]
        print(
            f"\n{report}; {took:.1f} s; others: {len(waits)} round trips, median "
            f"{waits[len(waits) // 2] * 1000:.1f} ms, worst {worst * 1000:.1f} ms "
            f"(in peace {median * 1000:.1f} ms)"
        )
        if worst < median + STALL:
            break
    else:
        pytest.fail(f"others waited {worst:.3f} s, {TRIES} times")
    await nothing_is_left(target)


async def nothing_is_left(target: Target, seconds: float = 5.0) -> None:
    """No session but the control client's, nothing that went wrong inside."""
    async with Api(target.server.url) as api:
        async with asyncio.timeout(seconds):
            while True:
                metrics = (await api.request("GET", "//metrics")).body.decode()
                if _number(metrics, "parley_sessions") == 1:
                    break
                await asyncio.sleep(0.05)
    assert 'outcome="internal"' not in metrics
    assert not re.findall(r'^parley_http_requests_total\{.*status="500"\}.*', metrics, re.M)
    assert "Traceback" not in target.server.log()
    assert "[error" not in target.server.log()


def _number(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", metrics, re.M)
    assert found, f"no {name} in the metrics"
    return float(found[1])
