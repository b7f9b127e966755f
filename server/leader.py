"""Which node does what only one may do: trimming logs, sweeping, clearing up."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from domain.clock import Clock
from domain.errors import ParleyError
from domain.ids import new_id
from store.leases import Held, LeaseRepository

log = structlog.get_logger(__name__)

NAME = "leader"
SECONDS = 60.0
RENEWED = 20.0


class Leader:
    """Holds the leader's lease if no other node does."""

    def __init__(self, leases: LeaseRepository, clock: Clock) -> None:
        self._leases = leases
        self._clock = clock
        self.node = new_id()
        self._held: Held | None = None

    @property
    def leads(self) -> bool:
        """Whether this node, and no other, may do such work now."""
        return self._held is not None and self._clock.monotonic() < self._held.until

    def only(self, work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """`work`, done only while this node leads."""

        async def run() -> None:
            if self.leads:
                await work()

        return run

    async def renew(self) -> None:
        """Take the lease, or keep it.

        Raises:
            Unavailable: the store is out of reach. What is held is held until it ends.
        """
        before = self._held
        self._held = await self._leases.acquire(NAME, self.node, SECONDS)
        if self._held is not None and before is None:
            log.info("leads", node=self.node, fence=self._held.fence)
        elif self._held is None and before is not None:
            log.warning("leads_no_longer", node=self.node)

    async def run(self) -> None:
        """Do so for as long as the node runs."""
        failing = False
        while True:
            try:
                await self.renew()
                failing = False
            except ParleyError as error:
                if not failing:
                    log.warning("lease_not_renewed", code=error.code)
                failing = True
            await asyncio.sleep(RENEWED)

    async def stop(self) -> None:
        """Let another node lead."""
        held, self._held = self._held, None
        if held is not None:
            try:
                await self._leases.release(held)
            except ParleyError as error:
                log.warning("lease_not_released", code=error.code)
