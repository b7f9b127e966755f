"""SIGTERM in the middle of a load: what was accepted is finished and answered, then it ends."""

import asyncio
import functools
import itertools
import json
import signal
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import socketio

from actions.streams.streams import MAX_BACKLOG
from tests.chaos.crowd import history
from tests.conftest import StartServer
from tests.support.client import Client, connect
from tests.support.node import NodeClient, connect_node
from tests.support.rest import Account, Api

GRACE = 20.0
"""SHUTDOWN_GRACE. A quarter of it, at the least an eighth, is for answering what was taken in; what
takes longer, on a slow machine or store, is cut off, and that is not what is tested here.
"""

IN_FLIGHT = 12
"""Commands that each sender has on the way at any time."""


class Sender:
    """Sends as fast as it is answered, with several commands on the way, until it is cut off."""

    def __init__(self, account: Account, name: str, conversation: str) -> None:
        self.account = account
        self.name = name
        self.conversation = conversation
        self.answered: dict[str, dict[str, Any]] = {}
        """By client_id: the message."""
        self.unanswered: list[str] = []
        self.refused: list[Any] = []
        self._numbers = itertools.count(1)

    def request(self, client_id: str) -> dict[str, Any]:
        return {"conversation": self.conversation, "client_id": client_id, "body": client_id}

    def next(self) -> str:
        return f"{self.name}-{next(self._numbers)}"

    def note(self, client_id: str, answer: Any) -> None:
        """Note how a command ended."""
        if answer["ok"]:
            self.answered[client_id] = answer["data"]
        else:
            self.refused.append(answer["error"])

    async def over_socket(self, client: Client) -> None:
        async def chain() -> None:
            while client.connected:
                client_id = self.next()
                try:
                    self.note(
                        client_id,
                        await client.request("message.send", self.request(client_id), timeout=20),
                    )
                except ConnectionError:
                    self.unanswered.append(client_id)

        await asyncio.gather(*(chain() for _ in range(IN_FLIGHT)))

    async def over_rest(self) -> None:
        path = f"/conversations/{self.conversation}/messages"
        while True:
            client_id = self.next()
            body = {"client_id": client_id, "body": client_id}
            try:
                reply = await self.account.api.request("POST", path, json=body)
            except aiohttp.ClientConnectorError:
                return
            except aiohttp.ClientError:
                self.unanswered.append(client_id)
                continue
            if reply.status == 201:
                self.answered[client_id] = reply.json
            else:
                self.refused.append(reply.json)


async def _refuses_connections(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@pytest.mark.timeout(120)
@pytest.mark.parametrize("round_", range(3), ids=lambda number: f"round {number + 1}")
async def test_a_server_told_to_stop_leaves_nothing_half_done(
    start_server: StartServer, full: bool, round_: int
) -> None:
    if round_ and not full:
        pytest.skip("one round; more with --full")
    server = start_server(SHUTDOWN_GRACE=GRACE)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(server.url))
        people = [await api.register(f"P{number}") for number in range(6)]
        body = {"kind": "group", "members": [each.id for each in people[1:]], "client_id": "room"}
        room = (await people[0].api.post("/conversations", body, 201))["id"]
        clients = [
            await stack.enter_async_context(await connect(server.url, "/messages", person.token))
            for person in people
        ]
        *talkers, listener = clients
        senders = [Sender(person, f"s{number}", room) for number, person in enumerate(people[:-1])]
        posters = [Sender(person, f"r{number}", room) for number, person in enumerate(people[:3])]
        work = [
            asyncio.create_task(sender.over_socket(client))
            for sender, client in zip(senders, talkers, strict=True)
        ]
        work += [asyncio.create_task(poster.over_rest()) for poster in posters]
        everyone = [*senders, *posters]
        async with asyncio.timeout(30):
            while sum(len(each.answered) for each in everyone) < 300 * (round_ + 1):
                await asyncio.sleep(0.01)
        told = time.monotonic()
        before = sum(len(each.answered) for each in everyone)
        server.signal(signal.SIGTERM)
        await clients[0].wait_for("closing", timeout=GRACE)
        assert await _refuses_connections(server.port)
        exit_code = await asyncio.to_thread(server.wait)
        took = time.monotonic() - told
        await asyncio.gather(*work)
        answered = {id: message for each in everyone for id, message in each.answered.items()}
        unanswered = [id for each in everyone for id in each.unanswered]
        print(
            f"\n{len(answered)} answered, {len(answered) - before} of them after SIGTERM; "
            f"{len(unanswered)} had not been taken in; ended with {exit_code} after {took:.2f} s"
        )
        assert exit_code == 0
        assert took < GRACE
        assert not [each for sender in everyone for each in sender.refused]
        for client in clients:
            await client.wait_closed()
            assert client.closing == {"code": "shutdown", "reconnect": True}

        await asyncio.to_thread(server.start)
        stored = await history(people[0], room)
        bodies = [each["body"] for each in stored]
        assert len(bodies) == len(set(bodies))
        assert not answered.keys() - set(bodies), "an answered message is lost"
        kept = sorted(set(bodies) - answered.keys())
        assert not kept, f"messages were taken in and not answered: {kept}"
        assert {each["id"] for each in stored} == {each["id"] for each in answered.values()}

        # The restarted server goes on where it was.
        for client in clients:
            await client.reconnect()
        for sender, client in zip(senders, talkers, strict=True):
            for client_id in sender.unanswered:
                answered[client_id] = await client.call("message.send", sender.request(client_id))
        last = max(message["seq"] for message in answered.values())
        await listener.until(lambda: listener.streams[f"messages/{room}"]["seq"] == last)
        heard = await _heard(listener, people[-1], room, last)
        assert heard >= {each["id"] for each in answered.values()}


async def _heard(listener: Client, person: Account, room: str, last: int) -> set[str]:
    """The messages that a client has, after one interruption: in order, each once, none left out."""
    stream = f"messages/{room}"
    seqs = listener.seqs(stream)
    stored = await history(person, room)
    heard = [event["data"]["id"] for event in listener.named("message.created")]
    again = listener.ready["streams"][stream]
    if again["recovered"]:
        assert seqs == list(range(seqs[0], last + 1))
        assert heard == [each["id"] for each in stored]
        return set(heard)
    # Clients leave one after the other while the others go on. Whoever has missed more than a
    # resume gives is told so, and reads what is between in the history.
    went = max((seq for seq in seqs if seq <= again["seq"]), default=0)
    assert again["seq"] - went > MAX_BACKLOG
    assert seqs == [*range(seqs[0], went + 1), *range(again["seq"] + 1, last + 1)]
    between = [each["id"] for each in stored if went < each["seq"] <= again["seq"]]
    assert not set(between) & set(heard)
    return {*heard, *between}


async def _once(url: str, data: str | None = None, **headers: str) -> tuple[int, str, str]:
    """Ask on a connection of its own; status, body, and what is said of the connection."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), headers=headers) as http,
        http.request("GET" if data is None else "POST", url, data=data) as answer,
    ):
        return answer.status, await answer.text(), answer.headers.get("Connection", "")


async def test_who_polls_is_served_until_told_and_nobody_else_is_taken(
    start_server: StartServer,
) -> None:
    server = start_server(SHUTDOWN_GRACE=GRACE)
    async with Api(server.url) as api:
        ann = await api.register("Ann")
    bearer = {"Authorization": f"Bearer {ann.token}"}
    polling = f"{server.url}/socket.io/?EIO=4&transport=polling"
    _, opening, _ = await _once(polling)
    session = f"{polling}&sid={json.loads(opening[1:])['sid']}"
    await _once(session, f'40/messages,{{"token":"{ann.token}"}}')
    async with await connect(server.url, "/messages", ann.token) as told:
        while '"ready"' not in (await _once(session))[1]:
            pass
        server.signal(signal.SIGTERM)
        await told.wait_for("closing", timeout=GRACE)
        await told.wait_closed()
    # One client is between two polls, and the server there for it, whatever connection it comes by.
    assert (await _once(polling))[::2] == (503, "close")
    for path, status in (("/api/v1/users/me", 200), ("/health/live", 200), ("/health/ready", 503)):
        assert (await _once(server.url + path, **bearer))[::2] == (status, "close"), path
    assert (await _once(session, '42/messages,1["typing.stop",{}]'))[:2] == (200, "ok")
    assert '["closing",{"code":"shutdown","reconnect":true}]' in (await _once(session))[1]
    assert await asyncio.to_thread(server.wait, 3) == 0, "nobody is left, and it goes on"


async def test_official_clients_that_poll_are_told_and_come_back(
    start_server: StartServer,
) -> None:
    server = start_server(SHUTDOWN_GRACE=GRACE)
    async with Api(server.url) as api, AsyncExitStack() as stack:
        ann = await api.register("Ann")
        official = [
            await stack.enter_async_context(
                await connect_node(
                    server.url, "/messages", ann.token, options={"transports": ["polling"]}
                )
            )
            for _ in range(2)
        ]
        stories: list[list[str]] = [[] for _ in range(4)]
        for story in stories:
            client = socketio.AsyncClient(reconnection_delay=0.1, reconnection_delay_max=0.5)
            client.on("closing", lambda data, story=story: story.append(data["code"]), "/messages")
            client.on("ready", lambda _, story=story: story.append("ready"), "/messages")
            auth = {"token": ann.token}
            await client.connect(
                server.url, transports=["polling"], namespaces=["/messages"], auth=auth
            )
            stack.push_async_callback(client.shutdown)
        async with asyncio.timeout(20):
            while any(story != ["ready"] for story in stories):
                await asyncio.sleep(0.01)
        assert await asyncio.to_thread(server.stop, GRACE) == 0
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(20):
            while any(len(story) < 3 for story in stories):
                await asyncio.sleep(0.01)
        assert stories == [["ready", "shutdown", "ready"]] * 4
        for each in official:
            await each.until(functools.partial(_came_back, each), timeout=20)
            assert [event["code"] for event in each.named("closing")] == ["shutdown"]


def _came_back(client: NodeClient) -> bool:
    return len(client.named("ready")) == 2
