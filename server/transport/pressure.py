"""Back-pressure of the whole process: who is slow, who is stuck, and how much waits in total."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from server.transport.options import TransportCounters, TransportOptions

SWEEP_SECONDS = 0.25


class Slow(Protocol):
    """A session's sending half while it holds something back."""

    @property
    def waiting(self) -> int:
        """Bytes not yet handed to the kernel."""
        ...

    @property
    def polling(self) -> bool:
        """Whether the client fetches; one that does not come is the heartbeat's business."""
        ...

    def overflow(self) -> None:
        """Give the session up as a slow consumer. Called from the loop, never from a send."""
        ...


class Pressure:
    """Watches the sessions that hold something back.

    One that takes nothing for `stuck_timeout` seconds is given up; when all together hold more
    than `max_queued_total` bytes, the ones with most go first. There is one timer, and only while
    somebody is slow.
    """

    def __init__(
        self,
        options: TransportOptions,
        counters: TransportCounters,
        time: Callable[[], float],
    ) -> None:
        self.options = options
        self.counters = counters
        self._time = time
        self._slow: dict[Slow, tuple[int, float]] = {}
        """Bytes waiting when last looked at, and when they last became fewer."""
        self._timer: asyncio.TimerHandle | None = None
        self._shedding = False

    def add(self, slow: Slow) -> None:
        """Watch a session from now on."""
        if slow not in self._slow:
            self._slow[slow] = (slow.waiting, self._time())
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def remove(self, slow: Slow) -> None:
        """The session holds nothing any more, or is gone."""
        self._slow.pop(slow, None)

    def queued(self, change: int) -> None:
        """Account for bytes put in or taken from a session's queue."""
        self.counters.queued_bytes += change
        if (
            change > 0
            and not self._shedding
            and self.counters.queued_bytes > self.options.max_queued_total
        ):
            self._shedding = True
            asyncio.get_running_loop().call_soon(self._shed)

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._timer = None
        now = self._time()
        total = 0
        for slow, (before, since) in list(self._slow.items()):
            waiting = slow.waiting
            total += waiting
            if waiting < before or waiting == 0:
                self._slow[slow] = (waiting, now)
            elif not slow.polling and now - since >= self.options.stuck_timeout:
                slow.overflow()
            else:
                self._slow[slow] = (waiting, since)
        if total > self.options.max_queued_total:
            self._shed()
        if self._slow:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _shed(self) -> None:
        self._shedding = False
        waiting = {slow: slow.waiting for slow in self._slow}
        total = sum(waiting.values())
        for slow in sorted(waiting, key=waiting.__getitem__, reverse=True):
            if total <= self.options.max_queued_total:
                break
            total -= waiting[slow]
            slow.overflow()
