"""Processes of a run: pinned to a core, logged to a file, and ended by whoever started them."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

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
    command: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a server on its core while the block runs; gives its process id once it listens.

    It has a session of its own, so that Ctrl-C reaches it through this function alone.

    Raises:
        BenchError: it ended or did not listen in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(SERVER_CORE, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            _wait_for_port(process, port, log)
            yield process.pid
        finally:
            stop(process)


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"the server ended with {process.returncode}; {log} says\n{tail(log)}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"the server did not listen within {START_LIMIT:.0f} s; see {log}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process this program started: politely, then for good."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT)
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


def run_step(command: Sequence[str], directory: Path) -> None:
    """Run a build step to its end.

    Raises:
        BenchError: it failed; the message has what it said.
    """
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
