"""What a session has taken in and not handled yet."""

import asyncio
import logging
from typing import NamedTuple, Protocol

from server.transport.connection import ClientConnection
from server.transport.large import Place
from server.transport.options import TransportOptions
from server.transport.packets import Incoming

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """Something to be done in its turn: a packet, or a connection's end."""

    packet: Incoming | None
    left: ClientConnection | None = None
    reason: str = ""
    size: int = 0
    """Bytes of the packet."""
    place: Place | None = None
    """With a large packet; left when the job is done."""


class Owner(Protocol):
    """The session that takes in."""

    @property
    def options(self) -> TransportOptions:
        """The transport's limits."""
        ...

    async def handle(self, job: Job) -> None:
        """Do one job."""
        ...

    def resume_input(self) -> None:
        """There is room again."""
        ...

    def idle(self) -> None:
        """All is done."""
        ...


class Intake:
    """Jobs, done one after the other by a task that is there while there are any.

    It is told its owner with each job and does not keep it: the two would keep each other.
    """

    __slots__ = ("_jobs", "_pending", "_pending_bytes", "_room", "_worker", "full")

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._pending = 0
        """Jobs taken in and not done."""
        self._pending_bytes = 0
        """Of their packets."""
        self._room: asyncio.Future[None] | None = None
        self._worker: asyncio.Task[None] | None = None
        self.full = False
        """Whether nothing more should be taken in, until enough is done."""

    def put(self, owner: Owner, job: Job) -> None:
        """Have a job done after all before it."""
        options = owner.options
        self._jobs.append(job)
        self._pending += 1
        self._pending_bytes += job.size
        if self._pending >= options.max_pending or self._pending_bytes >= options.max_pending_bytes:
            self.full = True
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work(owner))

    async def _work(self, owner: Owner) -> None:
        try:
            while self._jobs:
                jobs, self._jobs = self._jobs, []
                for job in jobs:
                    await self._do(owner, job)
                    if job.place is not None:
                        job.place.leave()
                    self._pending -= 1
                    self._pending_bytes -= job.size
                    if self.full:
                        self._make_room(owner)
        finally:
            self._worker = None
            owner.idle()

    @staticmethod
    async def _do(owner: Owner, job: Job) -> None:
        """Do one job. What it waits for may be cancelled by others: those behind it go on."""
        try:
            await owner.handle(job)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            logger.warning("a handler was cancelled")

    def _make_room(self, owner: Owner) -> None:
        """Take in again what comes, if enough is done."""
        options = owner.options
        if (
            self._pending <= options.max_pending // 2
            and self._pending_bytes <= options.max_pending_bytes // 2
        ):
            self.full = False
            self.release()
            owner.resume_input()

    async def room(self) -> None:
        """Wait until there is room, or for `release`."""
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._room)

    def release(self) -> None:
        """Let go who waits for room."""
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    @property
    def working(self) -> bool:
        """Whether something is not done yet."""
        return self._worker is not None

    async def settled(self) -> None:
        """Wait until everything is done."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def cancel(self) -> None:
        """Give up what is being done."""
        if self._worker is not None:
            self._worker.cancel()
