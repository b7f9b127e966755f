"""A well-behaved client in a process of its own: how long others wait while the server is attacked.

`python -m tests.chaos.control URL TOKEN CONVERSATION PID` prints one line per round trip: when it
began (`time.monotonic()`, which processes of one machine share) and how many seconds it took, less
those in which it or the server, whose process is PID, was ready to run and other programs had the
processors.
"""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.client import connect
from tests.support.server import ROOT

PAUSE = 0.01


def _kept_waiting(pid: int | str) -> float:
    """Seconds that the threads of a process have waited for a processor since they began."""
    waited = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            waited += int(file.read_text().split()[1])
    return waited / 1e9


async def _main(url: str, token: str, conversation: str, server: str) -> None:
    async with await connect(url, "/messages", token) as client:
        while True:
            before = _kept_waiting("self") + _kept_waiting(server)
            started = time.monotonic()
            await client.call("conversation.get", {"conversation": conversation}, timeout=30)
            took = time.monotonic() - started
            took -= _kept_waiting("self") + _kept_waiting(server) - before
            print(f"{started:.6f} {max(took, 0.0):.6f}", flush=True)
            await asyncio.sleep(PAUSE)


class Control:
    """The process, and what it has measured."""

    def __init__(self, url: str, token: str, conversation: str, server: int) -> None:
        """`server`: the id of its process."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.control", url, token, conversation, str(server)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._samples: list[tuple[float, float]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            started, seconds = line.split()
            self._samples.append((float(started), float(seconds)))

    def since(self, start: float) -> list[float]:
        """The round trips that ended after a moment, in seconds, ascending."""
        return sorted(took for began, took in self._samples if began + took >= start)

    def wait(self, seconds: float = 0.0) -> list[float]:
        """Watch for a while, and for one more round trip, which begins after it.

        Raises:
            AssertionError: the control client is not served.
        """
        start = time.monotonic()
        deadline = start + seconds + 30
        while not any(began > start + seconds for began, _ in self._samples[-50:]):
            assert self._process.poll() is None, "the control client was thrown out"
            assert time.monotonic() < deadline, "the control client is not served any more"
            time.sleep(0.01)
        return self.since(start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
