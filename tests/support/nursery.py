"""Servers without the second of processor time that importing them takes, time after time: one
process imports the server and forks a child for each that is started.

A child is a process as `python -m server` is: it has its own memory, is killed by SIGKILL and ends
by itself with the interpreter's usual end. `python -m tests.support.nursery FD` is the process.
"""

import contextlib
import ctypes
import gc
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.local import ROOT


class Child:
    """A process that the nursery made; the few methods of `subprocess.Popen` that are needed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        self._ended = threading.Event()

    def ended(self, code: int) -> None:
        """From the nursery: it is gone."""
        self._code = code
        self._ended.set()

    def poll(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs."""
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it runs on after `timeout` seconds.
        """
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("server", timeout or 0.0)
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        """SIGKILL."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):  # gone, and we are about to be told
                os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """The process that makes servers, started when the first is wanted. All methods block."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._children: dict[int, Child] = {}
        self._born: list[Child] = []
        self._changed = threading.Condition()
        self._one_at_a_time = threading.Lock()
        self._lost = False

    def spawn(self, environment: Mapping[str, str], log: Path) -> Child:
        """A new server with this environment, which appends what it says to a file."""
        with self._one_at_a_time, self._changed:
            if self._socket is None:
                self._start()
            assert self._socket is not None
            asked = {"environment": dict(environment), "log": str(log)}
            self._socket.sendall(json.dumps(asked).encode() + b"\n")
            assert self._changed.wait_for(lambda: self._born or self._lost, 30), "no child"
            assert self._born, "the nursery has ended"
            return self._born.pop()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.nursery", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()

    def _read(self, told: socket.socket) -> None:
        with told.makefile("rb") as lines:
            for line in lines:
                with self._changed:
                    self._hear(json.loads(line))
        with self._changed:
            self._lost = True
            for child in self._children.values():
                child.ended(-signal.SIGKILL)
            self._changed.notify_all()

    def _hear(self, said: dict[str, int]) -> None:
        pid = said["pid"]
        if "code" in said:
            self._children.pop(pid).ended(said["code"])
        else:
            child = self._children[pid] = Child(pid)
            self._born.append(child)
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._socket is None or self._process is None or self._reader is None:
            return
        self._socket.shutdown(socket.SHUT_WR)
        self._process.wait()
        self._reader.join()
        self._socket.close()


def _nurse(asked: socket.socket) -> dict[str, Any] | None:
    """Make what is asked for and tell who ended, until nothing is asked any more.

    Returns:
        In the process itself None; in each child what was asked for.
    """
    children: set[int] = set()
    turned, turn = os.pipe()
    os.set_blocking(turn, False)
    os.set_blocking(turned, False)
    signal.set_wakeup_fd(turn, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its end is that of the tests, not before
    sources: list[socket.socket | int] = [asked, turned]
    waiting = b""
    while True:
        ready, _, _ = select.select(sources, [], [])
        if turned in ready:
            os.read(turned, 4096)
            for pid in list(children):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    children.remove(pid)
                    code = os.waitstatus_to_exitcode(status)
                    asked.sendall(json.dumps({"pid": pid, "code": code}).encode() + b"\n")
        if asked not in ready:
            continue
        came = asked.recv(65536)
        if not came:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            return None
        *lines, waiting = (waiting + came).split(b"\n")
        for line in lines:
            nursery = os.getpid()
            pid = os.fork()
            if not pid:
                _end_with(nursery)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also if the tests run with `nohup`
                for each in (turned, turn):
                    os.close(each)
                asked.close()
                child: dict[str, Any] = json.loads(line)
                return child
            children.add(pid)
            asked.sendall(json.dumps({"pid": pid}).encode() + b"\n")


def _end_with(parent: int) -> None:
    """Have this process killed when its parent is, where the system can do that."""
    if sys.platform != "linux":
        return
    pdeathsig = 1  # PR_SET_PDEATHSIG, prctl(2)
    ctypes.CDLL(None).prctl(pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _main() -> int:
    from server.cli import main
    from tests.support.plans import explain_aloud

    explain_aloud()
    assert threading.active_count() == 1, "a fork would lose the threads that importing started"
    gc.collect()
    gc.freeze()
    child = _nurse(socket.socket(fileno=int(sys.argv[1])))
    if child is None:
        return 0
    log = os.open(child["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(child["environment"])
    random.seed()
    return main([])


if __name__ == "__main__":
    sys.exit(_main())
