"""The bus and the limits over a Redis Cluster, and over a master that Sentinel names."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from domain.clock import SystemClock
from domain.errors import Unavailable
from fanout.limits import Limit, LocalRateLimiter
from fanout.redis.bus import RedisBus
from fanout.redis.canary import DEAF_AFTER
from fanout.redis.limits import RedisRateLimiter
from fanout.redis.servers import open_servers
from tests.support.counting import until
from tests.support.joint import Joint, wait_for
from tests.support.redis import RedisProcess, require_redis
from tests.support.server import free_port


@pytest.fixture
async def joint() -> AsyncIterator[Joint]:
    require_redis()
    joint = Joint()
    yield joint
    await joint.close()


def member(directory: Path) -> tuple[RedisProcess, str]:
    """A server that may be in a cluster, and the port at which others of it reach it."""
    port = str(free_port())
    options = {
        "--cluster-enabled": "yes",
        "--cluster-config-file": f"nodes-{port}.conf",
        "--cluster-port": port,
        "--cluster-node-timeout": "2000",
    }
    return RedisProcess(directory, *(part for pair in options.items() for part in pair)), port


async def test_a_cluster(joint: Joint, tmp_path: Path) -> None:
    with cluster_of_two(tmp_path) as (url, two):
        first, second = two
        here, there = await joint.bus(url), await joint.bus(url)
        channels = [f"messages/{number}" for number in range(40)]
        for channel in channels:
            there.bus.subscribe(channel)
        await until(lambda: there.joined >= set(channels))
        for channel in channels:
            here.bus.publish(channel, channel.encode())
        await until(lambda: len(there.messages) == 40)
        assert set(there.messages) == {channel.encode() for channel in channels}
        assert all(b"messages/" in node.say("PUBSUB", "SHARDCHANNELS") for node in two)
        # A slot goes to another server.
        slot = first.say("CLUSTER", "KEYSLOT", "parley:messages/7").strip(b":\r\n").decode()
        source, target = (first, second) if int(slot) < 8192 else (second, first)
        there.joined.clear()
        move_slots(source, target, range(int(slot), int(slot) + 1))
        await until(lambda: "messages/7" in there.joined)
        here.bus.publish("messages/7", b"after the move")
        await until(lambda: b"after the move" in there.messages)
        servers = open_servers(url)
        await servers.refresh()
        limits: dict[str, Limit | None] = {"login": (3, 60.0)}
        nodes = [
            RedisRateLimiter(
                servers, LocalRateLimiter(limits, SystemClock()), limits, SystemClock(), within=10.0
            )
            for _ in range(2)
        ]
        taken = [await nodes[number % 2].take("login", "ann") for number in range(4)]
        assert taken[:3] == [0.0] * 3
        assert taken[3] > 0
        await joint.close()
        await servers.close()


@contextlib.contextmanager
def cluster_of_two(directory: Path) -> Iterator[tuple[str, list[RedisProcess]]]:
    """Its URL and its servers."""
    (first, _), (second, bus_port) = member(directory), member(directory)
    with first, second:
        first.say("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        second.say("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        first.say("CLUSTER", "MEET", "127.0.0.1", str(second.port), bus_port)
        for node in (first, second):
            wait_for(node, ("CLUSTER", "INFO"), b"cluster_state:ok")
            wait_for(node, ("CLUSTER", "INFO"), b"cluster_known_nodes:2")
        url = f"redis+cluster://127.0.0.1:{first.port},127.0.0.1:{second.port}"
        yield url, [first, second]


def move_slots(source: RedisProcess, target: RedisProcess, slots: range) -> None:
    name = target.say("CLUSTER", "MYID").splitlines()[1].decode()
    # What it says of its slots is believed from now on, whatever the other one said a moment ago.
    assert target.say("CLUSTER", "BUMPEPOCH").startswith(b"+")
    for slot in slots:
        for node in (target, source):
            assert node.say("CLUSTER", "SETSLOT", str(slot), "NODE", name) == b"+OK\r\n"


async def until_heard(bus: RedisBus, problem: str | None) -> None:
    """Wait until a node says that it hears itself (None), or that and where it does not."""
    async with asyncio.timeout(20):
        while True:
            try:
                await bus.check()
                found = None
            except Unavailable as error:
                found = error.message
            if found is None if problem is None else found is not None and problem in found:
                return
            await asyncio.sleep(0.05)


@pytest.mark.timeout(180)
async def test_a_node_that_is_deaf_to_one_server_of_a_cluster_says_so(
    joint: Joint, tmp_path: Path
) -> None:
    with cluster_of_two(tmp_path) as (url, servers):
        heard = await joint.bus(url)
        channels = [f"messages/{number}" for number in range(40)]
        for channel in channels:
            heard.bus.subscribe(channel)
        await until(lambda: heard.joined >= set(channels))
        await until_heard(heard.bus, None)
        with capture_logs() as logs:
            for server in servers:
                # It serves on, but lets nobody hear anything.
                assert server.say("ACL", "SETUSER", "default", "resetchannels") == b"+OK\r\n"
                await until_heard(heard.bus, f"at 127.0.0.1:{server.port} for")
                assert server.say("ACL", "SETUSER", "default", "allchannels") == b"+OK\r\n"
                await until_heard(heard.bus, None)
        told = Counter(each["event"] for each in logs)
        assert told["bus_connected"] == 2
        assert told["bus_listening_failed"] <= 4  # of each that it was cut off, and why it stays so
        await joint.close()


@pytest.mark.timeout(180)
async def test_a_server_that_has_left_the_cluster_need_not_be_heard(
    joint: Joint, tmp_path: Path
) -> None:
    with cluster_of_two(tmp_path) as (url, (stays, leaves)):
        heard = await joint.bus(url)
        for number in range(40):
            heard.bus.subscribe(f"messages/{number}")
        await until(lambda: len(heard.joined) == 40)
        await asyncio.to_thread(move_slots, leaves, stays, range(8192, 16384))
        await until(lambda: b"parley" not in leaves.say("PUBSUB", "SHARDCHANNELS"), 20)
        await asyncio.to_thread(leaves.kill)
        await until_heard(heard.bus, None)
        deadline = time.monotonic() + DEAF_AFTER + 2
        while time.monotonic() < deadline:
            await heard.bus.check()
            await asyncio.sleep(0.1)
        await joint.close()


async def test_a_master_named_by_sentinel(joint: Joint, tmp_path: Path) -> None:
    with RedisProcess(tmp_path) as master, RedisProcess(tmp_path) as replica:
        replica.say("REPLICAOF", "127.0.0.1", str(master.port))
        wait_for(replica, ("INFO", "replication"), b"master_link_status:up")
        config = (
            f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds main 1000\n"
            "sentinel failover-timeout main 3000\n"
        )
        with RedisProcess(tmp_path, sentinel=config) as sentinel:
            wait_for(sentinel, ("SENTINEL", "REPLICAS", "main"), str(replica.port).encode())
            url = f"redis+sentinel://127.0.0.1:{sentinel.port},127.0.0.1:1/main/0"
            here, there = await joint.bus(url), await joint.bus(url)
            there.bus.subscribe("messages/a")
            await until(lambda: "messages/a" in there.joined)
            here.bus.publish("messages/a", b"hello")
            await until(lambda: there.messages == [b"hello"])
            there.joined.clear()
            await asyncio.to_thread(master.kill)
            await until(lambda: "messages/a" in there.joined, 30)
            here.bus.publish("messages/a", b"to the new master")
            await until(lambda: b"to the new master" in there.messages)
            await joint.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "redis+other://host",
        "redis+sentinel://host:26379",
        "redis+cluster://:7000",
        "rediss+sentinel:///main",
        "unix+cluster:///x",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        open_servers(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:secret@host:6380/3",
        "rediss://host?ssl_cert_reqs=none",
        "unix:///run/redis.sock",
        "redis+sentinel://:secret@one,two:26380/main/2",
        "rediss+cluster://user:secret@one:7000,two:7001",
    ],
)
async def test_what_is_one(url: str) -> None:
    await open_servers(url).close()
