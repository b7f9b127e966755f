"""Rate limits that several nodes count together, over a real Redis."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from domain.clock import Clock, SystemClock
from domain.ids import new_id
from fanout.limits import Limit, LocalRateLimiter
from fanout.redis.limits import PAUSE, WITHIN, RedisRateLimiter
from fanout.redis.servers import RedisServers, open_servers
from tests.support.counting import until
from tests.support.local import TurnedClock
from tests.support.redis import RedisProcess, require_redis

LIMITS: dict[str, Limit | None] = {
    "login": (10, 60.0),
    "odd": (7, 61.0),
    "message.send": (100, 1.0),
    "slow.flood": (100, 50.0),
    "off": None,
}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    require_redis()
    with RedisProcess(tmp_path) as started:
        yield started


def node(
    servers: RedisServers, within: float = 10.0, clock: Clock | None = None
) -> RedisRateLimiter:
    """Waits long for answers: how long the machine takes for them is not the matter here."""
    clock = clock or SystemClock()
    return RedisRateLimiter(servers, LocalRateLimiter(LIMITS, clock), LIMITS, clock, within=within)


async def test_what_protects_something_is_counted_together(redis: RedisProcess) -> None:
    servers = open_servers(redis.url)
    nodes = [node(servers) for _ in range(3)]
    for bucket, count in (("login", 10), ("odd", 7)):
        taken = [await nodes[n % 3].take(bucket, "ann") for n in range(count)]
        assert taken == [0.0] * count
        for each in nodes:
            assert 0 < await each.take(bucket, "ann") <= 10
        assert await nodes[0].take(bucket, "ben") == 0.0
    await servers.close()


async def test_of_many_at_once_no_more_than_the_limit_get_through(redis: RedisProcess) -> None:
    servers = open_servers(redis.url)
    nodes = [node(servers) for _ in range(3)]
    taken = await asyncio.gather(*(nodes[n % 3].take("login", "ann") for n in range(60)))
    assert taken.count(0.0) == 10
    await servers.close()


async def test_giving_back_undoes_a_take_everywhere(redis: RedisProcess) -> None:
    servers = open_servers(redis.url)
    one, other = node(servers), node(servers)
    for _ in range(30):
        assert await one.take("login", "ann") == 0.0
        await one.give_back("login", "ann")
    assert [await other.take("login", "ann") for _ in range(10)] == [0.0] * 10
    assert await one.take("login", "ann") > 0
    await servers.close()


async def test_what_others_have_used_up_costs_nothing_to_ask_for(redis: RedisProcess) -> None:
    servers = open_servers(redis.url)
    one, other = node(servers), node(servers)
    assert [await one.take("login", "ann") for _ in range(10)] == [0.0] * 10
    waits = [await other.take("login", "ann") for _ in range(15)]
    assert 0 < waits[-1] <= waits[0] <= 6.0
    await one.give_back("login", "ann")
    assert await other.take("login", "ann") == 0.0
    assert other.asked == 16
    await servers.close()


async def test_a_node_that_knows_the_answer_does_not_ask(redis: RedisProcess) -> None:
    servers = open_servers(redis.url)
    one = node(servers)
    for _ in range(10):
        await one.take("login", "ann")
    asked = one.asked
    assert await one.take("login", "ann") > 0
    assert await one.take("off", "ann") == 0.0
    assert one.asked == asked
    await servers.close()


async def test_a_flood_waits_for_nobody_and_is_known_everywhere_soon(redis: RedisProcess) -> None:
    servers = open_servers(redis.url)
    one, other = node(servers), node(servers)
    assert [await one.take("slow.flood", "ann") for _ in range(100)] == [0.0] * 100
    assert one.asked == 0
    # What a quarter is made up of is not told; the rest is, when the other takes as much.
    assert [await other.take("slow.flood", "ann") for _ in range(30)] == [0.0] * 30
    await until(lambda: other._settling is None)
    assert await other.take("slow.flood", "ann") == 0.0
    await until(lambda: other._settling is None)
    taken = [await other.take("slow.flood", "ann") for _ in range(70)]
    assert taken.count(0.0) <= 25
    assert await other.take("slow.flood", "ben") == 0.0
    await one.close()
    await other.close()
    await servers.close()


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_without_redis_each_node_counts_for_itself(redis: RedisProcess, how: str) -> None:
    servers = open_servers(redis.url)
    one, other = node(servers, WITHIN), node(servers, WITHIN)
    assert await one.take("login", "ann") == 0.0
    redis.kill() if how == "killed" else redis.pause()
    started = time.monotonic()
    assert [await one.take("login", "ann") for _ in range(9)] == [0.0] * 9
    assert await one.take("login", "ann") > 0
    assert time.monotonic() - started < 0.5
    assert await other.take("login", "ann") == 0.0
    if how == "killed":
        redis.start()
    else:
        redis.go_on()
    await asyncio.sleep(1.1)
    asked = other.asked
    await other.take("login", "cleo")
    assert other.asked == asked + 1
    await servers.close()


async def test_an_outage_is_told_once_and_so_is_its_end(redis: RedisProcess) -> None:
    servers, clock = open_servers(redis.url), TurnedClock()
    one = node(servers, clock=clock)
    with capture_logs() as logs:
        for _ in range(2):
            redis.kill()
            for _ in range(30):
                await one.take("login", new_id())
                clock.turn(PAUSE)
            redis.start()
            for _ in range(30):
                await one.take("login", new_id())
                clock.turn(PAUSE)
    assert [each["event"] for each in logs] == ["limits_not_shared", "limits_shared"] * 2
    await servers.close()


async def test_a_redis_that_answers_now_and_then_is_told_of_once(redis: RedisProcess) -> None:
    servers, clock = open_servers(redis.url), TurnedClock()
    one = node(servers, clock=clock)
    with capture_logs() as logs:
        for _ in range(3):
            redis.kill()
            await one.take("login", new_id())
            clock.turn(PAUSE)
            redis.start()
            await one.take("login", new_id())
            clock.turn(PAUSE)
    assert [each["event"] for each in logs] == ["limits_not_shared"]
    await servers.close()


async def test_paid_keys_leave_redis(redis: RedisProcess) -> None:
    servers = open_servers(redis.url)
    one = node(servers)
    await one.take("login", "ann")
    left = int(await servers.client.pttl("parley:limit:login:ann"))
    assert 0 < left <= 6001
    await one.give_back("login", "ann")
    assert await servers.client.exists("parley:limit:login:ann") == 0
    await servers.close()
