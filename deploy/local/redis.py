"""A real redis-server on a free port, without persistence, that can be killed and restarted."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.ports import free_port, wait_unused

PROGRAM = "redis-server"


class RedisProcess:
    """One redis-server. It forgets everything when it ends. All methods block, but briefly."""

    def __init__(self, directory: Path, *options: str, sentinel: str | None = None) -> None:
        """`options` as on its command line; `sentinel`: the text of a Sentinel's configuration."""
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.password: str | None = None
        """What it asks everybody for, if it does."""
        self._directory = directory
        self._options: Sequence[str] = options
        self._config: list[str] = []
        if sentinel is not None:
            path = directory / f"sentinel-{self.port}.conf"
            path.write_text(sentinel)
            self._config = [str(path), "--sentinel"]
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            AssertionError: it does not, or another process has its port.
        """
        wait_unused(self.port)
        with (self._directory / f"redis-{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    PROGRAM,
                    *self._config,
                    *("--port", str(self.port)),
                    *("--bind", "127.0.0.1"),
                    *("--dir", str(self._directory)),
                    *(() if self._config else ("--save", "", "--appendonly", "no")),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._keeper = _keeper(self._process.pid)
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                if self.say("PING").startswith(b"+PONG"):
                    return
            except OSError:
                pass
            assert self._process is not None
            assert self._process.poll() is None, f"{PROGRAM} ended"
            assert time.monotonic() < deadline, f"{PROGRAM} does not answer"
            time.sleep(0.01)

    def say(self, *command: str) -> bytes:
        """Send one command; returns the beginning of the answer as it is on the wire."""
        packed = f"*{len(command)}\r\n" + "".join(
            f"${len(each.encode())}\r\n{each}\r\n" for each in command
        )
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            if self.password is not None:
                connection.sendall(f"AUTH {self.password}\r\n".encode())
                assert connection.recv(100) == b"+OK\r\n"
            connection.sendall(packed.encode())
            return connection.recv(65536)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.communicate(b"\n")
        if self._process is not None:
            # A stopped process dies only when it goes on.
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """It is there and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """It does again."""
        os.kill(self.pid, signal.SIGCONT)

    def drop_listeners(self) -> int:
        """Cut all connections that are subscribed to something; how many they were."""
        return int(self.say("CLIENT", "KILL", "TYPE", "pubsub").removeprefix(b":"))

    def subscribers(self, channel: str) -> int:
        """How many connections a message on a sharded channel goes to."""
        answer = self.say("PUBSUB", "SHARDNUMSUB", channel)
        return int(answer.splitlines()[-1].removeprefix(b":"))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


def _keeper(pid: int) -> "subprocess.Popen[bytes]":
    """Ends a process when this one, killed itself, leaves it behind; a line from us ends the keeper."""
    return subprocess.Popen(
        ["sh", "-c", f"read _ || kill -9 {pid}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C is for who started it
    )
