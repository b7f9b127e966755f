"""Clients that never give up, and a record of everything the server has promised them."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp

from tests.support.client import Client, Wire
from tests.support.recorder import ConnectRefused, unwrap
from tests.support.rest import Account

FROM_THE_START = {"epoch": "", "seq": 0}
"""The position in a stream of a client that knows nothing of it."""

ANSWER_SECONDS = 30.0
"""Within which a living connection answers a command."""

LONGEST_PAUSE = 0.5
"""Seconds that a client waits at most before it tries again. A user's waits longer."""

_NOT_THERE = (aiohttp.ClientError, ConnectionError, TimeoutError, aiohttp.WSMessageTypeError)


class Guest:
    """One user's connection that comes back with `resume` for as long as `stay` runs."""

    def __init__(
        self,
        url: str,
        account: Account,
        name: str,
        rooms: Sequence[str],
        others: Sequence[str] = (),
    ) -> None:
        """`rooms`: the conversations it is in, whose streams it is to know from their start.
        `others`: where it goes in turn when it cannot connect.
        """
        self.url = url
        self._others = list(others)
        self.account = account
        self.name = name
        self.rooms = rooms
        self.came: list[float] = []
        """When each connection was complete, by the event loop's clock."""
        self.left: list[float] = []
        """When each one ended."""
        self.repeated = 0
        """Commands that were sent again because no answer had come."""
        self.acknowledged = 0
        """Commands that were answered, but for those below."""
        self.refused: list[tuple[float, float]] = []
        """When each command that was answered `unavailable` was sent, and when it was answered, by
        the event loop's clock."""
        self._online = asyncio.Event()
        self.clients = {
            space: Client(url, space, account.token) for space in ("/messages", "/reactions")
        }
        for space, client in self.clients.items():
            client.streams = {f"{space[1:]}/{room}": dict(FROM_THE_START) for room in rooms}

    @property
    def main(self) -> Client:
        """The connection to `/messages`."""
        return self.clients["/messages"]

    @property
    def connected(self) -> bool:
        """Whether it is, with both namespaces."""
        return all(client.connected for client in self.clients.values())

    @property
    def connections(self) -> int:
        """How often it was connected."""
        return len(self.came)

    @property
    def unavailable(self) -> int:
        """How many commands were answered so."""
        return len(self.refused)

    def places(self) -> dict[str, dict[str, Any]]:
        """How far it has come in each stream, `{epoch, seq}`."""
        return {
            f"{space[1:]}/{room}": client.streams.get(f"{space[1:]}/{room}", FROM_THE_START)
            for space, client in self.clients.items()
            for room in self.rooms
        }

    async def stay(self) -> None:
        """Be connected, and again after each end. Runs until cancelled.

        Raises:
            AssertionError: the server says what it must not say.
        """
        wire: Wire | None = None
        loop = asyncio.get_running_loop()
        attempts = itertools.count()
        try:
            while True:
                wire = await self._connect()
                if wire is None:
                    self._others.append(self.url)
                    self.url = self._others.pop(0)
                    await _pause(next(attempts))
                    continue
                attempts = itertools.count()
                self.came.append(loop.time())
                self._online.set()
                await self.main.until(
                    lambda: not self.main.connected, timeout=3600, what="end of the connection"
                )
                self._online.clear()
                self.left.append(loop.time())
                await wire.close()
        finally:
            self._online.clear()
            if wire is not None:
                await wire.close()

    async def _connect(self) -> Wire | None:
        try:
            wire = await Wire.open(self.url)
        except _NOT_THERE:
            return None
        try:
            for client in self.clients.values():
                await client.attach(wire, client.streams, timeout=20)
        except _NOT_THERE:
            await wire.close()
            return None
        except ConnectRefused as refused:
            await wire.close()
            if refused.code != "unavailable":
                raise
            return None
        except AssertionError:
            gone = not self.connected
            await wire.close()
            if not gone:
                raise
            return None
        except BaseException:
            await wire.close()
            raise
        return wire

    async def call(self, command: str, data: dict[str, Any]) -> Any:
        """Send a command until it is answered; its answer's data.

        Raises:
            CommandFailed: the answer is an error other than `unavailable`.
            TimeoutError: a living connection answers nothing.
        """
        space = "/reactions" if command.startswith("reaction.") else "/messages"
        loop = asyncio.get_running_loop()
        for attempt in itertools.count():
            self.repeated += attempt > 0
            await self._online.wait()
            asked = loop.time()
            try:
                answer = await self.clients[space].request(command, data, timeout=ANSWER_SECONDS)
            except ConnectionError:
                await asyncio.sleep(0.001)
                continue
            if answer["ok"] or answer["error"]["code"] != "unavailable":
                self.acknowledged += 1
                return unwrap(command, answer)
            self.refused.append((asked, loop.time()))
            await _pause(attempt)
        raise AssertionError("unreachable")


async def _pause(attempt: int) -> None:
    longest = min(LONGEST_PAUSE, 0.02 * 2 ** min(attempt, 10))
    await asyncio.sleep(random.uniform(longest / 2, longest))  # together they would come again


class Ledger:
    """What was acknowledged: what the server must still know whatever happened."""

    def __init__(self) -> None:
        self.sent: dict[str, dict[str, Any]] = {}
        """By message: as it must be now, `{id, conversation, seq, body, version, deleted}`."""
        self.reactions: dict[str, set[tuple[str, str]]] = {}
        """By message: who reacted, and with what."""
        self.sent_at: dict[str, float] = {}
        """By message: when it was acknowledged, by `time.monotonic()`."""
        self.read: dict[tuple[str, str], int] = {}
        """By conversation and user: the place up to which it was read."""
        self.counts: Counter[str] = Counter()
        """Acknowledged commands by name."""

    @property
    def total(self) -> int:
        """Acknowledged commands."""
        return self.counts.total()


EMOJI = ("👍", "🎉")

Step = Callable[[], Awaitable[None]]


class Writer:
    """One thread of somebody's activity in one conversation: one command after the other."""

    def __init__(
        self, guest: Guest, number: int, conversation: str, ledger: Ledger, seed: int
    ) -> None:
        self._guest = guest
        self._name = f"{guest.name}.{number}"
        self._conversation = conversation
        self._ledger = ledger
        self._random = random.Random(f"{seed} {self._name}")
        self._own: list[str] = []
        self._sends = 0
        self.attempted: dict[str, str] = {}
        """By client_id: the body that was sent with it, acknowledged or not."""

    async def run(self, stop: asyncio.Event, pause: float = 0.005) -> None:
        """Write until told to stop; what was begun is carried through."""
        steps: list[tuple[int, Step]] = [
            (60, self._send),
            (8, self._send_twice),
            (12, self._edit),
            (6, self._delete),
            (8, self._read),
            (10, self._react),
        ]
        weights = [weight for weight, _ in steps]
        while not stop.is_set():
            (chosen,) = self._random.choices(steps, weights)
            await chosen[1]()
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.5))

    def _request(self) -> dict[str, Any]:
        self._sends += 1
        body = f"{self._name}-{self._sends}"
        self.attempted[body] = body
        return {"conversation": self._conversation, "client_id": body, "body": body}

    def _note(self, message: dict[str, Any]) -> None:
        self._ledger.sent_at[message["id"]] = time.monotonic()
        self._own.append(message["id"])
        self._ledger.sent[message["id"]] = {
            "id": message["id"],
            "conversation": self._conversation,
            "seq": message["seq"],
            "body": message["body"],
            "version": 1,
            "deleted": False,
        }

    async def _send(self) -> None:
        message = await self._guest.call("message.send", self._request())
        self._note(message)
        self._ledger.counts["message.send"] += 1

    async def _send_twice(self) -> None:
        request = self._request()
        first, second = await asyncio.gather(
            self._guest.call("message.send", request), self._guest.call("message.send", request)
        )
        assert first["id"] == second["id"], f"one client_id made two messages: {first}, {second}"
        assert first["seq"] == second["seq"]
        self._note(first)
        self._ledger.counts["message.send twice"] += 1

    def _some_own(self) -> dict[str, Any] | None:
        recent = [
            self._ledger.sent[each]
            for each in self._own[-8:]
            if not self._ledger.sent[each]["deleted"]
        ]
        return self._random.choice(recent) if recent else None

    async def _edit(self) -> None:
        message = self._some_own()
        if message is None:
            return
        body = f"{message['body']}!"
        done = await self._guest.call(
            "message.edit",
            {"message": message["id"], "body": body, "version": message["version"]},
        )
        assert done["version"] == message["version"] + 1
        message |= {"body": body, "version": done["version"]}
        self._ledger.counts["message.edit"] += 1

    async def _delete(self) -> None:
        message = self._some_own()
        if message is None:
            return
        await self._guest.call("message.delete", {"message": message["id"], "scope": "everyone"})
        message |= {"body": "", "deleted": True}
        self._ledger.counts["message.delete"] += 1

    async def _react(self) -> None:
        message = self._some_own()
        if message is None:
            return
        emoji = self._random.choice(EMOJI)
        known = self._ledger.reactions.setdefault(message["id"], set())
        mine = (self._guest.account.id, emoji)
        command = "reaction.remove" if mine in known else "reaction.add"
        await self._guest.call(command, {"message": message["id"], "emoji": emoji})
        known ^= {mine}
        self._ledger.counts[command] += 1

    async def _read(self) -> None:
        message = self._some_own()
        if message is None:
            return
        request = {"conversation": self._conversation, "seq": message["seq"]}
        await self._guest.call("message.read", request)
        place = (self._conversation, self._guest.account.id)
        self._ledger.read[place] = max(self._ledger.read.get(place, 0), message["seq"])
        self._ledger.counts["message.read"] += 1


async def history(account: Account, conversation: str) -> list[dict[str, Any]]:
    """All messages of a conversation over REST, page by page, as they come."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 200}
    while True:
        page = await account.api.get(f"/conversations/{conversation}/messages", **query)
        found = page["items"] + found
        if page["next"] is None:
            return found
        query["cursor"] = page["next"]
