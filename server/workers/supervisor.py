"""`PARLEY_WORKERS`: several worker processes on one port, and the supervisor that keeps them.

Each worker is a whole node of the cluster with a listening socket of its own on the shared port
(SO_REUSEPORT): the kernel gives each new connection to one of them. So the requests of a polling
session would come to different workers; workers serve Socket.IO over websocket only.
"""

import asyncio
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from config.settings import Settings
from server import signals
from server.app import NotStarted, welcome
from server.http.places import CannotListen
from server.workers.worker import READY

log = structlog.get_logger(__name__)

FIRST_DELAY = 0.25
LONGEST_DELAY = 30.0
SETTLED = 60.0
"""Seconds of service after which a worker's earlier crashes no longer count."""

LOOKS = 5
"""In how many parts the time is cut for which a worker may be silent: when the supervisor itself, or the
whole machine, stood still, one of them is over at once and no more.
"""

KILL_AFTER = 5.0
"""Seconds beyond `PARLEY_SHUTDOWN_GRACE` until a worker that does not end is killed."""


def delay(crashes: int) -> float:
    """Seconds until a worker is started again after so many crashes in a row, from 1: doubling,
    and jittered, so that workers which died of the same cause do not come back in step.
    """
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(crashes - 1, 20))
    return random.uniform(longest / 2, longest)


async def supervise(settings: Settings) -> int:
    """Run `settings.workers` workers until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 when all workers ended by themselves in time, 1 when one had to be killed;
        the first worker's when that could not start.

    Raises:
        NotStarted: the port is taken.
    """
    with (
        _reserve(settings.host, settings.port) as reserved,
        tempfile.TemporaryDirectory(prefix="parley-") as directory,
    ):
        port = reserved.getsockname()[1]
        log.info("supervising", workers=settings.workers, port=port, transports=["websocket"])
        return await Supervisor(settings, port, Path(directory)).run()


class Supervisor:
    """Starts the workers, starts them again when they crash, and ends them."""

    def __init__(self, settings: Settings, port: int, directory: Path) -> None:
        self._settings = settings
        self._port = port
        self._directory = directory
        self._stop = asyncio.Event()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._killed = 0

    async def run(self) -> int:
        """Until a signal ends it. Returns the exit code."""
        signals.heed(self._stop.set)
        # The first one alone: what keeps a worker from starting is then said once, and nobody
        # competes for migrations.
        first = self._worker(1)
        await self._start(first)
        if not await first.ready():
            code = await first.ended()
            return 0 if self._stop.is_set() else code or 1
        welcome(self._settings, self._port)
        keeping = [asyncio.create_task(self._keep(first))]
        keeping += [
            asyncio.create_task(self._keep(self._worker(number)))
            for number in range(2, self._settings.workers + 1)
        ]
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait([stopped, *keeping], return_when=asyncio.FIRST_COMPLETED)
        self._stop.set()
        log.info("stopping", workers=len(self._running))
        ended = await self._end()
        await asyncio.gather(stopped, *keeping)
        log.info("stopped")
        return 0 if ended else 1

    def _worker(self, number: int) -> "_Worker":
        return _Worker(number, self._settings.worker_timeout, self._end_hanging)

    def _end_hanging(self, worker: "_Worker") -> None:
        """End a worker that hangs, so that it is started again; while all end, they have longer."""
        if not self._stop.is_set():
            log.error(
                "worker_hangs",
                number=worker.number,
                pid=worker.pid,
                silent=self._settings.worker_timeout,
            )
            worker.signal(signal.SIGKILL)

    async def _start(self, worker: "_Worker") -> None:
        arguments = [
            *("worker", str(worker.number), str(self._settings.workers)),
            *("--port", str(self._port), "--directory", str(self._directory)),
        ]
        self._running[worker.number] = await worker.start(arguments)
        if self._stop.is_set():
            worker.signal(signal.SIGTERM)

    async def _keep(self, worker: "_Worker") -> None:
        """Have this worker run until all are told to stop."""
        crashes = 0
        while True:
            if worker.process is None:
                await self._start(worker)
            if await worker.ready():
                log.info("worker_started", number=worker.number, pid=worker.pid)
            began = time.monotonic()
            code = await worker.ended()
            self._running.pop(worker.number, None)
            if self._stop.is_set():
                return
            crashes = 1 if time.monotonic() - began > SETTLED else crashes + 1
            pause = delay(crashes)
            log.error(
                "worker_ended", number=worker.number, pid=worker.pid, code=code, again_in=pause
            )
            try:
                await asyncio.wait_for(self._stop.wait(), pause)
            except TimeoutError:
                continue
            return

    async def _end(self) -> bool:
        """Have all workers drain; whether all did in time."""
        processes = list(self._running.values())
        for process in processes:
            _signal(process, signal.SIGTERM)
        waiting = [asyncio.create_task(process.wait()) for process in processes]
        if not waiting:
            return True
        _, late = await asyncio.wait(waiting, timeout=self._settings.shutdown_grace + KILL_AFTER)
        for process in processes:
            if process.returncode is None:
                log.error("worker_killed", pid=process.pid)
                _signal(process, signal.SIGKILL)
        await asyncio.gather(*waiting)
        return not late


class _Worker:
    """One place for a worker, and the process in it."""

    def __init__(
        self, number: int, silent_after: float, on_silent: Callable[["_Worker"], None]
    ) -> None:
        """`on_silent` is called when the worker, once ready, has said nothing for so many seconds."""
        self.number = number
        self.pid = 0
        self._silent_after = silent_after
        self._on_silent = on_silent
        self.process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._told = False

    async def start(self, arguments: list[str]) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server", *arguments),
                *("--supervisor", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._channel, self._told, self.pid = ours, False, self.process.pid
        return self.process

    async def ready(self) -> bool:
        """Wait until it serves; False if it ends before."""
        assert self._channel is not None
        if not self._told:
            try:
                said = await asyncio.get_running_loop().sock_recv(self._channel, 1)
            except ConnectionError:
                said = b""
            self._told = said == READY
        return self._told

    async def ended(self) -> int:
        """Wait for its end. Returns its exit code, negative for a signal."""
        assert self.process is not None
        assert self._channel is not None
        listening = asyncio.create_task(self._listen(self._channel)) if self._told else None
        code = await self.process.wait()
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        self._channel.close()
        self.process = None
        return code

    async def _listen(self, channel: socket.socket) -> None:
        """Until it has been silent for too long."""
        loop = asyncio.get_running_loop()
        silent = 0
        while silent < LOOKS:
            try:
                async with asyncio.timeout(self._silent_after / LOOKS):
                    said = await loop.sock_recv(channel, 4096)
            except TimeoutError:
                silent += 1
                continue
            except ConnectionError:
                said = b""
            if not said:  # it is about to end, if nothing keeps it from that
                await asyncio.sleep(self._silent_after)
                break
            silent = 0
        self._on_silent(self)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        _signal(self.process, number)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        log.debug("worker_gone", pid=process.pid)


def _reserve(host: str, port: int) -> socket.socket:
    """A socket that is bound to the port and does not listen: it keeps the port for the workers
    while none of them runs.

    Raises:
        NotStarted: the address cannot be bound, or somebody listens there.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
        family, kind, protocol, _, address = found[0]
        # With SO_REUSEPORT another server's port could be shared unnoticed. Ask without it first.
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            free = probe.getsockname()
            probe.listen(1)
        reserved = socket.socket(family, kind, protocol)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(free)
    except OSError as error:
        raise NotStarted(str(CannotListen(host, port, error, "PARLEY_PORT"))) from None
    return reserved
