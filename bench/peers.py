"""The servers that are measured: how each is built, started, and told its clients."""

import json
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import jwt

from bench.process import BenchError, free_port, run_step, serving
from bench.scenarios import Scenario

HERE = Path(__file__).parent
ROOT = HERE.parent
OUT = HERE / "out"
LOGS = OUT / "logs"

SECRET = "a secret of the benchmark, used on the loopback interface alone"


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens on a port of the loopback interface."""

    pid: int
    port: int


class Peer(ABC):
    """A server to measure."""

    name: str
    """As on the command line and in the results."""
    title: str
    protocol: str
    """How the load generator speaks to it."""
    collects: bool = True
    """Whether SIGUSR2 makes it collect its garbage, before memory is read."""

    @abstractmethod
    def build(self) -> None:
        """Make it ready to start.

        Raises:
            BenchError: a tool is missing or failed.
        """

    @abstractmethod
    def version(self) -> str:
        """What was measured, for the table."""

    def lacks(self, scenario: Scenario) -> bool:
        """Whether it has nothing to measure in a scenario."""
        return scenario.load == "history"

    @abstractmethod
    def running(self, scenario: Scenario, directory: Path) -> AbstractContextManager[Running]:
        """Start it with `directory` for its files, and end it afterwards."""

    def clients(self, scenario: Scenario, count: int) -> list[dict[str, Any]]:
        """The connections the load generator makes: token and rooms of each.

        Connection `i` publishes to room `i // room_size`. Where a connection has more rooms, the
        others are those of connections far from it, so that any two share few.
        """
        groups = -(-count // scenario.room_size)
        return [
            {
                "token": jwt.encode({"sub": f"user-{i}"}, SECRET, algorithm="HS256"),
                "rooms": [
                    f"room-{k}-{(i // scenario.room_size + i % scenario.room_size * k) % groups}"
                    for k in range(scenario.rooms_each)
                ],
            }
            for i in range(count)
        ]


class SmallServer(Peer):
    """A peer's small server in `bench/peers/`, started with port, database and secret."""

    command: tuple[str, ...]
    env: Mapping[str, str]

    @contextmanager
    def running(self, scenario: Scenario, directory: Path) -> Iterator[Running]:
        port = free_port()
        command = (*self.command, str(port), str(directory / "peer.db"), SECRET)
        log = LOGS / f"{self.name}-{scenario.name}.log"
        with serving(command, port, log, self.env) as pid:
            yield Running(pid, port)


class PythonSocketIO(SmallServer):
    name = "python"
    title = "python-socketio"
    protocol = "plain"
    command = (sys.executable, str(HERE / "peers/python_socketio/server.py"))
    env: Mapping[str, str] = {}

    def build(self) -> None:
        """It runs on what Parley itself depends on."""

    def version(self) -> str:
        return (
            f"python-socketio {installed('python-socketio')} on aiohttp {installed('aiohttp')}, "
            f"uvloop {installed('uvloop')}, Python {sys.version.split()[0]}"
        )


class Node(SmallServer):
    name = "node"
    title = "Socket.IO on Node"
    protocol = "plain"
    command = ("node", "--expose-gc", str(HERE / "peers/node/server.js"))
    env: Mapping[str, str] = {"NODE_ENV": "production"}

    def build(self) -> None:
        install_packages(HERE / "peers/node")

    def version(self) -> str:
        return node_version(HERE / "peers/node")


class Centrifuge(SmallServer):
    name = "centrifuge"
    title = "centrifuge (Go)"
    protocol = "centrifuge"
    command = (str(OUT / "bin/centrifuge"),)
    env: Mapping[str, str] = {"GOMAXPROCS": "1"}

    def build(self) -> None:
        build_go(HERE / "peers/centrifuge", OUT / "bin/centrifuge")

    def version(self) -> str:
        module = (HERE / "peers/centrifuge/go.mod").read_text()
        release = next(
            line.split()[1] for line in module.splitlines() if "centrifugal/centrifuge v" in line
        )
        return f"centrifuge {release} on {output('go', 'env', 'GOVERSION')}"


def needs(*tools: str) -> None:
    """Fail with one line if a tool is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            raise BenchError(f"{tool} is needed and not found")


def output(*command: str) -> str:
    """The trimmed output of a command that tells a version."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def install_packages(directory: Path) -> None:
    """Install what a directory's package-lock.json names, unless that is done."""
    needs("node", "npm")
    done = directory / "node_modules/.package-lock.json"
    lock = directory / "package-lock.json"
    if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
        run_step(("npm", "ci", "--no-fund", "--no-audit"), directory)


def node_version(directory: Path) -> str:
    """The Socket.IO of a directory's package-lock.json, and Node."""
    packages = json.loads((directory / "package-lock.json").read_text())["packages"]
    release = packages["node_modules/socket.io"]["version"]
    return f"Socket.IO {release} on Node {output('node', '--version').removeprefix('v')}"


def build_go(directory: Path, target: Path) -> None:
    """Build a Go command; does nothing much when it is up to date."""
    needs("go")
    target.parent.mkdir(parents=True, exist_ok=True)
    run_step(("go", "build", "-o", str(target), "."), directory)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for one server's files, on the disk that `bench/out` is on."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT, prefix="run-") as directory:
        yield Path(directory)
