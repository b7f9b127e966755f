"""Parley as it is run by its users, with the accounts and conversations that a scenario needs."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.peers import LOGS, ROOT, SECRET, Peer, Running, output
from bench.process import BenchError, free_port, serving
from bench.scenarios import CONNECTIONS, ROOM, Scenario

PACKAGES = ("config", "domain", "store", "fanout", "actions", "handlers", "server")
LIMIT = "1000000/s"
BUCKETS = (
    "auth.register",
    "conversation.create",
    "member.added",
    "message.history",
    "message.send",
    "typing.start",
    "typing.stop",
)
"""Rate limits that the load would meet; each is raised to `LIMIT`, and so still counted."""
HISTORY = 60
"""Messages stored in each conversation beforehand: more than one page."""
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Data:
    """What was prepared in a data directory."""

    tokens: list[str]
    channel: str
    """A channel of all users; none where each has several groups."""
    groups: list[list[str]]
    """For each user, the groups it is in."""


class Parley(Peer):
    """The real server: SQLite with FULL, authentication, metrics and rate limits on."""

    name = "parley"
    title = "Parley"
    protocol = "parley"
    collects = False

    def __init__(self, scratch_root: Path) -> None:
        self._root = scratch_root
        self._prepared: dict[int, tuple[Path, Data]] = {}

    def build(self) -> None:
        if not (ROOT / "server/__main__.py").exists():
            raise BenchError("there is no server to start")

    def version(self) -> str:
        commit = output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
        changed = output("git", "-C", str(ROOT), "status", "--porcelain", "--", *PACKAGES)
        state = " with uncommitted changes" if changed else ""
        return f"Parley at {commit}{state} on Python {sys.version.split()[0]}"

    def lacks(self, scenario: Scenario) -> bool:
        return False

    def prepare(self, scenario: Scenario) -> tuple[Path, Data]:
        """A data directory with everything a scenario needs; made once for all rounds."""
        groups_each = max(scenario.rooms_each, 1)
        users = scenario.connections if groups_each > 1 else CONNECTIONS
        if groups_each not in self._prepared:
            directory = self._root / f"parley-{groups_each}"
            shutil.rmtree(directory, ignore_errors=True)  # what a failed attempt left
            directory.mkdir(parents=True)
            with self._serving(directory, LOGS / "parley-prepare.log") as server:
                data = asyncio.run(populate(server.port, users, groups_each))
            (directory / "bench.json").write_text(json.dumps(asdict(data)))
            self._prepared[groups_each] = directory, data
        return self._prepared[groups_each]

    @contextmanager
    def _serving(self, directory: Path, log: Path, prefix: Sequence[str] = ()) -> Iterator[Running]:
        port = free_port()
        command = (*prefix, sys.executable, "-m", "server")
        with serving(command, port, log, environment(port, directory)) as pid:
            yield Running(pid, port)

    @contextmanager
    def running(self, scenario: Scenario, directory: Path) -> Iterator[Running]:
        prepared, _ = self.prepare(scenario)
        data = directory / "data"
        shutil.copytree(prepared, data)
        with self._serving(data, LOGS / f"parley-{scenario.name}.log") as server:
            yield server

    def clients(self, scenario: Scenario, count: int) -> list[dict[str, Any]]:
        _, data = self.prepare(scenario)
        clients: list[dict[str, Any]] = []
        for i in range(count):
            user = i % len(data.tokens)
            rooms = [data.channel] if scenario.room_size == CONNECTIONS else data.groups[user]
            client: dict[str, Any] = {"token": data.tokens[user], "rooms": rooms}
            if scenario.load == "history":
                client["paths"] = [
                    f"/api/v1/conversations/{data.groups[user][0]}/messages?limit=50"
                ]
            clients.append(client)
        return clients


def environment(port: int, directory: Path) -> dict[str, str]:
    """The settings that a measured server has other than by default."""
    return {
        "PARLEY_PORT": str(port),
        "PARLEY_DATA_DIR": str(directory),
        "PARLEY_SECRET_KEY": SECRET,
        "PARLEY_ACCESS_TTL": "1d",
        "PARLEY_MAX_CONNECTIONS_PER_ADDRESS": "20000",
        "PARLEY_BCRYPT_COST": "4",
        "PARLEY_RATE_LIMITS": ",".join(f"{bucket}={LIMIT}" for bucket in BUCKETS),
        "PARLEY_LOG_FORMAT": "json",
    }


class Api:
    """The few REST calls that preparing needs."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._places = asyncio.Semaphore(AT_ONCE)

    async def post(self, path: str, body: dict[str, Any], token: str | None = None) -> Any:
        """The answer to a POST.

        Raises:
            BenchError: it is not a success.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            self._places,
            self._session.post(f"/api/v1{path}", json=body, headers=headers) as response,
        ):
            if response.status >= 300:
                raise BenchError(f"POST {path}: {response.status} {await response.text()}")
            return await response.json()


@asynccontextmanager
async def api(port: int) -> AsyncIterator[Api]:
    """The REST API of a server on this port."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield Api(session)


@dataclass(frozen=True, slots=True)
class User:
    """A registered user."""

    id: str
    token: str


async def register(server: Api, count: int) -> list[User]:
    """Make so many users."""
    accounts = await asyncio.gather(
        *(
            server.post(
                "/auth/register",
                {
                    "email": f"user{i}@bench.example.com",
                    "password": f"Benchmark-{i:04}-password",
                    "name": f"User {i}",
                },
            )
            for i in range(count)
        )
    )
    return [User(account["user"]["id"], account["access_token"]) for account in accounts]


async def converse(server: Api, kind: str, users: Sequence[User], name: str) -> str:
    """Make a conversation of these users, the first being its owner; gives its id."""
    body = {
        "kind": kind,
        "title": name,
        "members": [user.id for user in users[1:]],
        "client_id": name,
    }
    made = await server.post("/conversations", body, users[0].token)
    identifier: str = made["id"]
    return identifier


async def make_groups(server: Api, users: Sequence[User], k: int) -> list[str]:
    """Make the `k`-th groups, so that each user is in one; `members` says who is in which."""
    size = len(users)
    return await asyncio.gather(
        *(
            converse(
                server, "group", [users[i] for i in members(k, part, size)], f"group-{k}-{part}"
            )
            for part in range(size // ROOM)
        )
    )


async def populate(port: int, size: int, groups_each: int) -> Data:
    """Make users, and groups of ten so that each user is in `groups_each`.

    With one group each: also a channel of all users, and some history in every group.
    """
    async with api(port) as server:
        users = await register(server, size)
        tokens = [user.token for user in users]
        channel = ""
        if groups_each == 1:
            channel = await converse(server, "channel", users, "everybody")
        groups: list[list[str]] = [[] for _ in users]
        for k in range(groups_each):
            for part, identifier in enumerate(await make_groups(server, users, k)):
                for i in members(k, part, size):
                    groups[i].append(identifier)

        if groups_each == 1:
            # One after the other within a conversation, all conversations side by side.
            for n in range(HISTORY):
                await asyncio.gather(
                    *(
                        server.post(
                            f"/conversations/{groups[i][0]}/messages",
                            {
                                "body": f"Message {n} of this conversation. " * 4,
                                "client_id": f"h{n}",
                            },
                            tokens[i],
                        )
                        for i in range(n % ROOM, size, ROOM)
                    )
                )
    return Data(tokens, channel, groups)


def members(k: int, part: int, size: int) -> list[int]:
    """The users of one of the `k`-th groups: for each k a different partition of all users."""
    parts = size // ROOM
    return [((part + k * j) % parts) * ROOM + j for j in range(ROOM)]
