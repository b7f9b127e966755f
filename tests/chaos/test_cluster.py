"""Nodes of a real cluster are killed under load: what was acknowledged is there, once, in order, and
every client is whole soon.
"""

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.chaos.load import Load
from tests.conftest import StartServer
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import Api
from tests.support.server import ServerProcess

NODES = 3
WHOLE_SECONDS = 10.0
"""From the crash until every client is connected and has seen all that was there by then."""

ACKS_BETWEEN = 40
"""Acknowledged commands between two crashes, at least."""


async def _crash(node: ServerProcess, living: ServerProcess, load: Load) -> float:
    """Kill a node, and start it again while its clients go elsewhere.

    Returns:
        Seconds until every client was whole.
    """
    began = time.monotonic()
    await asyncio.to_thread(node.kill)
    restart = asyncio.create_task(asyncio.to_thread(node.start))
    try:
        async with Api(living.url, load.people[0].token) as api:
            heads = await load.heads_now(api)
        await load.until(lambda: load.all_reached(heads), timeout=30, what="level of all")
        return time.monotonic() - began
    finally:
        await restart


@pytest.mark.timeout(1800)
async def test_nodes_are_killed_one_after_the_other(
    mongodb: str, start_server: StartServer, tmp_path: Path, full: bool
) -> None:
    require_redis()
    crashes, senders, listeners = (20, 12, 288) if full else (3, 3, 6)
    chance = random.Random(crashes)
    with RedisProcess(tmp_path / "redis") as redis, scratch(mongodb) as database:
        settings = {
            "REDIS_URL": redis.url,
            "STORE_URL": database.url,
            "SECRET_KEY": "5f1d8c7b6a5e4d3c2b1a09f8e7d6c5b4a3928170",
        }
        nodes = [start_server(**settings) for _ in range(NODES)]
        urls = [node.url for node in nodes]
        whole: list[float] = []
        async with (
            Api(urls[0]) as api,
            Load(api, senders=senders, listeners=listeners, rooms=2, writers=2, urls=urls) as load,
        ):
            for _ in range(crashes):
                await load.progress(ACKS_BETWEEN)
                await asyncio.sleep(chance.uniform(0, 0.2))
                killed = chance.choice(nodes)
                living = chance.choice([node for node in nodes if node is not killed])
                whole.append(await _crash(killed, living, load))
            await load.progress(ACKS_BETWEEN)
            await load.finish()
            print(
                f"\n{crashes} crashes of {NODES} nodes; every client whole after "
                f"{max(whole):.2f} s at most; {load}"
            )
            await load.check()
        for node in nodes:
            await asyncio.to_thread(node.stop)
    assert max(whole) < WHOLE_SECONDS
