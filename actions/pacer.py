"""Work that follows from events, done at most so often and with at most so much of the processor."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

SLICE = 0.001
"""Seconds of work after which the event loop gets its turn."""


class Pacer(Generic[Key]):
    """Calls `work(key)` soon after `touch(key)`: at once for a key that has rested, else when
    `interval` seconds have passed since its last time. However often a key is touched meanwhile,
    it is worked on once.

    All keys together take about `share` of the processor at most: with more to do they come later,
    each in its turn. So what is paced costs the same however much is going on.
    """

    def __init__(
        self, work: Callable[[Key], None], *, interval: float = 1.0, share: float = 0.05
    ) -> None:
        self._work = work
        self._interval = interval
        self._pause = 1.0 / share - 1.0
        self._resting: dict[Key, bool] = {}
        """Keys that wait for their turn or rest after it, and whether they were touched since."""
        self._ready: deque[Key] = deque()
        self._ends: deque[tuple[float, Key]] = deque()
        self._handle: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._resting)

    def touch(self, key: Key) -> None:
        """Something about a key has changed."""
        resting = self._resting
        if key in resting:
            resting[key] = True
            return
        resting[key] = False
        self._ready.append(key)
        self._wake_at(self._not_before)

    def close(self) -> None:
        """Forget everything that was to be done."""
        self._resting.clear()
        self._ready.clear()
        self._ends.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _wake_at(self, when: float) -> None:
        if self._handle is not None:
            if self._wakes_at <= when:
                return
            self._handle.cancel()
        self._wakes_at = when
        self._handle = asyncio.get_running_loop().call_at(when, self._run)

    def _run(self) -> None:
        self._handle = None
        now = asyncio.get_running_loop().time()
        self._end_rests(now)
        if self._ready:
            started = time.perf_counter()
            spent = 0.0
            while self._ready and spent < SLICE:
                key = self._ready.popleft()
                self._resting[key] = False
                self._ends.append((now + self._interval, key))
                try:
                    self._work(key)
                except Exception:
                    logger.exception("paced work failed")
                spent = time.perf_counter() - started
            self._not_before = now + spent + spent * self._pause
        if self._ready:
            self._wake_at(self._not_before)
        elif self._ends:
            self._wake_at(max(self._ends[0][0], self._not_before))

    def _end_rests(self, now: float) -> None:
        ends = self._ends
        while ends and ends[0][0] <= now:
            key = ends.popleft()[1]
            if self._resting[key]:
                self._resting[key] = False
                self._ready.append(key)
            else:
                del self._resting[key]
