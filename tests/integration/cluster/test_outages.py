"""Outages that a node mends by itself, as its log tells of them."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import StartServer
from tests.support.client import Client, connect
from tests.support.joint import wait_for
from tests.support.mongod import Mongod, scratch
from tests.support.outages import check_told, told
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import Api
from tests.support.server import ServerProcess
from tests.unit.fanout.redis.test_kinds import cluster_of_two
from tests.unit.fanout.redis.test_sentinels import three_sentinels

OF_REDIS = Counter(
    {
        "bus_silent": 2,
        "bus_listening_failed": 4,
        "bus_publishing_failed": 4,
        "bus_cluster_unknown": 1,
        "presence_alone": 1,
        "limits_not_shared": 1,
        "presence_unanswered": 1,
        "periodic_work_delayed": 3,
    }
)


class Trouble(NamedTuple):
    """A Redis of some form, what befalls it and what ends that."""

    url: str
    begin: Callable[[], None]
    end: Callable[[], object]


@contextlib.contextmanager
def one(directory: Path) -> Iterator[Trouble]:
    with RedisProcess(directory) as redis:
        yield Trouble(redis.url, redis.kill, redis.start)


@contextlib.contextmanager
def silent(directory: Path) -> Iterator[Trouble]:
    with RedisProcess(directory) as redis:
        yield Trouble(redis.url, redis.pause, redis.go_on)


@contextlib.contextmanager
def failover(directory: Path) -> Iterator[Trouble]:
    with three_sentinels(directory) as (url, master, _, _):
        yield Trouble(url, master.kill, lambda: None)


@contextlib.contextmanager
def sentinels_too(directory: Path) -> Iterator[Trouble]:
    with three_sentinels(directory) as (url, master, replica, sentinels):
        servers = [*sentinels, replica, master]

        def begin() -> None:
            for each in servers:
                each.pause()

        def end() -> None:
            for each in servers:
                each.go_on()

        yield Trouble(url, begin, end)


def whole(servers: list[RedisProcess]) -> None:
    """Wait until a cluster works again; for a moment its servers say that it is down."""
    for each in servers:
        wait_for(each, ("CLUSTER", "INFO"), b"cluster_state:ok")


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[Trouble]:
    with cluster_of_two(directory) as (url, servers):

        def begin() -> None:
            for each in servers:
                each.kill()

        def end() -> None:
            for each in servers:
                each.start()
            whole(servers)

        yield Trouble(url, begin, end)


@contextlib.contextmanager
def part_of_a_cluster(directory: Path) -> Iterator[Trouble]:
    with cluster_of_two(directory) as (url, servers):

        def end() -> None:
            servers[0].start()
            whole(servers)

        yield Trouble(url, servers[0].kill, end)


async def until(condition: Callable[[], bool], what: str, within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"no {what} within {within:g} s"
        await asyncio.sleep(0.1)


def warned(nodes: list[ServerProcess]) -> bool:
    return all("[warning" in node.log() for node in nodes)


def ready(nodes: list[ServerProcess]) -> bool:
    return all(node.ready() for node in nodes)


def mended(nodes: list[ServerProcess]) -> bool:
    """Whether all are ready, and have told the end of what began."""
    pairs = (
        ("presence_alone", "presence_together"),
        ("periodic_work_delayed", "periodic_work_resumed"),
    )
    events = [Counter(event for _, event in told(node.log()).elements()) for node in nodes]
    return all(node.ready() for node in nodes) and all(
        each[began] == each[ended] for each in events for began, ended in pairs
    )


async def say(sender: Client, receiver: Client, conversation: str, text: str) -> None:
    """Send a message, which reaches somebody."""
    body = {"conversation": conversation, "body": text, "client_id": text}
    async with asyncio.timeout(30):
        while True:
            ack = await sender.request("message.send", body)
            if ack["ok"]:
                break
            assert ack["error"]["code"] == "unavailable"
            await asyncio.sleep(0.2)
    await receiver.wait_for(
        "message.created", lambda each: each["data"]["body"] == text, timeout=30
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "form",
    [
        one,
        silent,
        failover,
        cluster,
        pytest.param(sentinels_too, marks=pytest.mark.long),
        pytest.param(part_of_a_cluster, marks=pytest.mark.long),
    ],
    ids=lambda form: form.__name__,
)
async def test_an_outage_of_redis_is_no_error(
    form: Callable[[Path], contextlib.AbstractContextManager[Trouble]],
    mongodb: str,
    start_server: StartServer,
    tmp_path: Path,
) -> None:
    require_redis()
    with form(tmp_path / "redis") as redis, scratch(mongodb) as database:
        shared = {"REDIS_URL": redis.url, "STORE_URL": database.url, "SECRET_KEY": "of both " * 5}
        nodes = [await asyncio.to_thread(start_server, **shared) for _ in range(2)]
        async with Api(nodes[0].url) as here:
            ann, bob = await here.register("Ann"), await here.register("Bob")
        async with (
            await connect(nodes[0].url, "/messages", ann.token) as one,
            await connect(nodes[1].url, "/messages", bob.token) as two,
        ):
            body = {"kind": "direct", "members": [bob.id], "client_id": "d"}
            conversation = (await one.call("conversation.create", body))["id"]
            await two.wait_for("conversation.created")
            await say(one, two, conversation, "before")
            presence = [await one.join("/presence"), await two.join("/presence")]
            await asyncio.to_thread(redis.begin)
            await until(lambda: warned(nodes), "warning")
            await say(one, two, conversation, "during")
            for each in presence:
                await each.call("presence.watch", {"users": [ann.id, bob.id]})
                await each.call("presence.room", {"stream": f"messages/{conversation}"})
            await asyncio.to_thread(redis.end)
            await until(lambda: mended(nodes), "end")
            await say(two, one, conversation, "after")
        for node in nodes:
            await asyncio.to_thread(node.stop)
            check_told(node.log(), OF_REDIS, {"bus_connected"})


OF_THE_STORE = Counter(
    {
        "store_away": 2,
        "access_look_failed": 1,
        "heads_not_checked": 1,
        "last_seen_delayed": 1,
        "unread_load_delayed": 1,
        "periodic_work_delayed": 12,
    }
)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("mongodb")  # says whether there can be one
@pytest.mark.parametrize("stands_still", [False, True])
async def test_an_outage_of_the_store_is_no_error(
    stands_still: bool, start_server: StartServer, tmp_path: Path
) -> None:
    require_redis()
    mongod = Mongod(tmp_path / "mongod")
    with mongod, RedisProcess(tmp_path / "redis") as redis:
        shared = {
            "REDIS_URL": redis.url,
            "STORE_URL": f"{mongod.url}/parley",
            "STORE_TIMEOUT": "1s",
            "PRESENCE_GRACE": "0.5s",
            "SECRET_KEY": "of both " * 5,
        }
        nodes = [await asyncio.to_thread(start_server, **shared) for _ in range(2)]
        async with Api(nodes[0].url) as here:
            ann, bob = await here.register("Ann"), await here.register("Bob")
            async with (
                await connect(nodes[0].url, "/messages", ann.token) as one,
                await connect(nodes[1].url, "/messages", bob.token) as two,
            ):
                body = {"kind": "direct", "members": [bob.id], "client_id": "d"}
                conversation = (await one.call("conversation.create", body))["id"]
                await two.wait_for("conversation.created")
                await say(one, two, conversation, "before")
                leaves = await connect(nodes[0].url, "/presence", ann.token)
                if stands_still:
                    mongod.pause()
                else:
                    await asyncio.to_thread(mongod.kill)
                await leaves.close()
                for command, asked in (
                    ("message.send", {"body": "lost?", "client_id": "lost"}),
                    ("message.read", {"seq": 1}),
                    ("typing.start", {}),
                    ("message.history", {}),
                ):
                    await one.request(command, {"conversation": conversation, **asked})
                for path in (f"/conversations/{conversation}", "/users/me", "/conversations"):
                    await ann.api.request("GET", path)
                await ann.api.request("POST", "/auth/register", json={"email": "c@example.com"})
                await ann.api.request("POST", "/uploads", data=b"lost?")
                await until(lambda: not any(map(ServerProcess.ready, nodes)), "unreadiness")
                await asyncio.sleep(3)  # what is tried every second is tried again
                if stands_still:
                    mongod.go_on()
                else:
                    await asyncio.to_thread(mongod.start)
                await until(lambda: ready(nodes), "readiness")
                await say(two, one, conversation, "after")
        for node in nodes:
            await asyncio.to_thread(node.stop)
            check_told(node.log(), OF_THE_STORE, {"store_back"})
