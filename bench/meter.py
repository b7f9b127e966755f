"""What processes spend, read from outside: processor time, and bytes on their TCP connections."""

import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.process import BenchError

Sockets = Mapping[str, tuple[int, int]]
"""By local address: bytes that the other end has acknowledged, and bytes received."""

_PID = re.compile(r"\bpid=(\d+)")
_SENT = re.compile(r"\bbytes_acked:(\d+)")
_RECEIVED = re.compile(r"\bbytes_received:(\d+)")


@dataclass(frozen=True, slots=True)
class Sample:
    """How far processes were at one moment."""

    at: float
    """Seconds of the monotonic clock."""
    cpu: Mapping[int, float]
    """By process: seconds of user and system time since its start."""
    sockets: Mapping[int, Sockets]
    """By process: its connections to one port."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one process spent between two samples."""

    cpu_seconds: float
    bytes_sent: int
    bytes_received: int


def sample(pids: Iterable[int], port: int) -> Sample:
    """Look at processes and at their connections to a port of the loopback interface.

    Raises:
        BenchError: one of them has ended, or `ss` failed.
    """
    wanted = list(pids)
    at = time.monotonic()
    cpu = {pid: cpu_seconds(pid) for pid in wanted}
    found = connections(port)
    return Sample(at, cpu, {pid: found.get(pid, {}) for pid in wanted})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads, those that ended included.

    Raises:
        BenchError: there is no such process.
    """
    try:
        # The clock of a process by its id, as clock_getcpuclockid(3) makes it on Linux: exact to
        # the nanosecond, where /proc has 10 ms, more than an idle node spends in a second.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise BenchError(f"process {pid} has ended") from error


def connections(port: int) -> dict[int, dict[str, tuple[int, int]]]:
    """All established connections of this machine's processes to a port of 127.0.0.1.

    Returns:
        By process and local address: bytes acknowledged and received. The kernel counts them, so
        nothing is between a node and Redis that is not there in production.

    Raises:
        BenchError: `ss` failed.
    """
    done = subprocess.run(
        ["ss", "-tinpHO", "state", "established", "dst", f"127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"ss: {done.stderr.strip()}")
    found: dict[int, dict[str, tuple[int, int]]] = {}
    for line in done.stdout.splitlines():
        owner = _PID.search(line)
        if owner is not None:
            local = line.split()[2]
            found.setdefault(int(owner[1]), {})[local] = (
                _number(_SENT, line),
                _number(_RECEIVED, line),
            )
    return found


def _number(pattern: re.Pattern[str], line: str) -> int:
    # What is zero is left out.
    found = pattern.search(line)
    return int(found[1]) if found else 0


def spent(pid: int, before: Sample, after: Sample) -> Spent:
    """What a process spent between two samples.

    Raises:
        BenchError: it closed a connection meanwhile, whose bytes are not known.
    """
    opened, kept = before.sockets[pid], after.sockets[pid]
    if lost := opened.keys() - kept.keys():
        raise BenchError(f"process {pid} closed {len(lost)} connections while it was measured")
    sent = sum(now[0] - opened.get(local, (0, 0))[0] for local, now in kept.items())
    received = sum(now[1] - opened.get(local, (0, 0))[1] for local, now in kept.items())
    return Spent(after.cpu[pid] - before.cpu[pid], sent, received)
