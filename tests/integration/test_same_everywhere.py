"""A client cannot tell one node on SQLite from three on MongoDB and Redis: the same commands, given to
both, have the same answers, and everybody hears the same events.

In the cluster each request and each connection goes to a node taken at random. A seed that fails is
run again, alone, by `TEST_SEEDS=17 pytest tests/integration/test_same_everywhere.py -k random`.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from server.features import LIMITS
from tests.support import scenes
from tests.support.mongod import scratch
from tests.support.pair import Pair, Tally
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import PASSWORD
from tests.support.server import ServerProcess
from tests.support.sessions import Session
from tests.support.worlds import World

ADMIN = ("root@example.com", PASSWORD)
SETTINGS = {
    "SECRET_KEY": "of all nodes " * 3,
    "ADMIN_EMAIL": ADMIN[0],
    "ADMIN_PASSWORD": ADMIN[1],
    "PRESENCE_GRACE": "0.5",
    "UPLOAD_MAX": "300KiB",
    "UPLOAD_QUOTA": "1500KiB",
    "RATE_LIMITS": ",".join(f"{name}={scenes.RATES.get(name, 'off')}" for name in sorted(LIMITS)),
}

Urls = tuple[str, list[str]]
"""One node, and those of a cluster."""


@pytest.fixture(scope="module")
def urls(mongodb: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    require_redis()
    with ExitStack() as stack:
        database = stack.enter_context(scratch(mongodb))
        redis = stack.enter_context(RedisProcess(tmp_path_factory.mktemp("redis")))
        shared = {**SETTINGS, "REDIS_URL": redis.url, "STORE_URL": database.url}
        servers = [
            stack.enter_context(ServerProcess(tmp_path_factory.mktemp("node"), settings))
            for settings in (SETTINGS, shared, shared, shared)
        ]
        yield servers[0].url, [each.url for each in servers[1:]]


@asynccontextmanager
async def pair_of(urls: Urls, seed: int) -> AsyncIterator[Pair]:
    pair = Pair(World("one node", [urls[0]], seed), World("cluster", urls[1], seed))
    try:
        yield pair
    finally:
        await pair.close()


async def test_files(urls: Urls) -> None:
    async with pair_of(urls, 1) as pair:
        await scenes.files(pair)


async def test_logins(urls: Urls) -> None:
    async with pair_of(urls, 2) as pair:
        await scenes.logins(pair)


async def test_roles_and_keys(urls: Urls) -> None:
    async with pair_of(urls, 3) as pair:
        await scenes.roles(pair, ADMIN)


@pytest.mark.timeout(180)
async def test_limits_and_pages(urls: Urls, full: bool) -> None:
    async with pair_of(urls, 4) as pair:
        await scenes.limits(pair, full)


async def test_rate_limits(urls: Urls) -> None:
    async with pair_of(urls, 5) as pair:
        await scenes.rates(pair)


@pytest.mark.timeout(3600)
async def test_random_sessions(urls: Urls, full: bool) -> None:
    given = os.environ.get("TEST_SEEDS")
    seeds = [int(each) for each in given.split(",")] if given else range(100 if full else 2)
    tally = Tally()
    for seed in seeds:
        async with pair_of(urls, seed) as pair:
            session = Session(pair, seed, ADMIN)
            try:
                await session.run(300 if full else 100)
            except AssertionError as error:
                raise AssertionError(f"TEST_SEEDS={seed}: {error}") from error
            tally.add(pair, session.heard)
    tally.show()
