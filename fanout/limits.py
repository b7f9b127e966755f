"""Rate limits, counted where all who count together can see it: here, for one node.

The algorithm is GCRA (ITU-T I.371, annex A), the leaky bucket as one number per key: the time at
which the key has paid for everything it took.
"""

from collections.abc import Mapping
from typing import Protocol

from domain.clock import Clock

Limit = tuple[int, float]
"""So many per so many seconds; as many may come at once."""

SWEEP_AFTER = 4096
"""Keys of one bucket below which nothing is swept."""

MAX_KEYS = 200_000
"""Keys of one bucket that are remembered; beyond, those that have paid soonest are forgotten."""


class RateLimiter(Protocol):
    """Where rate limits are counted."""

    async def take(self, bucket: str, key: str) -> float:
        """Take one from a bucket: 0 if there was one, else the seconds until there will be."""
        ...

    async def give_back(self, bucket: str, key: str) -> None:
        """Undo one `take` that got something."""
        ...


class _Bucket:
    __slots__ = ("due", "interval", "sweep_at", "tolerance")

    def __init__(self, limit: Limit) -> None:
        count, period = limit
        if count < 1 or period <= 0:
            raise ValueError(f"no limit: {limit}")
        self.interval = period / count
        self.tolerance = period - self.interval
        self.due: dict[str, float] = {}
        self.sweep_at = SWEEP_AFTER


class LocalRateLimiter:
    """Counts in this process's memory."""

    def __init__(
        self,
        limits: Mapping[str, Limit | None],
        clock: Clock,
        *,
        default: Limit | None = None,
        max_keys: int = MAX_KEYS,
    ) -> None:
        """Limit by bucket; a bucket that is not named takes `default`; None limits nothing."""
        self._monotonic = clock.monotonic
        self._default = default
        self._max_keys = max_keys
        self._buckets: dict[str, _Bucket | None] = {
            name: _Bucket(limit) if limit is not None else None for name, limit in limits.items()
        }

    async def take(self, bucket: str, key: str) -> float:
        """Take one from a bucket: 0 if there was one, else the seconds until there will be."""
        try:
            counted = self._buckets[bucket]
        except KeyError:
            counted = self._add(bucket)
        if counted is None:
            return 0.0
        now = self._monotonic()
        due = counted.due
        try:
            paid = due[key]
        except KeyError:
            if len(due) >= counted.sweep_at:
                self._sweep(counted, now)
            due[key] = now + counted.interval
            return 0.0
        ahead = paid - now
        if ahead <= 0.0:
            due[key] = now + counted.interval
            return 0.0
        # A nanosecond's grace: sums of intervals are not exact.
        if ahead <= counted.tolerance + 1e-9:
            due[key] = paid + counted.interval
            return 0.0
        return ahead - counted.tolerance

    async def give_back(self, bucket: str, key: str) -> None:
        """Undo one `take` that got something."""
        counted = self._buckets.get(bucket)
        if counted is not None and key in counted.due:
            counted.due[key] -= counted.interval

    def debt(self, bucket: str, key: str) -> float:
        """Seconds until a key has paid for everything it took."""
        counted = self._buckets.get(bucket)
        if counted is None:
            return 0.0
        return max(0.0, counted.due.get(key, 0.0) - self._monotonic())

    def owe(self, bucket: str, key: str, seconds: float) -> None:
        """A key has taken more elsewhere: it has paid for everything in so many seconds at the
        earliest.
        """
        counted = self._buckets.get(bucket)
        if counted is not None and key in counted.due:
            counted.due[key] = max(counted.due[key], self._monotonic() + seconds)

    def remembered(self, bucket: str) -> int:
        """How many keys of a bucket are kept in memory."""
        counted = self._buckets.get(bucket)
        return len(counted.due) if counted is not None else 0

    def _add(self, bucket: str) -> _Bucket | None:
        # The names come from declared commands, so there is an end to them.
        added = _Bucket(self._default) if self._default is not None else None
        self._buckets[bucket] = added
        return added

    def _sweep(self, counted: _Bucket, now: float) -> None:
        """Forget keys that owe nothing. A key costs it once per time the bucket doubles."""
        counted.due = due = {key: paid for key, paid in counted.due.items() if paid > now}
        half = self._max_keys // 2
        if len(due) > half:
            for key in sorted(due, key=due.__getitem__)[: len(due) - half]:
                del due[key]
        counted.sweep_at = min(max(SWEEP_AFTER, 2 * len(due)), self._max_keys)
