"""Many deadlines of one length on one timer."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from domain.clock import Clock

Key = TypeVar("Key", bound=Hashable)


class Timeouts(Generic[Key]):
    """Calls `expired(key)` once `seconds` after a key was last started.

    As all run equally long, they end in the order in which they were started: starting, renewing
    and stopping one is O(1), and the event loop has one timer for all.
    """

    def __init__(self, seconds: float, expired: Callable[[Key], None], clock: Clock) -> None:
        self._seconds = seconds
        self._expired = expired
        self._clock = clock
        self._deadlines: OrderedDict[Key, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, key: Key) -> bool:
        return key in self._deadlines

    def start(self, key: Key) -> None:
        """Let a key expire after the whole time from now, whatever was left of it."""
        self._deadlines[key] = self._clock.monotonic() + self._seconds
        self._deadlines.move_to_end(key)
        if self._timer is None:
            self._arm(self._seconds)

    def stop(self, key: Key) -> bool:
        """Do not let a key expire; whether it was running."""
        return self._deadlines.pop(key, None) is not None

    def run_due(self) -> None:
        """Expire what is due. Called by the timer; harmless at any time."""
        now = self._clock.monotonic()
        while self._deadlines:
            key, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                break
            del self._deadlines[key]
            self._expired(key)

    def close(self) -> None:
        """Forget all keys; none expires any more."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float) -> None:
        # Not earlier than a millisecond: a clock other than the loop's may still be short of it.
        self._timer = asyncio.get_running_loop().call_later(max(seconds, 0.001), self._wake)

    def _wake(self) -> None:
        self._timer = None
        try:
            self.run_due()
        finally:
            if self._deadlines and self._timer is None:
                first = next(iter(self._deadlines.values()))
                self._arm(first - self._clock.monotonic())
