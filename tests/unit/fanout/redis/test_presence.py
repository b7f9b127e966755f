"""Presence when Redis is away, and over a cluster of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from redis.exceptions import RedisClusterException

from domain.errors import Unavailable
from domain.presence.presence import Device
from tests.support.counting import until
from tests.support.joint import wait_for
from tests.support.redis import RedisProcess, require_redis
from tests.support.registries import Registries, RegistryNode, device
from tests.unit.fanout.redis.test_kinds import member

ANN = ("org", "ann")


@asynccontextmanager
async def made(url: str) -> AsyncIterator[Registries]:
    nodes = Registries(url)
    try:
        yield nodes
    finally:
        await nodes.close()


async def until_ids(node: RegistryNode, *ids: str, user: str = "ann") -> None:
    async with asyncio.timeout(10):
        while await node.ids(user) != set(ids):
            await asyncio.sleep(0.01)


async def test_while_redis_is_away_what_is_known_goes_on(tmp_path: Path) -> None:
    require_redis()
    with RedisProcess(tmp_path) as redis:
        async with made(redis.url) as nodes:
            here, there = [await nodes.add(dead_after=30) for _ in range(2)]
            here.registry.watch(*ANN)
            there.registry.put(*ANN, device("desk"))
            await until_ids(here, "desk")
            redis.kill()
            here.registry.put(*ANN, device("phone", 1))
            assert await here.ids() == {"desk", "phone"}
            assert await there.ids() == {"desk"}
            here.registry.put("org", "bob", device("his"))
            assert await here.ids("bob") == {"his"}
            assert await there.ids("bob") == set()
            redis.start()
            # It knows nothing any more; nobody is taken for gone meanwhile.
            async with asyncio.timeout(10):
                while await there.ids("bob") != {"his"} or await there.ids() != {"desk", "phone"}:
                    assert await here.ids() == {"desk", "phone"}
                    await asyncio.sleep(0.01)
            await until(lambda: here.registry._doubting is None)  # type: ignore[attr-defined]
            assert await here.ids() == {"desk", "phone"}
            there.registry.remove(*ANN, "desk")
            await until_ids(here, "phone")


async def test_what_went_while_redis_was_away_is_gone(tmp_path: Path) -> None:
    require_redis()
    with RedisProcess(tmp_path) as redis:
        async with made(redis.url) as nodes:
            here, there = [await nodes.add(dead_after=30) for _ in range(2)]
            here.registry.watch(*ANN)
            there.registry.put(*ANN, device("desk"))
            await until_ids(here, "desk")
            redis.kill()
            there.registry.remove(*ANN, "desk")
            assert await here.ids() == {"desk"}
            redis.start()
            await until_ids(here)
            assert ANN in here.changed


async def test_a_redis_that_hangs_holds_nobody_up_for_long(tmp_path: Path) -> None:
    require_redis()
    with RedisProcess(tmp_path) as redis:
        async with made(redis.url) as nodes:
            here = await nodes.add()
            here.registry.put(*ANN, device("desk"))
            redis.pause()
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await here.ids() == {"desk"}
            assert loop.time() - began < 1.5
            began = loop.time()
            for _ in range(100):
                assert await here.ids() == {"desk"}
            assert loop.time() - began < 0.2
            redis.go_on()


async def test_a_redis_that_hangs_is_told_and_leaving_takes_a_bounded_time(tmp_path: Path) -> None:
    require_redis()
    with RedisProcess(tmp_path) as redis:
        async with made(redis.url) as nodes:
            here = await nodes.add()
            redis.pause()
            for ask in (here.registry.renew, here.registry.sweep):
                with pytest.raises(Unavailable):
                    await ask()
            here.registry.put(*ANN, device("desk"))
            loop = asyncio.get_running_loop()
            began = loop.time()
            await here.registry.leave(1.0)
            assert loop.time() - began < 4
            redis.go_on()


async def test_nobody_is_declared_dead_right_after_an_outage(tmp_path: Path) -> None:
    require_redis()
    with RedisProcess(tmp_path) as redis:
        async with made(redis.url) as nodes:
            here = await nodes.add(settled_after=10.0)
            there = await nodes.add()
            there.registry.put(*ANN, device("desk"))
            await until_ids(here, "desk")
            redis.pause()
            await asyncio.gather(here.ids(), there.ids())
            redis.go_on()
            await asyncio.sleep(1.2)
            await here.registry.renew()
            assert list(await here.registry.sweep()) == []
            await there.registry.renew()
            assert await here.ids() == {"desk"}


async def test_what_a_newer_version_says_beyond_is_ignored(tmp_path: Path) -> None:
    require_redis()
    with RedisProcess(tmp_path) as redis:
        async with made(redis.url) as nodes:
            here, there = [await nodes.add(dead_after=30) for _ in range(2)]
            there.registry.put(*ANN, device("desk"))
            await until_ids(here, "desk")
            newer = orjson.dumps([{**device("new")._asdict(), "battery": 0.4}]).decode()
            node = str(there.registry.node)  # type: ignore[attr-defined]
            redis.say("HSET", 'parley:{presence:0}:of:["org","ann"]', node, newer)
            assert await here.device("new") == Device(*device("new"))


async def test_a_cluster_that_cannot_be_reached_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_redis()
    with RedisProcess(tmp_path) as redis:
        async with made(redis.url) as nodes:
            here, there = [await nodes.add(dead_after=30) for _ in range(2)]
            there.registry.put(*ANN, device("phone"))
            await until_ids(here, "phone")

            async def nobody(*_: object, **__: object) -> object:
                raise RedisClusterException("Redis Cluster cannot be connected")

            with monkeypatch.context() as patch:
                for name in ("read", "put", "renew"):
                    patch.setattr(here.registry._parts[0], name, nobody)  # type: ignore[attr-defined]
                here.registry.put(*ANN, device("desk"))
                assert await here.ids() == {"desk"}
                with pytest.raises(Unavailable):
                    await here.registry.renew()
            await until_ids(here, "desk", "phone")
            await until_ids(there, "desk", "phone")


async def test_a_cluster_spreads_users(tmp_path: Path) -> None:
    require_redis()
    (first, _), (second, bus_port) = member(tmp_path), member(tmp_path)
    two = first, second
    with first, second:
        first.say("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        second.say("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        first.say("CLUSTER", "MEET", "127.0.0.1", str(second.port), bus_port)
        for node in two:
            wait_for(node, ("CLUSTER", "INFO"), b"cluster_state:ok")
            wait_for(node, ("CLUSTER", "INFO"), b"cluster_known_nodes:2")
        url = f"redis+cluster://127.0.0.1:{first.port},127.0.0.1:{second.port}"
        async with made(url) as nodes:
            here, there = [await nodes.add(dead_after=1.0) for _ in range(2)]
            users = [f"u{number}" for number in range(100)]
            for user in users:
                there.registry.put("org", user, device(f"of-{user}"))
            async with asyncio.timeout(10):
                while len(await here.registry.devices("org", users)) < 100:
                    await here.registry.renew()
                    await there.registry.renew()
            for each in two:
                assert not each.say("DBSIZE").startswith(b":0\r\n")
            await there.registry.leave(0.0)
            lost: set[str] = set()
            async with asyncio.timeout(10):
                while len(lost) < 100:
                    await here.registry.renew()
                    lost.update(each.user for each in await here.registry.sweep())
            assert await here.registry.devices("org", users) == {}
