"""Presence on two real nodes that share one MongoDB and one Redis."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.client import Client, connect
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import Api
from tests.support.server import ServerProcess

GRACE = 2.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    require_redis()
    with RedisProcess(tmp_path / "redis") as redis:
        yield redis


@pytest.fixture
def nodes(
    redis: RedisProcess, mongodb: str, start_server: StartServer
) -> Iterator[list[ServerProcess]]:
    with scratch(mongodb) as database:
        settings = {
            "SECRET_KEY": "of both nodes " * 3,
            "PRESENCE_GRACE": str(GRACE),
            "REDIS_URL": redis.url,
            "STORE_URL": database.url,
        }
        started = [start_server(**settings) for _ in range(2)]
        yield started
        for each in started:
            each.stop()


def told(client: Client) -> list[tuple[str, int]]:
    """What a watcher was told, of whom it watches."""
    return [
        (each.data["data"]["status"], each.data["data"]["devices"])
        for each in client.events
        if each.name == "presence.changed"
    ]


async def until_told(client: Client, *wanted: tuple[str, int], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while told(client) != list(wanted):
            await asyncio.sleep(0.02)


async def test_devices_merge_and_move_between_nodes(nodes: list[ServerProcess]) -> None:
    async with Api(nodes[0].url) as here, Api(nodes[1].url) as there:
        ann, bob = await here.register("Ann"), await there.register("Bob")
        async with await connect(nodes[0].url, "/presence", bob.token) as watcher:
            before = await watcher.call("presence.watch", {"users": [ann.id]})
            assert before[0]["status"] == "offline"
            desk = await connect(nodes[1].url, "/presence", ann.token)
            await until_told(watcher, ("online", 1))
            await desk.call("presence.set", {"status": "busy"})
            await until_told(watcher, ("online", 1), ("busy", 1))
            phone = await connect(nodes[0].url, "/presence", ann.token)
            await until_told(watcher, ("online", 1), ("busy", 1), ("busy", 2))
            own = await phone.call("presence.set", {"status": "online"})
            assert (own["status"], own["devices"]) == ("busy", 2)
            # One after the other they go, and she comes back elsewhere.
            await desk.close()
            await until_told(watcher, ("online", 1), ("busy", 1), ("busy", 2), ("online", 1))
            await phone.close()
            again = await connect(nodes[1].url, "/presence", ann.token)
            value = (await watcher.call("presence.watch", {"users": [ann.id]}))[0]
            assert value["status"] == "online"
            await asyncio.sleep(GRACE * 1.5)
            assert told(watcher)[4:] == []
            began = time.time()
            await again.close()
            await watcher.wait_for(
                "presence.changed", lambda each: each["data"]["status"] == "offline"
            )
            assert GRACE - 0.5 < time.time() - began < GRACE + 2
            assert told(watcher)[4:] == [("offline", 0)]


async def test_who_is_in_a_room_on_all_nodes(nodes: list[ServerProcess]) -> None:
    async with Api(nodes[0].url) as here, Api(nodes[1].url) as there:
        ann, bob = await here.register("Ann"), await there.register("Bob")
        async with (
            await connect(nodes[0].url, "/messages", ann.token) as one,
            await connect(nodes[1].url, "/messages", bob.token) as two,
        ):
            body = {"kind": "direct", "members": [bob.id], "client_id": "d"}
            direct = await one.call("conversation.create", body)
            await two.wait_for("conversation.created")
            room = {"stream": f"messages/{direct['id']}"}
            for client in (await one.join("/presence"), await two.join("/presence")):
                page = await client.call("presence.room", room)
                assert {each["user"] for each in page["items"]} == {ann.id, bob.id}
                assert {each["status"] for each in page["items"]} == {"online"}


async def test_presence_outlives_redis(nodes: list[ServerProcess], redis: RedisProcess) -> None:
    async with Api(nodes[0].url) as here, Api(nodes[1].url) as there:
        ann, bob = await here.register("Ann"), await there.register("Bob")
        async with (
            await connect(nodes[0].url, "/presence", bob.token) as watcher,
            await connect(nodes[1].url, "/presence", ann.token) as desk,
        ):
            await watcher.call("presence.watch", {"users": [ann.id, bob.id]})
            redis.kill()
            await watcher.call("presence.set", {"status": "away"})
            await until_told(watcher, ("away", 1))
            own = await desk.call("presence.set", {"status": "busy"})
            assert own["status"] == "busy"
            # It has forgotten everything, and nobody is told so.
            redis.start()
            await until_told(watcher, ("away", 1), ("busy", 1))
            await asyncio.sleep(5)
            assert told(watcher) == [("away", 1), ("busy", 1)]
            values = await watcher.call("presence.watch", {"users": [ann.id, bob.id]})
            assert [each["status"] for each in values] == ["busy", "away"]


async def test_a_node_that_is_stopped_takes_nobody_along(nodes: list[ServerProcess]) -> None:
    async with Api(nodes[0].url) as here:
        ann, bob = await here.register("Ann"), await here.register("Bob")
        async with await connect(nodes[0].url, "/presence", bob.token) as watcher:
            await watcher.call("presence.watch", {"users": [ann.id]})
            async with await connect(nodes[1].url, "/presence", ann.token):
                await until_told(watcher, ("online", 1))
                await asyncio.to_thread(nodes[1].stop)
            assert told(watcher) == [("online", 1)]
            again = await connect(nodes[0].url, "/presence", ann.token)
            await asyncio.sleep(GRACE + 1)
            assert told(watcher) == [("online", 1)]
            await again.close()
            await until_told(watcher, ("online", 1), ("offline", 0), within=40)


@pytest.mark.long
@pytest.mark.timeout(150)
async def test_a_node_that_dies_takes_its_users_offline_within_a_minute(
    nodes: list[ServerProcess],
) -> None:
    async with Api(nodes[0].url) as here:
        ann, bob = await here.register("Ann"), await here.register("Bob")
        async with await connect(nodes[0].url, "/presence", bob.token) as watcher:
            await watcher.call("presence.watch", {"users": [ann.id]})
            desk = await connect(nodes[1].url, "/presence", ann.token)
            await until_told(watcher, ("online", 1))
            nodes[1].kill()
            await until_told(watcher, ("online", 1), ("offline", 0), within=60)
            await desk.close()
