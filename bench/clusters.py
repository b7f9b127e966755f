"""Clusters of the servers that are measured: how a node of each is started, and told its clients."""

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path

import jwt

from bench.parley import Parley, api, environment, make_groups, register
from bench.peers import HERE, LOGS, SECRET, PythonSocketIO, install_packages, node_version
from bench.process import (
    LOAD_CORE,
    START_LIMIT,
    BenchError,
    free_port,
    launch,
    serving,
    stop,
    wait_for_port,
)
from bench.scenarios import ROOM
from fanout.redis.bus import LINGER
from tests.support.mongod import Mongod, Unbuildable, binary, scratch


@dataclass(frozen=True, slots=True)
class Backends:
    """What the nodes of one cluster share."""

    redis: str
    store: str | None


@dataclass(frozen=True, slots=True)
class Account:
    """What one connection needs: its user's token, and the room it is in."""

    token: str
    room: str


class Clustered(ABC):
    """A server that can run on several nodes which share a Redis."""

    name: str
    """As on the command line and in the results."""
    title: str
    protocol: str
    """How the load generator speaks to it."""
    linger: float = 0.0
    """Seconds for which a node goes on hearing a room after its last member there has gone."""
    ready_path: str | None = None
    """What answers 200 when a node is joined to the others; None: when it listens, it is."""

    @abstractmethod
    def build(self) -> None:
        """Make it ready to start.

        Raises:
            BenchError: a tool is missing or failed.
        """

    @abstractmethod
    def version(self) -> str:
        """What was measured, for the table."""

    @abstractmethod
    def command(
        self, port: int, backends: Backends, directory: Path
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        """How a node is started: its command, and what its environment has besides."""

    @contextmanager
    def store(self, directory: Path) -> Iterator[str | None]:
        """Where the nodes keep what they keep, while the block runs; None: nowhere."""
        yield None

    def accounts(self, port: int, rooms: int) -> list[Account]:
        """The members of so many rooms, room by room; `port` is that of a node that runs."""
        return [
            Account(
                jwt.encode({"sub": f"user-{i}"}, SECRET, algorithm="HS256"), f"room-{i // ROOM}"
            )
            for i in range(rooms * ROOM)
        ]


class ClusteredPython(Clustered):
    name = "python"
    title = "python-socketio, one channel"
    protocol = "plain"

    def build(self) -> None:
        """It runs on what Parley itself depends on."""

    def version(self) -> str:
        release = PythonSocketIO().version()
        return f"{release}, AsyncRedisManager on redis-py {installed('redis')}"

    def command(
        self, port: int, backends: Backends, directory: Path
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        database = str(directory / f"node-{port}.db")
        server = str(HERE / "peers/python_socketio/server.py")
        return (sys.executable, server, str(port), database, SECRET, backends.redis), {}


class ClusteredNode(Clustered):
    name = "node"
    title = "Socket.IO on Node, sharded adapter"
    protocol = "plain"

    _directory = HERE / "peers/node_redis"

    def build(self) -> None:
        install_packages(self._directory)

    def version(self) -> str:
        packages = json.loads((self._directory / "package-lock.json").read_text())["packages"]
        adapter = packages["node_modules/@socket.io/redis-adapter"]["version"]
        client = packages["node_modules/redis"]["version"]
        return (
            f"{node_version(self._directory)}, @socket.io/redis-adapter {adapter} on redis {client}"
        )

    def command(
        self, port: int, backends: Backends, directory: Path
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        server = str(self._directory / "server.js")
        return ("node", server, str(port), backends.redis, SECRET), {"NODE_ENV": "production"}


class ClusteredParley(Clustered):
    """The real server on a MongoDB, with authentication, metrics and rate limits on."""

    name = "parley"
    title = "Parley"
    protocol = "parley"
    linger = LINGER
    ready_path = "/health/ready"

    def build(self) -> None:
        if os.environ.get("TEST_MONGODB_URL"):
            return
        try:
            binary()
        except Unbuildable as error:
            raise BenchError(f"no MongoDB for Parley's nodes: {error}") from error

    def version(self) -> str:
        return Parley(Path()).version()

    @contextmanager
    def store(self, directory: Path) -> Iterator[str | None]:
        with ExitStack() as stack:
            server = os.environ.get("TEST_MONGODB_URL")
            if not server:
                server = stack.enter_context(Mongod(directory / "mongod")).url
            yield stack.enter_context(scratch(server)).url

    def command(
        self, port: int, backends: Backends, directory: Path
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        env = environment(port, directory / f"node-{port}")
        env["PARLEY_REDIS_URL"] = backends.redis
        env["PARLEY_STORE_URL"] = backends.store or ""
        return (sys.executable, "-m", "server"), env

    def accounts(self, port: int, rooms: int) -> list[Account]:
        return asyncio.run(self._populate(port, rooms))

    async def _populate(self, port: int, rooms: int) -> list[Account]:
        async with api(port) as server:
            users = await register(server, rooms * ROOM)
            groups = await make_groups(server, users, 0)
        return [
            Account(user.token, group)
            for user, group in zip(users, (g for g in groups for _ in range(ROOM)), strict=True)
        ]


CLUSTERED: tuple[Clustered, ...] = (ClusteredPython(), ClusteredNode(), ClusteredParley())


@dataclass(frozen=True, slots=True)
class RunningNode:
    """One node of a running cluster."""

    pid: int
    port: int


class Nodes:
    """The running nodes of one cluster. They end with the block that this is entered in."""

    def __init__(self, kind: Clustered, backends: Backends, directory: Path) -> None:
        self._kind = kind
        self._backends = backends
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self.running: list[RunningNode] = []

    def grow(self, count: int) -> None:
        """Add nodes until there are so many.

        Raises:
            BenchError: one did not start.
        """
        added: list[tuple[subprocess.Popen[bytes], int, Path]] = []
        for number in range(len(self.running), count):
            port = free_port()
            log = LOGS / f"growth-{self._kind.name}-{number + 1}.log"
            command, env = self._kind.command(port, self._backends, self._directory)
            process = launch(command, log, env)
            self._processes.append(process)
            added.append((process, port, log))
        for process, port, log in added:
            wait_for_port(process, port, log)
            if self._kind.ready_path is not None:
                wait_until_ready(port, self._kind.ready_path)
            self.running.append(RunningNode(process.pid, port))

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_: object) -> None:
        stop(*self._processes)


def wait_until_ready(port: int, path: str) -> None:
    """Return when a path answers 200.

    Raises:
        BenchError: it does not in time.
    """
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"a node does not answer at {path}: {error}") from error
        finally:
            connection.close()
        time.sleep(0.05)
    raise BenchError(f"a node was not ready within {START_LIMIT:.0f} s")


@contextmanager
def redis_server(directory: Path) -> Iterator[tuple[int, int]]:
    """A Redis of a run's own, without persistence; gives its process id and port."""
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "no", "--dir", str(directory))  # fmt: skip
    with serving(command, port, LOGS / "growth-redis.log", core=LOAD_CORE) as pid:
        yield pid, port
