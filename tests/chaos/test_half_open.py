"""Connections over which nothing arrives any more, and of which nobody is told: a cable is pulled, a
phone leaves its cell, a router forgets.
"""

import asyncio
import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.support.client import Client, connect
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess
from tests.support.silence import (
    Direction,
    NotPermitted,
    StallingProxy,
    silent_network,
)

PING_INTERVAL, PING_TIMEOUT, GRACE = 1.0, 2.0, 1.0
GONE = PING_INTERVAL + PING_TIMEOUT
"""Seconds within which a silent connection is gone from everywhere but its user's presence."""

SLACK = 1.5
"""Seconds that looking takes here, at most."""

SEND_QUEUE = 128 * 1024
"""Bytes that may wait for one client, where that is what is looked at."""

LONG_MESSAGE = "x" * 15_000

SETTINGS: Mapping[str, object] = {
    "PING_INTERVAL": PING_INTERVAL,
    "PING_TIMEOUT": PING_TIMEOUT,
    "PRESENCE_GRACE": GRACE,
}


class Person:
    """Somebody connected to `/messages` and `/presence` through one of the ways that fall silent."""

    def __init__(self, account: Account, way: str) -> None:
        self.account = account
        self.way = way
        self.messages: Client
        self.unanswered: asyncio.Future[Any]

    async def connect(self, url: str) -> None:
        self.messages = await connect(url, "/messages", self.account.token)
        await self.messages.join("/presence")

    def speak(self, room: str) -> None:
        """Send a message that finds no way, or whose answer finds none."""
        self.unanswered = self.messages.send("message.send", self._message(room))

    async def come_back(self, url: str, room: str) -> None:
        """Resume, and say again what was not answered."""
        await self.messages.cut()
        assert self.unanswered.done()
        assert isinstance(self.unanswered.exception(), ConnectionError)
        self.messages.url = url
        await self.messages.reconnect()
        await self.messages.call("message.send", self._message(room))

    def _message(self, room: str) -> dict[str, Any]:
        return {"conversation": room, "client_id": "unsure", "body": f"I am {self.account.id}"}


class Scene:
    """One conversation: some of its people fall silent, two do not."""

    def __init__(self, node: ServerProcess, watching: ServerProcess) -> None:
        self.node = node
        self.watching = watching
        self.people: list[Person] = []
        self.room = ""
        self.sent = 0
        self.watcher: Client
        self.eyes: Client
        self.speaker: Client

    async def begin(
        self, api: Api, stack: AsyncExitStack, ways: Mapping[str, Sequence[str]]
    ) -> None:
        """`ways`: by name, the URL of each of the people who take it."""
        watcher, speaker = await api.register("Watcher"), await api.register("Speaker")
        self.people = [
            Person(await api.register("Person"), way) for way, urls in ways.items() for _ in urls
        ]
        members = [watcher.id, *(each.account.id for each in self.people)]
        body = {"kind": "group", "members": members, "client_id": "room"}
        self.room = (await speaker.api.post("/conversations", body, 201))["id"]
        self.watcher = await connect(self.watching.url, "/messages", watcher.token)
        stack.push_async_callback(self.watcher.close)
        self.eyes = await self.watcher.join("/presence")
        self.speaker = await connect(self.node.url, "/messages", speaker.token)
        stack.push_async_callback(self.speaker.close)
        urls = [url for each in ways.values() for url in each]
        for person, url in zip(self.people, urls, strict=True):
            await person.connect(url)
            stack.push_async_callback(person.messages.close)
        await self.eyes.call("presence.watch", {"users": members[1:]})
        await _until(self.all_are_there, 10)

    @property
    def stream(self) -> str:
        return f"messages/{self.room}"

    async def all_are_there(self) -> bool:
        return {each.account.id for each in self.people} <= await self.in_room()

    async def in_room(self) -> set[str]:
        """Who is in the room, as the watcher's node says."""
        found: set[str] = set()
        query: dict[str, Any] = {"stream": self.stream, "limit": 200}
        while True:
            page = await self.eyes.call("presence.room", query)
            found |= {each["user"] for each in page["items"]}
            if page["next"] is None:
                return found
            query["cursor"] = page["next"]

    async def speak_steadily(self, stop: asyncio.Event, pause: float, padding: str = "") -> None:
        while not stop.is_set():
            body = {
                "conversation": self.room,
                "client_id": f"m{self.sent}",
                "body": f"{self.sent} {padding}",
            }
            await self.speaker.call("message.send", body)
            self.sent += 1
            await asyncio.sleep(pause)

    def offline(self, since: float) -> dict[str, float]:
        """Who was said to be offline, and after how many seconds."""
        return {
            event.data["data"]["user"]: event.at - since
            for event in self.eyes.events
            if event.name == "presence.changed" and event.data["data"]["status"] == "offline"
        }

    async def check_whole(self) -> int:
        """Wait until everybody has seen everything, each once and in order; how many events."""
        clients = [self.watcher, self.speaker, *(each.messages for each in self.people)]
        async with Api(self.node.url, self.speaker.token) as api:
            answer = await api.post(
                "/sync", {"streams": {self.stream: {"epoch": "", "seq": 2**53}}}
            )
            head = answer["streams"][self.stream]["seq"]
        for client in clients:

            def is_level(client: Client = client) -> bool:
                return bool(client.streams[self.stream]["seq"] >= head)

            await client.until(is_level, what="level")
            seen = client.seqs(self.stream)
            assert seen == list(range(seen[0], head + 1))
        bodies = [each["data"]["body"] for each in self.watcher.named("message.created")]
        assert len(bodies) == len(set(bodies)) == self.sent + len(self.people)
        return int(head)


async def _until(condition: Any, timeout: float) -> float:
    """Wait until an asynchronous condition holds; how many seconds it took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < timeout, f"not within {timeout:g} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def _metric(api: Api, name: str) -> float:
    """The sum of a metric over its labels, but those of namespaces other than `/messages`."""
    text = (await api.request("GET", "//metrics")).body.decode()
    found = re.findall(
        rf'^{name}(?:\{{(?:namespace="/messages"|code="[a-z_]+")\}})? (\S+)$', text, re.M
    )
    return sum(map(float, found))


async def _fall_silent(
    scene: Scene, ways: Mapping[str, Sequence[str]], silence: Any, heal: Any
) -> None:
    """Have all ways fall silent, see everybody on them go in time, and come back whole."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(scene.node.url))
        await scene.begin(api, stack, ways)
        silent = {each.account.id for each in scene.people}
        left = await _metric(api, "parley_connections") - len(silent)
        stop = asyncio.Event()
        speaking = asyncio.create_task(scene.speak_steadily(stop, 0.1))

        async def gone_from_the_node() -> bool:
            return await _metric(api, "parley_connections") <= left

        async def gone_from_the_room() -> bool:
            return not silent & await scene.in_room()

        async def offline() -> bool:
            return scene.offline(began).keys() >= silent

        await asyncio.sleep(PING_INTERVAL / 2)  # everybody is somewhere between two pings
        silence()
        began = time.monotonic()
        for person in scene.people:
            person.speak(scene.room)
        before = scene.sent
        node, room, _ = await asyncio.gather(
            _until(gone_from_the_node, 20), _until(gone_from_the_room, 20), _until(offline, 20)
        )
        meanwhile = scene.sent - before
        times = scene.offline(began)
        assert scene.speaker.connected
        assert scene.watcher.connected
        heal()
        await asyncio.gather(*(_back(scene, each, ways) for each in scene.people))
        await _until(scene.all_are_there, 10)
        stop.set()
        await speaking
        events = await scene.check_whole()
        print(
            f"\n{len(silent)} half-open connections ({', '.join(ways)}); gone from the node after "
            f"{node:.2f} s, from the room after {room:.2f} s (ping interval + timeout {GONE:g} s), "
            f"offline after {max(times.values()):.2f} s at most ({GRACE:g} s later); {meanwhile} "
            f"messages meanwhile; {events} events, seen by all of {len(scene.people) + 2}: "
            "0 missing, 0 twice, 0 out of order"
        )
        assert max(node, room) < GONE + SLACK
        assert max(times.values()) < GONE + GRACE + SLACK


async def _back(scene: Scene, person: Person, ways: Mapping[str, Sequence[str]]) -> None:
    await person.come_back(ways[person.way][0], scene.room)


async def _proxied(scene: Scene, each: int) -> None:
    """Let people fall silent in all three ways in which a proxy can do that."""
    async with AsyncExitStack() as stack:
        directions: Sequence[Direction] = ("both", "to_server", "to_client")
        proxies: dict[Direction, StallingProxy] = {
            direction: await stack.enter_async_context(StallingProxy(scene.node.port))
            for direction in directions
        }

        def silence() -> None:
            for direction, proxy in proxies.items():
                proxy.stall(direction)

        ways = {str(direction): [proxy.url] * each for direction, proxy in proxies.items()}
        await _fall_silent(scene, ways, silence, lambda: None)


async def test_on_one_node(start_server: StartServer, full: bool) -> None:
    node = start_server(**SETTINGS)
    await _proxied(Scene(node, node), 25 if full else 4)


@pytest.mark.timeout(90)
async def test_seen_from_another_node(
    mongodb: str, start_server: StartServer, tmp_path: Path, full: bool
) -> None:
    require_redis()
    with RedisProcess(tmp_path / "redis") as redis, scratch(mongodb) as database:
        shared = {"REDIS_URL": redis.url, "STORE_URL": database.url, "SECRET_KEY": "of both " * 5}
        nodes = [start_server(**SETTINGS, **shared) for _ in range(2)]
        await _proxied(Scene(*nodes), 15 if full else 4)
        for node in nodes:
            await asyncio.to_thread(node.stop)


async def test_packets_are_dropped(start_server: StartServer, full: bool) -> None:
    try:
        with silent_network() as network:
            node = start_server(**SETTINGS, HOST="0.0.0.0")
            async with StallingProxy(node.port, network.host, network.socket) as proxy:
                await _fall_silent(
                    Scene(node, node),
                    {"dropped packets": [proxy.url] * (60 if full else 10)},
                    network.drop_packets,
                    network.pass_packets,
                )
    except NotPermitted as reason:
        pytest.skip(f"NOT TESTED with dropped packets: {reason}")


async def test_what_waits_for_them_is_bounded(start_server: StartServer, full: bool) -> None:
    # Pings would find them, but later than here.
    node = start_server(SEND_QUEUE=SEND_QUEUE, SEND_STALL=60)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(StallingProxy(node.port, make_socket=_tight))
        api = await stack.enter_async_context(Api(node.url))
        scene = Scene(node, node)
        ways = {"both": [proxy.url] * (60 if full else 20)}
        await scene.begin(api, stack, ways)
        stop = asyncio.Event()
        speaking = asyncio.create_task(scene.speak_steadily(stop, 0.05, LONG_MESSAGE))
        most = 0.0

        async def given_up() -> bool:
            nonlocal most
            most = max(most, await _metric(api, "parley_queued_bytes"))
            return await _metric(api, "parley_closes_total") >= len(scene.people)

        proxy.stall()
        for person in scene.people:
            person.speak(scene.room)
        await _until(given_up, 40)
        stop.set()
        await speaking
        await _until(lambda: _is(api, "parley_queued_bytes", 0), 10)
        await _until(lambda: _is(api, "parley_sessions", 2), 10)
        meanwhile = scene.sent * len(LONG_MESSAGE)
        await asyncio.gather(*(_back(scene, each, ways) for each in scene.people))
        events = await scene.check_whole()
        print(
            f"\n{len(scene.people)} half-open connections, {meanwhile / 1e6:.1f} MB sent to each "
            f"meanwhile; waiting for all together at most {most / 1e6:.2f} MB of "
            f"{SEND_QUEUE * len(scene.people) / 1e6:.2f} MB allowed; {events} events, seen by all: "
            "0 missing, 0 twice, 0 out of order"
        )
        assert scene.speaker.connected
        assert 0 < most < len(scene.people) * (SEND_QUEUE + 1.1 * len(LONG_MESSAGE))


def _tight() -> socket.socket:
    """A socket for which the kernel takes little."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return made


async def _is(api: Api, metric: str, value: float) -> bool:
    return await _metric(api, metric) == value
