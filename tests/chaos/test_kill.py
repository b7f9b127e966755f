"""`kill -9` in the middle of a load: what was acknowledged is there, once, and everybody saw it."""

import asyncio
import random
import time

import pytest

from tests.chaos.load import Load
from tests.support.rest import Api
from tests.support.server import ServerProcess

ACKS_BETWEEN = 200
"""Acknowledged commands between two crashes, at least."""

RESTART_SECONDS = 10.0
"""From the crash to being ready: far more than it takes, far less than a person's patience."""


@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_by_crashes(
    fresh_server: ServerProcess, full: bool
) -> None:
    server, rounds = fresh_server, 20 if full else 3
    chance = random.Random(rounds)
    restarts: list[float] = []
    async with Api(server.url) as api, Load(api, senders=5, listeners=3, rooms=3) as load:
        for _ in range(rounds):
            await load.progress(ACKS_BETWEEN)
            await asyncio.sleep(chance.uniform(0, 0.2))
            started = time.monotonic()
            await asyncio.to_thread(server.restart, kill=True)
            restarts.append(time.monotonic() - started)
        await load.progress(ACKS_BETWEEN)
        await load.finish()
        print(f"\n{rounds} crashes; ready again after {max(restarts):.2f} s at most; {load}")
        await load.check()
    assert max(restarts) < RESTART_SECONDS
