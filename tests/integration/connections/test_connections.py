"""What administrators see of who is connected, and how they end it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.integration.cluster.test_nodes import SETTINGS
from tests.support.client import connect
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import PASSWORD, Account, Api
from tests.support.server import ServerProcess


@pytest.fixture(params=["one node", "two nodes"])
def nodes(request: pytest.FixtureRequest, start_server: StartServer) -> Iterator[list[Any]]:
    """The same node twice, or two."""
    if request.param == "one node":
        yield [start_server(**SETTINGS)] * 2
        return
    require_redis()
    directory = request.getfixturevalue("tmp_path") / "redis"
    mongodb = request.getfixturevalue("mongodb")
    with RedisProcess(directory) as redis, scratch(mongodb) as database:
        urls = {"REDIS_URL": redis.url, "STORE_URL": database.url}
        started = [start_server(**SETTINGS, **urls) for _ in range(2)]
        yield started
        for each in started:
            each.stop()


async def root(api: Api) -> Account:
    return await api.login("root@example.com", PASSWORD)


async def test_connections_of_all_nodes_are_listed_and_ended(nodes: list[ServerProcess]) -> None:
    here, there = nodes
    async with Api(here.url) as api:
        admin, ann, ben = await root(api), await api.register("Ann"), await api.register("Ben")
        async with (
            await connect(here.url, "/messages", ann.token) as first,
            await connect(there.url, "/messages", ann.token) as second,
            await connect(there.url, "/presence", ben.token) as other,
        ):
            page = await admin.api.get("/connections")
            shown = {each["id"]: each for each in page["items"]}
            assert page["next"] is None
            assert sorted(shown) == [each["id"] for each in page["items"]]
            assert sorted(each["user"] for each in shown.values()) == sorted(
                [ann.id, ann.id, ben.id]
            )
            assert {each["namespace"] for each in shown.values()} == {"/messages", "/presence"}
            assert {each["address"] for each in shown.values()} == {"127.0.0.1"}
            assert len({each["node"] for each in shown.values()}) == len(set(nodes))

            mine = await admin.api.get("/connections", user=ann.id)
            assert {each["user"] for each in mine["items"]} == {ann.id}
            one = await admin.api.get("/connections", limit=1)
            two = await admin.api.get("/connections", limit=2, cursor=one["next"])
            assert [each["id"] for each in one["items"] + two["items"]] == sorted(shown)

            ended = next(id for id, each in shown.items() if each["user"] == ben.id)
            await admin.api.delete(f"/connections/{ended}")
            closing = await other.wait_for("closing")
            assert closing == {"code": "revoked", "reconnect": True}
            await other.wait_closed()
            await first.call("conversation.list")
            await second.call("conversation.list")
            assert ended not in [
                each["id"] for each in (await admin.api.get("/connections"))["items"]
            ]
            await admin.api.delete(f"/connections/{ended}", 404)

            ended = mine["items"][0]["id"]
            await admin.api.delete(f"/connections/{ended}?reconnect=false")


async def test_only_administrators_see_connections(server: ServerProcess, api: Api) -> None:
    ann = await api.register("Ann")
    async with await connect(server.url, "/messages", ann.token):
        await ann.api.get("/connections", 403)
        await ann.api.delete("/connections/x", 403)
