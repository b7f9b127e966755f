"""Rate limits counted for the whole cluster, in Redis.

Buckets counted by the minute or longer protect something (passwords, accounts, addresses): each
take asks Redis, in one round trip, unless this node alone knows the answer. Buckets counted by the
second protect the nodes from a flood, and are on the way of every message: a take is decided here
at once. Who uses up more than a quarter of such a limit on one node is made known to Redis a
moment later, and what comes back counts on this node too. So a user with connections to n nodes
gets at most one limit and n quarters of it, and those who keep well below it cost nothing.

Away, or slow to answer, Redis is not asked for a second: then each node counts for itself.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from domain.clock import Clock
from fanout.limits import Limit, LocalRateLimiter
from fanout.redis.servers import AWAY, RedisServers

log = structlog.get_logger(__name__)

WITHIN = 0.05
"""Seconds that an answer is waited for, unless the constructor is told otherwise."""

PAUSE = 1.0
"""Seconds for which Redis is not asked after it did not answer."""

CALM = 5.0
"""Seconds without an error after which limits count as shared again: one that comes and goes is
told of once."""

SETTLE_EVERY = 0.1
"""Seconds for which takes of a flood are gathered."""

SHARED_FROM = 60.0
"""Limits over at least so many seconds are decided by Redis."""

_GCRA = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local takes, decides = tonumber(ARGV[3]), ARGV[4] == '1'
local due = math.max(tonumber(redis.call('GET', KEYS[1])) or now, now)
if decides and due - now > tolerance then
    return string.format('%.0f', due - now - tolerance)
end
due = math.max(due + interval * takes, now)
if due > now then
    redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000))
else
    redis.call('DEL', KEYS[1])
end
return string.format('%.0f', now - due)
"""
"""GCRA in microseconds of the server's clock. Refused: how long until there is one, above 0.
Taken: minus the time at which everything taken is paid for, 0 or below."""


class RedisRateLimiter:
    """Counts on all nodes together."""

    def __init__(
        self,
        servers: RedisServers,
        local: LocalRateLimiter,
        limits: Mapping[str, Limit | None],
        clock: Clock,
        *,
        default: Limit | None = None,
        prefix: str = "parley",
        within: float = WITHIN,
    ) -> None:
        """`local` counts by the same `limits` and `default`. `servers` stays the caller's. `within`:
        seconds that an answer is waited for.
        """
        self._local = local
        self._limits = dict(limits)
        self._default = default
        self._clock = clock
        self._prefix = prefix
        self._within = within
        self._script: Any = servers.client.register_script(_GCRA)
        self._pause_until = 0.0
        self._failed_at: float | None = None
        """When Redis last did not answer, while that is told as going on."""
        self._pending: Counter[tuple[str, str]] = Counter()
        self._settling: asyncio.Task[None] | None = None
        self.asked = 0
        """How often Redis was asked."""
        self.alone = 0
        """How often this node counted for itself because Redis was out of reach."""

    async def take(self, bucket: str, key: str) -> float:
        """Take one from a bucket: 0 if there was one, else the seconds until there will be."""
        limit = self._limits.get(bucket, self._default)
        # A node that has given out all it may give alone needs not ask.
        wait = await self._local.take(bucket, key)
        if wait > 0 or limit is None:
            return wait
        if limit[1] < SHARED_FROM:
            if self._local.debt(bucket, key) > limit[1] / 4:
                self._settle_soon(bucket, key, 1)
            return 0.0
        answer = await self._ask(bucket, key, limit, takes=1, decides=True)
        if answer is None or answer <= 0:
            return 0.0
        await self._local.give_back(bucket, key)
        return answer

    async def give_back(self, bucket: str, key: str) -> None:
        """Undo one `take` that got something."""
        await self._local.give_back(bucket, key)
        limit = self._limits.get(bucket, self._default)
        if limit is not None and limit[1] >= SHARED_FROM:
            await self._ask(bucket, key, limit, takes=-1, decides=False)

    async def close(self) -> None:
        """Settle no more."""
        if self._settling is not None:
            self._settling.cancel()
            await asyncio.gather(self._settling, return_exceptions=True)

    # -- Redis --------------------------------------------------------------------------------

    async def _ask(
        self, bucket: str, key: str, limit: Limit, *, takes: int, decides: bool
    ) -> float | None:
        """The script's answer in seconds; None if Redis does not answer in time."""
        if self._clock.monotonic() < self._pause_until:
            self.alone += 1
            return None
        self.asked += 1
        try:
            async with asyncio.timeout(self._within):
                answer = await self._script(
                    keys=[self._name(bucket, key)], args=_args(limit, takes, decides=decides)
                )
        except AWAY as error:
            self._give_up(error)
            return None
        self._answered()
        return int(answer) / 1e6

    def _give_up(self, error: Exception) -> None:
        self.alone += 1
        now = self._clock.monotonic()
        self._pause_until = now + PAUSE
        if self._failed_at is None:
            log.warning("limits_not_shared", error=str(error) or type(error).__name__)
        self._failed_at = now

    def _answered(self) -> None:
        if self._failed_at is not None and self._clock.monotonic() - self._failed_at >= CALM:
            self._failed_at = None
            log.info("limits_shared")

    def _name(self, bucket: str, key: str) -> str:
        return f"{self._prefix}:limit:{bucket}:{key}"

    # -- settling -----------------------------------------------------------------------------

    def _settle_soon(self, bucket: str, key: str, takes: int) -> None:
        self._pending[bucket, key] += takes
        if self._settling is None:
            self._settling = asyncio.get_running_loop().create_task(self._settle_all())

    async def _settle_all(self) -> None:
        try:
            while self._pending:
                await asyncio.sleep(SETTLE_EVERY)
                pending, self._pending = list(self._pending.items()), Counter()
                if self._clock.monotonic() < self._pause_until:
                    continue
                await self._settle(pending)
        except AWAY as error:
            self._give_up(error)
        finally:
            self._settling = None

    async def _settle(self, taken: Sequence[tuple[tuple[str, str], int]]) -> None:
        """Tell Redis what was taken here; learn what was taken everywhere."""
        # One after the other: they are few as a rule, and nobody waits for them.
        for (bucket, key), takes in taken:
            limit = self._limits.get(bucket, self._default)
            assert limit is not None
            answer = await self._script(
                keys=[self._name(bucket, key)], args=_args(limit, takes, decides=False)
            )
            self._answered()
            self._local.owe(bucket, key, -int(answer) / 1e6)


def _args(limit: Limit, takes: int, *, decides: bool) -> list[str]:
    count, period = limit
    interval = period / count
    return [
        f"{interval * 1e6:.0f}",
        # Rounded up by as much as rounding the interval may add up to.
        f"{(period - interval) * 1e6 + count:.0f}",
        str(takes),
        "1" if decides else "0",
    ]
