"""TCP ports for servers on this machine, each given to one process that starts some at a time."""

import contextlib
import fcntl
import functools
import itertools
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_PORTS = range(12_000, 32_000)
"""Below those that the kernel gives to clients (Linux: from 32768): a server that is down for a
moment finds its port still free, however many connections were opened meanwhile."""

_TAKEN = Path(tempfile.gettempdir()) / f"parley-test-ports-{os.getuid()}"
"""Byte n of this file is locked by the process that port n was given to, for as long as it lives.

Looking whether a port is free is not enough. A server binds its port a second after it was told of
it, and one that was killed leaves it free for as long as it is down; meanwhile another test run
would find it free too.
"""

_one_at_a_time = threading.Lock()
"""Tests start several servers at once, each in a thread."""

_first = random.randrange(len(_PORTS))
_in_turn: Iterator[int] = itertools.cycle([*_PORTS[_first:], *_PORTS[:_first]])


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now.

    It is this process's until it ends: no other test run is given it, and this one not soon again.
    """
    with _one_at_a_time:
        for port in itertools.islice(_in_turn, len(_PORTS)):
            if not take(port):
                continue
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise OSError("no port is free")


def take(port: int) -> bool:
    """Have a port until this process ends; False if another process has it."""
    try:
        fcntl.lockf(_taken(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    return True


@functools.cache
def _taken() -> int:
    """The file, open; and never closed: that would give back all that was locked."""
    return os.open(_TAKEN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def listened(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_unused(port: int, timeout: float = 5.0) -> None:
    """Wait until nobody listens on a port any more, e.g. what is left of a server that was killed.

    Raises:
        AssertionError: somebody still does after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while listened(port):
        assert time.monotonic() < deadline, f"somebody else listens on port {port}"
        time.sleep(0.02)
