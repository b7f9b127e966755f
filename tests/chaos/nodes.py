"""A cluster of real nodes for tests that break it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from tests.conftest import StartServer
from tests.support.redis import RedisProcess, require_redis
from tests.support.server import ServerProcess


@asynccontextmanager
async def nodes_on(
    store_url: str,
    directory: Path,
    start_server: StartServer,
    count: int,
    *,
    redis_urls: Sequence[str] = (),
    **settings: object,
) -> AsyncIterator[list[ServerProcess]]:
    """Nodes on one store and one Redis, stopped before that ends. `redis_urls`: where each reaches
    it; without, they have one of their own.
    """
    require_redis()
    with ExitStack() as stack:
        if not redis_urls:
            redis_urls = [stack.enter_context(RedisProcess(directory / "redis")).url] * count
        shared = {
            "STORE_URL": store_url,
            "SECRET_KEY": "5f1d8c7b6a5e4d3c2b1a09f8e7d6c5b4a3928170",
            **settings,
        }
        nodes = [
            await asyncio.to_thread(start_server, **shared, REDIS_URL=url)
            for url in redis_urls[:count]
        ]
        try:
            yield nodes
        finally:
            for node in nodes:
                await asyncio.to_thread(node.stop)
