"""A real server: `python -m server` on a free port, with its own data, that can be killed."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from deploy.local import ROOT
from deploy.local.ports import free_port, wait_unused


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of a developer's own server."""
    return {k: v for k, v in os.environ.items() if not k.upper().startswith("PARLEY_")}


class ServerFailed(AssertionError):
    """The server ended, or was not ready in time. The text has the end of its log."""


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises `subprocess.TimeoutExpired`."""
        ...

    def kill(self) -> None:
        """SIGKILL."""
        ...


class ServerProcess:
    """One server process and its data directory; the data outlives any number of restarts.

    All methods block. Next to live clients in the same event loop call them in a thread:
    `await asyncio.to_thread(server.restart)`.
    """

    def __init__(self, directory: Path, settings: Mapping[str, object] | None = None) -> None:
        """`settings` are named without prefix: `{"ACCESS_TTL": "5s"}`. Nothing starts yet."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data_dir = directory / "data"
        self.log_path = directory / "server.log"
        self.settings = {k: str(v) for k, v in (settings or {}).items()}
        self.port = int(self.settings.get("PORT", 0)) or free_port()
        self._process: Process | None = None
        (directory / "empty.env").touch()

    @property
    def url(self) -> str:
        """Where it serves, without trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id, running or ended."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def environment(self) -> dict[str, str]:
        """What a command has to run with to have this server's settings."""
        return {
            **clean_environment(),
            "PARLEY_ENV_FILE": str(self.directory / "empty.env"),
            "PARLEY_HOST": "127.0.0.1",
            "PARLEY_DATA_DIR": str(self.data_dir),
            **{f"PARLEY_{name}": value for name, value in self.settings.items()},
            "PARLEY_PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, timeout: float = 20.0) -> Self:
        """Start it and wait until it is ready.

        Raises:
            AssertionError: another process has its port, and would be taken for it.
            ServerFailed: it ended, or was not ready within `timeout` seconds.
        """
        assert not self.running, "the server runs already"
        wait_unused(self.port)
        self._process = self.spawn()
        self.wait_ready(timeout)
        return self

    def spawn(self) -> Process:
        """The process, begun: `python -m server` with this server's settings, which appends what
        it says to `log_path`.
        """
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "server"],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self, timeout: float = 20.0) -> None:
        """Wait until `/health/ready` answers 200.

        Raises:
            ServerFailed: as `start`.
        """
        deadline = time.monotonic() + timeout
        while not self.ready():
            if not self.running:
                raise ServerFailed(f"the server ended with {self.exit_code}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"not ready after {timeout:g} s\n{self.log_tail()}")
            time.sleep(0.02)

    def ready(self) -> bool:
        """Whether `/health/ready` answers 200 now."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def exit_code(self) -> int | None:
        """What it ended with; negative for a signal; None while it runs."""
        return self._process.poll() if self._process else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for its end.

        Returns:
            Its exit code.

        Raises:
            ServerFailed: it still runs after `timeout` seconds; it is killed then.
        """
        assert self._process is not None, "the server was not started"
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"still there after {timeout:g} s\n{self.log_tail()}") from None

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM, and wait for the end. Returns the exit code."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL: a crash. Returns when the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self, *, kill: bool = False) -> None:
        """End it (with `kill`, by a crash) and start it on the same data and port."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def log(self) -> str:
        """All it has written, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        """The last lines it has written."""
        return "\n".join(self.log().splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        try:
            if self.running:
                self.stop()
        finally:
            self.kill()
