"""How long events stay in the logs. What they led to stays: history is state, not log."""

import structlog

from domain.clock import Clock, timestamp
from store.engine import Engine, Is
from store.messaging.receipts import RECEIPTS

log = structlog.get_logger(__name__)


class Retention:
    """Drops what is too old or too much."""

    def __init__(self, engine: Engine, clock: Clock, *, keep: int, age: float) -> None:
        """
        Args:
            keep: newest events of each stream that stay, whatever their age.
            age: seconds after which events go, and the record of how receipts moved.
        """
        self._engine = engine
        self._clock = clock
        self._keep = keep
        self._age = age

    async def run(self) -> int:
        """Trim all logs once; returns how many events were dropped."""
        before = timestamp(self._clock.now() - self._age)
        dropped = await self._engine.trim(keep=self._keep, before=before)
        receipts = await self._engine.delete_any_org(RECEIPTS, {"at": Is("<", before)})
        if receipts:
            log.info("receipts_trimmed", moves=receipts)
        if dropped:
            log.info("events_trimmed", events=dropped)
        return dropped
