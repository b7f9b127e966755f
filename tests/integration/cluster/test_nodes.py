"""Two real nodes on one MongoDB and one Redis: a client cannot tell them from one."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.integration.uploads.test_uploads import status, upload
from tests.support.client import Client, connect
from tests.support.door import door
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import PASSWORD, Account, Api
from tests.support.server import ServerProcess

START = {"epoch": "", "seq": 0}
SETTINGS = {
    "SECRET_KEY": "of both nodes " * 3,
    "ADMIN_EMAIL": "root@example.com",
    "ADMIN_PASSWORD": PASSWORD,
}


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
        urls = {"REDIS_URL": redis.url, "STORE_URL": database.url}
        started = [start_server(**SETTINGS, **urls) for _ in range(2)]
        yield started
        for each in started:
            each.stop()


async def direct(ann: Account, ben: Account) -> str:
    body = {"kind": "direct", "members": [ben.id], "client_id": "d"}
    return str((await ann.api.post("/conversations", body, 201))["id"])


async def say(client: Client, conversation: str, body: str) -> Any:
    request = {"conversation": conversation, "client_id": body, "body": body}
    return await client.call("message.send", request)


def bodies(client: Client) -> list[str]:
    return [each.data["data"]["body"] for each in client.events if each.name == "message.created"]


async def until_heard(client: Client, wanted: list[str], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while bodies(client) != wanted:
            assert bodies(client) == wanted[: len(bodies(client))]
            await asyncio.sleep(0.02)


async def until_ready(server: ServerProcess, wanted: bool, within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while await asyncio.to_thread(server.ready) is not wanted:
            await asyncio.sleep(0.1)


async def test_nodes_that_start_at_once_on_an_empty_store(
    redis: RedisProcess, mongodb: str, start_server: StartServer
) -> None:
    with scratch(mongodb) as database:
        urls = {"REDIS_URL": redis.url, "STORE_URL": database.url}
        started = await asyncio.gather(
            *(asyncio.to_thread(start_server, **SETTINGS, **urls) for _ in range(3))
        )
        for each in started:
            async with Api(each.url) as api:
                await api.login(SETTINGS["ADMIN_EMAIL"], SETTINGS["ADMIN_PASSWORD"])
        for each in started:
            await asyncio.to_thread(each.stop)


async def test_people_on_two_nodes_talk_also_when_redis_is_away(
    nodes: list[ServerProcess], redis: RedisProcess
) -> None:
    async with Api(nodes[0].url) as here, Api(nodes[1].url) as there:
        ann, ben = await here.register("Ann"), await there.register("Ben")
        async with (
            await connect(nodes[0].url, "/messages", ann.token) as one,
            await connect(nodes[1].url, "/messages", ben.token) as two,
        ):
            conversation = await direct(ann, ben)
            await one.wait_for("conversation.created")
            await two.wait_for("conversation.created")
            wanted = [f"m{number}" for number in range(20)]
            for number, body in enumerate(wanted):
                await say((one, two)[number % 2], conversation, body)
            await until_heard(one, wanted)
            await until_heard(two, wanted)
            await two.call("typing.start", {"conversation": conversation})
            await one.wait_for("typing.changed", lambda event: event["data"]["typing"])
            seq = one.streams[f"messages/{conversation}"]["seq"]
            await two.call("message.read", {"conversation": conversation, "seq": seq})
            await one.wait_for("receipt.updated", lambda event: event["data"]["read_seq"] == seq)
            redis.kill()
            for number in range(3):
                await say(one, conversation, f"away {number}")
                wanted.append(f"away {number}")
            await until_heard(one, wanted)
            await until_heard(two, wanted, 10)
            await until_ready(nodes[0], False)
            redis.start()
            await until_ready(nodes[0], True)
            began = time.monotonic()
            await say(two, conversation, "back")
            await until_heard(one, [*wanted, "back"])
            assert time.monotonic() - began < 2


async def test_what_is_deleted_for_everyone_on_one_node_no_node_tells_again(
    nodes: list[ServerProcess],
) -> None:
    async with Api(nodes[0].url) as here, Api(nodes[1].url) as there:
        ann, ben = await here.register("Ann"), await there.register("Ben")
        file = await upload(ann)
        conversation = await direct(ann, ben)
        stream = f"messages/{conversation}"
        begun = (await ben.api.post("/sync", {"streams": {stream: START}}))["streams"][stream]
        position = {stream: {each: begun[each] for each in ("epoch", "seq")}}
        body = {"body": "hush-hush", "client_id": "1", "attachments": [file["id"]]}
        path = f"/conversations/{conversation}/messages"
        sent = await ann.api.post(path, body, 201)
        await ann.api.patch(f"/messages/{sent['id']}", {"body": "hush-hush!", "version": 1})
        told = await ben.api.post("/sync", {"streams": position})
        assert "hush-hush!" in str(told)
        assert await status(ben, file["id"]) == 200
        await ann.api.delete(f"/messages/{sent['id']}", 200)
        assert await status(ben, file["id"]) == 404
        assert await status(ann, file["id"]) == 200
        for who in (ann, ben):
            missed = (await who.api.post("/sync", {"streams": position}))["streams"][stream]
            assert missed["recovered"]
            assert [event["data"].get("body") for event in missed["events"]] == ["", "", None]
        for node in nodes:
            async with await connect(node.url, "/messages", ben.token, resume=position) as client:
                assert [event.name for event in client.events][:3] == [
                    "message.created",
                    "message.edited",
                    "message.deleted",
                ]
                assert "hush-hush" not in str([event.data for event in client.events])
        again = await ann.api.post(path, body, 201)
        assert (again["id"], again["body"], again["attachments"]) == (sent["id"], "", [])


async def test_what_one_has_deleted_for_oneself_is_told_by_no_node(
    nodes: list[ServerProcess],
) -> None:
    here, there = nodes
    async with Api(here.url) as one:
        ann, ben = await one.register("Ann"), await one.register("Ben")
        conversation = await direct(ann, ben)
        async with (
            await connect(here.url, "/messages", ann.token) as alice,
            await connect(there.url, "/messages", ben.token) as benjamin,
        ):
            sent = await say(alice, conversation, "hush-hush")
            await until_heard(benjamin, ["hush-hush"])
            await benjamin.call("message.delete", {"message": sent["id"], "scope": "me"})
            edit = {"message": sent["id"], "body": "still hush-hush", "version": 1}
            await alice.call("message.edit", edit)
            await say(alice, conversation, "bye")
            await until_heard(benjamin, ["hush-hush", "bye"])
            assert not benjamin.named("message.edited")
            stream = f"messages/{conversation}"
            told = [each for each in benjamin.named("message.deleted") if each["stream"] == stream]
            assert [each["seq"] for each in told] == [sent["seq"] + 1]
            await alice.wait_for("message.edited")


@pytest.mark.parametrize("away", [False, True])
async def test_logging_out_on_one_node_closes_the_connection_on_the_other(
    nodes: list[ServerProcess], redis: RedisProcess, away: bool
) -> None:
    async with Api(nodes[0].url) as here:
        ann = await here.register("Ann")
        async with await connect(nodes[1].url, "/messages", ann.token) as elsewhere:
            if away:
                redis.kill()
            began = time.monotonic()
            await ann.api.post("/auth/logout")
            await elsewhere.wait_closed(5)
            assert elsewhere.closing == {"code": "revoked", "reconnect": False}
            assert time.monotonic() - began < 2.5


@pytest.mark.parametrize("away", [False, True])
async def test_another_role_and_disabling_on_one_node_close_connections_on_the_other(
    nodes: list[ServerProcess], redis: RedisProcess, away: bool
) -> None:
    async with Api(nodes[0].url) as here:
        root, ann = await here.login("root@example.com"), await here.register("Ann")
        ben = await here.register("Ben")
        async with (
            await connect(nodes[1].url, "/messages", ann.token) as promoted,
            await connect(nodes[1].url, "/messages", ben.token) as disabled,
        ):
            if away:
                redis.kill()
            began = time.monotonic()
            await root.api.put(f"/users/{ann.id}/role", {"role": "technician"})
            await promoted.wait_closed(5)
            assert time.monotonic() - began < 2.5
            assert promoted.closing == {"code": "revoked", "reconnect": True}
            began = time.monotonic()
            await root.api.post(f"/users/{ben.id}/disable")
            await disabled.wait_closed(5)
            assert time.monotonic() - began < 2.5
            assert disabled.closing == {"code": "revoked", "reconnect": False}


@pytest.mark.parametrize("away", [False, True])
async def test_who_is_put_out_on_one_node_hears_no_more_on_the_other(
    nodes: list[ServerProcess], redis: RedisProcess, away: bool
) -> None:
    async with Api(nodes[0].url) as here, Api(nodes[1].url) as there:
        ann, ben = await here.register("Ann"), await there.register("Ben")
        async with (
            await connect(nodes[0].url, "/messages", ann.token) as one,
            await connect(nodes[1].url, "/messages", ben.token) as two,
        ):
            group = await one.call(
                "conversation.create",
                {"kind": "group", "title": "T", "members": [ben.id], "client_id": "g"},
            )
            await two.wait_for("conversation.created")
            if away:
                redis.kill()
            await one.call("member.remove", {"conversation": group["id"], "user": ben.id})
            await say(one, group["id"], "secret")
            if away:
                redis.start()
            await two.wait_for("member.removed", lambda event: event["data"]["user"] == ben.id)
            await say(one, group["id"], "another")
            await two.request("conversation.list", {})
            assert bodies(two) == []


async def test_wrong_passwords_are_counted_on_all_nodes_together(
    redis: RedisProcess, mongodb: str, start_server: StartServer
) -> None:
    with scratch(mongodb) as database:
        settings = {
            **SETTINGS,
            "REDIS_URL": redis.url,
            "STORE_URL": database.url,
            "RATE_LIMITS": "login=4/h",
        }
        nodes = [start_server(**settings) for _ in range(2)]
        async with Api(nodes[0].url) as here, Api(nodes[1].url) as there:
            ann = await here.register("Ann")
            wrong = {"email": ann.email, "password": "Not this one, 17"}
            found = [
                (await (here, there)[number % 2].request("POST", "/auth/login", json=wrong)).status
                for number in range(6)
            ]
            assert found == [401] * 4 + [429] * 2
        for each in nodes:
            each.stop()


async def metrics(api: Api) -> str:
    return (await api.request("GET", "//metrics")).body.decode()


async def test_nodes_on_one_database_without_redis_say_that_they_are_not_joined(
    mongodb: str, start_server: StartServer
) -> None:
    with scratch(mongodb) as database:
        one, two = (start_server(**SETTINGS, STORE_URL=database.url) for _ in range(2))
        async with Api(one.url) as here, asyncio.timeout(40):
            while not all("nodes_not_joined" in each.log() for each in (one, two)):
                await asyncio.sleep(0.1)
            assert 'parley_nodes{kind="not_joined"} 1.0' in await metrics(here)
            assert one.ready()
            assert two.ready()
            told = next(line for line in one.log().splitlines() if "nodes_not_joined" in line)
            assert f":{two.port}" in told
            assert "PARLEY_REDIS_URL" in told
            await asyncio.to_thread(two.stop)
            while "nodes_joined" not in one.log():
                await asyncio.sleep(0.1)
        one.stop()


async def test_nodes_know_each_other_and_find_what_one_that_died_could_not_tell(
    redis: RedisProcess, mongodb: str, start_server: StartServer
) -> None:
    with scratch(mongodb) as database:
        shared = {**SETTINGS, "STORE_URL": database.url}
        async with door(redis.port) as way:
            through = f"redis://127.0.0.1:{way.port}/0"
            dies = await asyncio.to_thread(start_server, **shared, REDIS_URL=through)
            stays = await asyncio.to_thread(start_server, **shared, REDIS_URL=redis.url)
            async with Api(dies.url) as api, Api(stays.url) as other:
                ann, ben = await api.register("Ann"), await api.register("Ben")
                async with await connect(stays.url, "/messages", ben.token) as client:
                    await until_ready(dies, True)
                    async with asyncio.timeout(40):
                        while 'parley_nodes{kind="others"} 1.0' not in await metrics(other):
                            await asyncio.sleep(0.1)
                    assert 'parley_nodes{kind="not_joined"} 0.0' in await metrics(other)
                    way.shut()
                    await direct(ann, ben)
                    await asyncio.to_thread(dies.kill)
                    closing = await client.wait_for("closing", timeout=30)
                    assert closing == {"code": "revoked", "reconnect": True}
            await asyncio.to_thread(stays.stop)
