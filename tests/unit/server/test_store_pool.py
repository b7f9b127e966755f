"""`PARLEY_STORE_POOL` is how many connections a node has to MongoDB."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from config.settings import Settings
from domain.ids import new_id
from server.app import make_blobs, make_engine
from store.messaging.messages import MESSAGES
from tests.support.mongo_wire import WireProxy, wire_proxy
from tests.support.mongod import scratch

SECONDS = 20.0


async def most(proxy: WireProxy, expected: int, call: Callable[[], Awaitable[object]]) -> int:
    """Connections used when many more calls are made at once, again and again."""
    async with asyncio.timeout(SECONDS):
        while proxy.pooled < expected:
            await asyncio.gather(*(call() for _ in range(60)))
        await asyncio.gather(*(call() for _ in range(60)))
    return proxy.pooled


@pytest.mark.parametrize("pool", [3, 6])
async def test_the_pool_is_as_large_as_the_setting_says(mongodb: str, pool: int) -> None:
    with scratch(mongodb) as database:
        async with wire_proxy(database.url) as (proxy, url):
            settings = Settings(_env_file=None, store_url=url, store_pool=pool)
            engine = make_engine(settings)
            await engine.start()
            assert await most(proxy, pool, lambda: engine.get("acme", MESSAGES, "m")) == pool
            await engine.stop()
        async with wire_proxy(database.url) as (proxy, url):
            blobs = make_blobs(settings.model_copy(update={"store_url": url}))
            await blobs.start()
            assert await most(proxy, pool, lambda: blobs.open(new_id())) == pool
            await blobs.stop()
