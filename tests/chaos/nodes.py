"""A cluster of real nodes for tests that break it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import StartServer
from tests.support.redis import RedisProcess, require_redis
from tests.support.server import ServerProcess


@asynccontextmanager
async def nodes_on(
    store_url: str, directory: Path, start_server: StartServer, count: int, **settings: object
) -> AsyncIterator[list[ServerProcess]]:
    """Nodes on one store and a Redis of their own, stopped before that ends."""
    require_redis()
    with RedisProcess(directory / "redis") as redis:
        shared = {
            "REDIS_URL": redis.url,
            "STORE_URL": store_url,
            "SECRET_KEY": "5f1d8c7b6a5e4d3c2b1a09f8e7d6c5b4a3928170",
            **settings,
        }
        nodes = [await asyncio.to_thread(start_server, **shared) for _ in range(count)]
        try:
            yield nodes
        finally:
            for node in nodes:
                await asyncio.to_thread(node.stop)
