"""Presence when another Redis server takes over, which knows less than the one before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from fanout.redis.presence import RedisPresenceRegistry
from tests.support.redis import RedisProcess, require_redis
from tests.support.registries import RegistryNode, device
from tests.unit.fanout.redis.test_presence import made, until_ids
from tests.unit.fanout.redis.test_sentinels import three_sentinels

USERS = [f"u{number}" for number in range(20)]


@asynccontextmanager
async def renewed(*nodes: RegistryNode) -> AsyncIterator[None]:
    """The nodes renew all the time, as real ones do."""

    async def renew(node: RegistryNode) -> None:
        while True:
            await asyncio.gather(node.registry.renew(), return_exceptions=True)
            await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(renew(each)) for each in nodes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def online(node: RegistryNode) -> set[str]:
    return set(await node.registry.devices("org", USERS))


@pytest.mark.timeout(90)
async def test_a_new_master_that_knows_nobody_takes_nobody_offline(tmp_path: Path) -> None:
    require_redis()
    with three_sentinels(tmp_path) as (url, master, replica, _):
        async with made(url) as nodes:
            here, there = [await nodes.add(dead_after=30) for _ in range(2)]
            for user in USERS:
                here.registry.watch("org", user)
                there.registry.put("org", user, device(f"of-{user}"))
            async with asyncio.timeout(10):
                while await online(here) != set(USERS):
                    await asyncio.sleep(0.01)
            async with renewed(here, there):
                # What was written in the last moments was not copied any more: at worst everything.
                assert replica.say("CONFIG", "SET", "replica-read-only", "no") == b"+OK\r\n"
                assert replica.say("FLUSHALL") == b"+OK\r\n"
                master.pause()
                there.registry.remove("org", USERS[0], f"of-{USERS[0]}")
                async with asyncio.timeout(30):
                    while await online(here) != set(USERS[1:]):
                        assert await online(here) >= set(USERS[1:])
                        await asyncio.sleep(0.01)
                    while replica.say("EXISTS", entry(USERS[1])) == b":0\r\n":
                        await asyncio.sleep(0.01)
                async with asyncio.timeout(10):
                    while registry(here)._doubting is not None:
                        assert await online(here) == set(USERS[1:])
                        await asyncio.sleep(0.01)
                assert await online(here) == set(USERS[1:])
                there.registry.remove("org", USERS[1], f"of-{USERS[1]}")
                async with asyncio.timeout(10):
                    while await online(here) != set(USERS[2:]):
                        await asyncio.sleep(0.01)


def registry(node: RegistryNode) -> RedisPresenceRegistry:
    assert isinstance(node.registry, RedisPresenceRegistry)
    return node.registry


def entry(user: str) -> str:
    return "parley:{presence:0}:of:" + orjson.dumps(["org", user]).decode()


@pytest.mark.timeout(60)
async def test_who_left_is_gone_although_a_new_master_never_heard_of_it(tmp_path: Path) -> None:
    require_redis()
    with RedisProcess(tmp_path) as redis:
        async with made(redis.url) as nodes:
            here, there = [await nodes.add(dead_after=30) for _ in range(2)]
            user = USERS[0]
            for each in (here, there):
                each.registry.put("org", user, device(f"of-{registry(each).node}"))
            there.registry.put("org", USERS[1], device("stays"))
            here.registry.watch("org", user)
            async with asyncio.timeout(10):
                while len(await here.ids(user)) != 2 or not await here.ids(USERS[1]):
                    await asyncio.sleep(0.01)
            node = registry(there).node
            said = redis.say("HGET", entry(user), node).splitlines()[1].decode()
            there.registry.remove("org", user, f"of-{node}")
            await until_ids(here, f"of-{registry(here).node}", user=user)
            # A replica that was behind has taken over: it knows of the device, not of its end.
            on = f"parley:{{presence:0}}:on:{node}"
            assert redis.say("HSET", entry(user), node, said) == b":1\r\n"
            redis.say("SADD", on, orjson.dumps(["org", user]).decode())
            assert len(await here.ids(user)) == 2
            here.changed.clear()
            redis.drop_listeners()
            async with renewed(here, there):
                await until_ids(here, f"of-{registry(here).node}", user=user)
                async with asyncio.timeout(10):
                    while ("org", user) not in here.changed:
                        await asyncio.sleep(0.01)
                assert await here.ids(USERS[1]) == {"stays"}


@pytest.mark.timeout(60)
async def test_a_server_that_has_forgotten_takes_nobody_offline(tmp_path: Path) -> None:
    require_redis()
    with RedisProcess(tmp_path) as redis:
        async with made(redis.url) as nodes:
            here, there = [await nodes.add(dead_after=30) for _ in range(2)]
            for user in USERS:
                here.registry.watch("org", user)
                there.registry.put("org", user, device(f"of-{user}"))
            async with asyncio.timeout(10):
                while await online(here) != set(USERS):
                    await asyncio.sleep(0.01)
            # No connection breaks: an address, or a proxy, leads to another server now.
            assert redis.say("FLUSHALL") == b"+OK\r\n"
            assert await online(here) == set(USERS)
            there.registry.remove("org", USERS[0], f"of-{USERS[0]}")
            async with renewed(here, there):
                async with asyncio.timeout(20):
                    while await online(here) != set(USERS[1:]):
                        assert await online(here) >= set(USERS[1:])
                        await asyncio.sleep(0.01)
                assert redis.say("EXISTS", *map(entry, USERS[1:])) == b":19\r\n"
