"""Every sentence of `fanout.limits.RateLimiter`, over every limiter: of one node, of a node that
counts in Redis, and of one whose Redis is away.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.clock import SystemClock
from fanout.limits import Limit, LocalRateLimiter, RateLimiter
from fanout.redis.limits import RedisRateLimiter
from fanout.redis.servers import open_servers
from tests.support.redis import RedisProcess, require_redis

LIMITS: dict[str, Limit | None] = {
    "login": (10, 60.0),
    "register": (1, 60.0),
    "quick": (60, 60.0),
    "flood": (100, 50.0),
    "off": None,
}
DEFAULT: Limit = (2, 60.0)

ABOUT = 0.25
"""Seconds within which a node and Redis agree: as long as the first take was on its way."""


@pytest.fixture(params=["local", "redis", "redis-away"])
async def limiter(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RateLimiter]:
    local = LocalRateLimiter(LIMITS, SystemClock(), default=DEFAULT)
    if request.param == "local":
        yield local
        return
    require_redis()
    redis = RedisProcess(tmp_path)
    if request.param == "redis":
        redis.start()
    servers = open_servers(redis.url)
    shared = RedisRateLimiter(servers, local, LIMITS, SystemClock(), default=DEFAULT, within=10.0)
    yield shared
    assert (shared.alone > 0) == (shared.asked > 0 and request.param == "redis-away")
    await shared.close()
    await servers.close()
    redis.kill()


async def taken(limiter: RateLimiter, bucket: str, key: str, most: int = 1000) -> int:
    """How many can be taken before one is refused."""
    for number in range(most):
        if await limiter.take(bucket, key):
            return number
    return most


@pytest.mark.parametrize(("bucket", "count", "interval"), [("login", 10, 6.0), ("flood", 100, 0.5)])
async def test_as_many_at_once_as_the_limit(
    limiter: RateLimiter, bucket: str, count: int, interval: float
) -> None:
    assert [await limiter.take(bucket, "ann") for _ in range(count)] == [0.0] * count
    assert 0 < await limiter.take(bucket, "ann") <= interval


async def test_of_as_many_as_ask_at_the_same_moment_too(limiter: RateLimiter) -> None:
    done = await asyncio.gather(*(limiter.take("login", "ann") for _ in range(50)))
    assert done.count(0.0) == 10
    assert all(0 < wait <= 6.0 for wait in done if wait)


async def test_after_the_seconds_told_there_is_one_and_not_before(limiter: RateLimiter) -> None:
    await limiter.take("login", "ann")  # connects
    assert 60 <= await taken(limiter, "quick", "ann") < 100
    for _ in range(2):
        asked = time.monotonic()
        wait = await limiter.take("quick", "ann")
        refused = answered = time.monotonic()
        assert 0 < wait <= 1.0
        while True:
            again = time.monotonic()
            if not await limiter.take("quick", "ann"):
                break
            refused = again
            await asyncio.sleep(0.005)
        assert refused <= answered + wait + ABOUT
        assert time.monotonic() >= asked + wait - ABOUT


async def test_a_refusal_costs_nothing(limiter: RateLimiter) -> None:
    assert await limiter.take("register", "ann") == 0.0
    waits = [await limiter.take("register", "ann") for _ in range(20)]
    assert 60.0 >= waits[0] > 0
    assert waits == sorted(waits, reverse=True)


async def test_keys_and_buckets_count_for_themselves(limiter: RateLimiter) -> None:
    assert await limiter.take("register", "ann") == 0.0
    assert await limiter.take("register", "ben") == 0.0
    assert await limiter.take("login", "ann") == 0.0
    assert await limiter.take("register", "ann") > 0


async def test_what_is_given_back_can_be_taken_again(limiter: RateLimiter) -> None:
    for _ in range(20):
        assert await limiter.take("login", "ann") == 0.0
        await limiter.give_back("login", "ann")
    assert await taken(limiter, "login", "ann") == 10
    await limiter.give_back("login", "ann")
    assert await taken(limiter, "login", "ann") == 1


async def test_giving_back_never_makes_more_than_the_limit(limiter: RateLimiter) -> None:
    assert await limiter.take("login", "ann") == 0.0
    for _ in range(5):
        await limiter.give_back("login", "ann")
        await limiter.give_back("login", "nobody")
        await limiter.give_back("nothing", "ann")
    for bucket, key, count in (
        ("login", "ann", 10),
        ("login", "nobody", 10),
        ("nothing", "ann", 2),
    ):
        assert await taken(limiter, bucket, key) == count


async def test_buckets_without_a_limit_of_their_own(limiter: RateLimiter) -> None:
    assert [await limiter.take("off", "ann") for _ in range(50)] == [0.0] * 50
    assert await taken(limiter, "other", "ann") == 2
