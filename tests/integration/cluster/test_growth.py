"""What a node of a cluster hears over Redis: what its clients need, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.client import Client, connect
from tests.support.counting import until
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess
from tests.support.wiretap import Wiretap

OF_A_NODE = ("parley:node:", "parley:nodes", "parley:control")
"""Channels that a node hears whoever is connected to it: itself, that others live, and orders that
concern all."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    require_redis()
    with RedisProcess(tmp_path / "redis") as redis:
        yield redis


@dataclass(frozen=True)
class Pair:
    """Two nodes, and what Redis says to the second."""

    here: ServerProcess
    there: ServerProcess
    tap: Wiretap
    redis: RedisProcess

    def subscribers(self, conversation: str) -> int:
        """How many nodes Redis would send a message in a conversation to."""
        return self.redis.subscribers(f"parley:messages/{conversation}")


@pytest.fixture
async def nodes(
    redis: RedisProcess, mongodb: str, start_server: StartServer
) -> AsyncIterator[Pair]:
    with scratch(mongodb) as database:
        async with Wiretap(redis.port) as tap:
            shared = {"SECRET_KEY": "of both nodes " * 3, "STORE_URL": database.url}
            here = await asyncio.to_thread(start_server, **shared, REDIS_URL=redis.url)
            there = await asyncio.to_thread(start_server, **shared, REDIS_URL=tap.url)
            yield Pair(here, there, tap, redis)
            for each in (there, here):
                await asyncio.to_thread(each.stop)


async def talk(ann: Client, ben: Client, conversation: str, what: str) -> None:
    """Everything that two people do who talk, until both have seen it."""
    for number in range(20):
        body = f"{what} {number}"
        request = {"conversation": conversation, "client_id": body, "body": body}
        await (ann, ben)[number % 2].call("message.send", request)
        await ben.call("typing.start", {"conversation": conversation})
        await ben.call("typing.stop", {"conversation": conversation})
    for client in (ann, ben):
        last = await client.wait_for(
            "message.created", lambda event: event["data"]["body"] == f"{what} 19"
        )
        seq = last["seq"]
        await client.call("message.read", {"conversation": conversation, "seq": seq})


async def open_group(ann: Account, ben: Account, dan: Account) -> str:
    """A conversation of two, into which a third comes and from which that one goes again."""
    body = {"kind": "group", "members": [ben.id], "client_id": "g", "title": "A group"}
    id = str((await ann.api.post("/conversations", body, 201))["id"])
    await ann.api.post(f"/conversations/{id}/members", {"user": dan.id})
    await ann.api.delete(f"/conversations/{id}/members/{dan.id}", 200)
    return id


async def heard_nothing_of(nodes: Pair, *secrets: str) -> None:
    """The second node has heard itself meanwhile, and no word of these."""
    await until(lambda: sum(nodes.tap.messages.values()) > 2)
    assert [each for each in nodes.tap.messages if not each.startswith(OF_A_NODE)] == []
    for secret in secrets:
        assert secret.encode() not in nodes.tap.heard


async def test_a_node_without_members_of_a_room_receives_nothing_of_it(nodes: Pair) -> None:
    tap = nodes.tap
    async with Api(nodes.here.url) as api:
        ann, ben, carl, dan = [await api.register(name) for name in ("Ann", "Ben", "Carl", "Dan")]
        async with (
            await connect(nodes.here.url, "/messages", ann.token) as one,
            await connect(nodes.there.url, "/messages", carl.token),
        ):
            async with (
                await connect(nodes.here.url, "/messages", ben.token) as two,
                await connect(nodes.here.url, "/presence", ben.token) as looking,
            ):
                tap.forget()
                conversation = await open_group(ann, ben, dan)
                await talk(one, two, conversation, "apart")
                here = await looking.call("presence.room", {"stream": f"messages/{conversation}"})
                assert {each["user"] for each in here["items"]} == {ann.id, ben.id}
                assert nodes.subscribers(conversation) == 1
                people = (each.id for each in (ann, ben, dan))
                await heard_nothing_of(nodes, conversation, *people, "apart")

            # With a member it hears the room, and only until a little after that one has left.
            room = f"parley:messages/{conversation}"
            async with await connect(nodes.there.url, "/messages", ben.token) as two:
                await until(lambda: nodes.subscribers(conversation) == 2)
                await talk(one, two, conversation, "together")
                assert tap.messages[room] >= 20
                for_ben = tap.subscribed
                assert {room, f"parley:user:{ben.id}"} <= for_ben
            await until(lambda: for_ben <= tap.unsubscribed, 20)
            assert nodes.subscribers(conversation) == 1
            tap.forget()
            async with await connect(nodes.here.url, "/messages", ben.token) as two:
                await talk(one, two, conversation, "apart again")
                await heard_nothing_of(nodes, conversation, ann.id, ben.id, "apart again")
