"""Work that one node does for all: trimming logs, sweeping, clearing up."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from domain.clock import Clock
from domain.errors import ParleyError
from domain.ids import new_id
from server.jobs.periodic import end_all
from store.cluster.leases import Held, LeaseRepository

log = structlog.get_logger(__name__)

SECONDS = 60.0
RENEWED = 20.0

RESTS = 0.9
"""Parts of its interval for which a job that is done is nobody's turn."""


class SharedJobs:
    """Does a job when it is due and no other node does it, or did a while ago.

    Each job has a lease of its own, taken when its turn comes, so different jobs may be done by
    different nodes at the same time. Every node has its turns, and whoever comes first does it:
    when a node dies, the others' turns go on.

    Work is cancelled when its lease is lost. What it had under way then, or a node that stood still
    and does not know it yet, may still write while another one works: so all such work must be safe
    to be done twice at the same time, or carry `Held.fence` in what it writes (`store.cluster.leases`).
    """

    def __init__(
        self,
        leases: LeaseRepository,
        clock: Clock,
        *,
        seconds: float = SECONDS,
        renewed: float = RENEWED,
    ) -> None:
        """`seconds`: life of a lease. `renewed`: after how many it is renewed while work goes on."""
        self._leases = leases
        self._clock = clock
        self._seconds = seconds
        self._renewed = renewed
        self.node = new_id()

    def one(
        self, name: str, every: float, work: Callable[[], Awaitable[object]]
    ) -> Callable[[], Awaitable[None]]:
        """`work`, done if it is this node's turn. `every`: seconds after which each node comes to
        it.

        What is returned raises what the work raises; then another node may try at once.
        """

        async def run() -> None:
            held = await self._leases.acquire(f"job.{name}", self.node, self._seconds)
            if held is not None:
                await self._hold(held, every * RESTS, work)

        return run

    async def _hold(self, held: Held, rest: float, work: Callable[[], Awaitable[object]]) -> None:
        task = asyncio.ensure_future(work())
        done = False
        try:
            while not (await asyncio.wait((task,), timeout=self._renewed))[0]:
                kept = await self._kept(held)
                if kept is None:
                    log.warning("job_lost", job=held.name, node=self.node, fence=held.fence)
                    return
                held = kept
            await task
            done = True
        finally:
            await end_all((task,))
            try:
                await self._leases.release(held, rest if done else 0.0)
            except ParleyError as error:
                log.warning("lease_not_released", job=held.name, code=error.code)

    async def _kept(self, held: Held) -> Held | None:
        """Renew a lease; as it is held from now on, or None if this node has lost it."""
        try:
            again = await self._leases.acquire(held.name, held.holder, self._seconds)
        except ParleyError:
            return held if self._clock.monotonic() + self._renewed < held.until else None
        return again if again is not None and again.fence == held.fence else None
