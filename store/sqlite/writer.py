"""The event loop's side of writing: queues operations for the committer, tells their callers."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from domain.clock import Clock
from domain.errors import Unavailable
from store.sqlite.committer import Committer
from store.sqlite.jobs import AppendJob, Job
from store.sqlite.turns import CHECK, REST, STUCK


class Observer(Protocol):
    """Is told what the writer does, in the event loop."""

    def append(self, seconds: float) -> None:
        """One append took this long, from the call to being safe on disk."""

    def batch(self, size: int) -> None:
        """One commit carried this many operations."""


class Writer:
    """Is called in the event loop. What it takes is carried out by the committer, in its thread."""

    def __init__(
        self,
        committer: Committer,
        *,
        clock: Clock,
        queue_limit: int,
        queue_bytes: int,
        observer: Observer | None,
    ) -> None:
        self._committer = committer
        self._clock = clock
        self._queue_limit = queue_limit
        self._queue_bytes = queue_bytes
        self._observer = observer
        self._submitted: list[Job] = []
        """What was submitted in this turn of the event loop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching = False
        self._progress = 0.0
        self._accepting = False
        self.waiting = 0
        """Operations that were submitted and are not settled."""
        self.waiting_bytes = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take operations."""
        self._loop = loop
        self._committer.start(self._done)
        self._accepting = True

    def refuse(self) -> None:
        """Take no more operations; those taken are carried out before the committer closes."""
        self._accepting = False
        self._hand_over()

    def submit(self, job: Job) -> "asyncio.Future[Any]":
        """Queue an operation. If its caller is cancelled, it may or may not be carried out.

        Raises:
            Unavailable: too much is waiting already, or the engine is not running.
        """
        if not self._accepting or self._loop is None:
            raise Unavailable("The store is not open.")
        if (
            self.waiting >= self._queue_limit
            or self.waiting_bytes + job.size > self._queue_bytes > 0
        ):
            raise Unavailable("The store is overloaded.")
        self.waiting += 1
        self.waiting_bytes += job.size
        job.since = self._clock.monotonic()
        if not self._watching:
            self._watching = True
            self._progress = time.monotonic()
            self._loop.call_later(CHECK, self._watch)
        future = job.future = self._loop.create_future()
        if not self._submitted:
            # All of this turn go together: the thread would wake up amid the turn for the first of
            # them, fight the event loop for the interpreter, and commit a few at a time.
            self._loop.call_soon(self._hand_over)
        self._submitted.append(job)
        return future

    def _hand_over(self) -> None:
        if self._submitted:
            self._committer.put(self._submitted)
            self._submitted = []

    def _watch(self) -> None:
        """Look whether the writer gets on, as long as something waits for it."""
        assert self._loop is not None
        if not self.waiting:
            self._watching = False
            return
        pause = CHECK
        if time.monotonic() - self._progress > STUCK and not self._committer.turns.give():
            pause = REST
        self._loop.call_later(pause, self._watch)

    def _done(self, jobs: Sequence[Job]) -> None:
        """In the committer's thread: have the callers told."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._settle, jobs)

    def _settle(self, jobs: Sequence[Job]) -> None:
        self._progress = time.monotonic()
        now = self._clock.monotonic()
        observer = self._observer
        if observer is not None:
            observer.batch(len(jobs))
        for job in jobs:
            self.waiting -= 1
            self.waiting_bytes -= job.size
            future = job.future
            assert future is not None
            if job.error is None and observer is not None and isinstance(job, AppendJob):
                observer.append(now - job.since)
            if future.done():
                continue
            if job.error is None:
                future.set_result(job.result)
            else:
                future.set_exception(job.error)
