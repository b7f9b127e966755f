"""Processes of a run: pinned to a core, logged to a file, and ended by whoever started them."""

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

SERVER_CORE = 0
LOAD_CORE = 1

START_LIMIT = 30.0
STOP_LIMIT = 20.0


class BenchError(Exception):
    """The run cannot go on; the message says why."""


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """The command, bound to one core with all its threads."""
    return ["taskset", "--cpu-list", str(core), *command]


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    core: int = SERVER_CORE,
) -> Iterator[int]:
    """Run a server on its core while the block runs; gives its process id once it listens.

    Raises:
        BenchError: it ended or did not listen in time.
    """
    process = launch(command, log, env, core)
    try:
        wait_for_port(process, port, log)
        yield process.pid
    finally:
        stop(process)


def launch(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    core: int = SERVER_CORE,
) -> subprocess.Popen[bytes]:
    """Start a server on a core, to be ended with `stop`.

    It has a session of its own, so that Ctrl-C reaches it through this program alone.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            pinned(core, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when a server that was launched listens.

    Raises:
        BenchError: it ended or did not listen in time.
    """
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"the server ended with {process.returncode}; {log} says\n{tail(log)}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"the server did not listen within {START_LIMIT:.0f} s; see {log}")


def stop(*processes: subprocess.Popen[bytes]) -> None:
    """End processes this program started, all at the same time: politely, then for good."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_LIMIT
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def run_load(command: Sequence[str], spec: str, limit: float) -> str:
    """Run the load generator on its core with `spec` on its standard input; gives its output.

    Raises:
        BenchError: it failed, or took longer than `limit` seconds.
    """
    process = subprocess.Popen(
        pinned(LOAD_CORE, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "GOMAXPROCS": "1", "GOGC": "400"},
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(spec.encode(), timeout=limit)
    except subprocess.TimeoutExpired:
        raise BenchError(f"the load generator did not end within {limit:.0f} s") from None
    finally:
        stop(process)
    if process.returncode:
        raise BenchError(errors.decode(errors="replace").strip())
    return output.decode()


class Load:
    """A load generator that is told one thing after the other, and answers each with a line."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Start it on its core. What it complains of goes to `log`."""
        self._log = log
        self._heard = b""
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                pinned(LOAD_CORE, command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "GOMAXPROCS": "1", "GOGC": "400"},
                start_new_session=True,
            )

    def ask(self, message: object, limit: float) -> Any:
        """Tell it something; gives its answer.

        Raises:
            BenchError: it ended, or did not answer within `limit` seconds.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(self._complaint()) from None
        return json.loads(self._line(time.monotonic() + limit))

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._heard:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise BenchError("the load generator did not answer in time")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise BenchError(self._complaint())
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _complaint(self) -> str:
        return tail(self._log) or "the load generator ended without a word"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def run_step(command: Sequence[str], directory: Path) -> None:
    """Run a build step to its end.

    Raises:
        BenchError: it failed; the message has what it said.
    """
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
