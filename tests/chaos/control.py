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
    with contextlib.suppress(FileNotFoundError):  # another system than Linux
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                waited += int((task / "schedstat").read_bytes().split()[1])
    return waited / 1e9


class Stopwatch:
    """Runs from its making: how long a server takes, less what it and this process were kept waiting
    by other programs.
    """

    def __init__(self, server: int) -> None:
        """`server`: the id of its process."""
        self._server = server
        self._kept = _kept_waiting("self") + _kept_waiting(server)
        self.started = time.monotonic()

    def seconds(self) -> float:
        """Until now."""
        took = time.monotonic() - self.started
        kept = _kept_waiting("self") + _kept_waiting(self._server) - self._kept
        return max(took - kept, 0.0)


async def _main(url: str, token: str, conversation: str, server: int) -> None:
    async with await connect(url, "/messages", token) as client:
        while True:
            watch = Stopwatch(server)
            await client.call("conversation.get", {"conversation": conversation}, timeout=30)
            print(f"{watch.started:.6f} {watch.seconds():.6f}", flush=True)
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
    where, who, room, process = sys.argv[1:]
    asyncio.run(_main(where, who, room, int(process)))
