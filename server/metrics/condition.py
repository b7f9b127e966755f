"""What operators watch and a scrape cannot ask for by itself: readiness, sizes, the last backup."""

import platform
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily

from server.health import Health
from server.metrics.metrics import Numbers
from server.version import VERSION
from store.engine import Engine

READY_EVERY = 10.0
"""Seconds between two looks at readiness: less than what a scraper leaves between its own."""

SIZE_EVERY = 60.0
"""Seconds between two looks at the store's size."""

BACKUP_MARK = "last_backup"
"""The file in the data directory whose time is that of the last backup. `python -m server backup`
touches it; whoever copies MongoDB with its own tools does so too.
"""


class BuildInfo:
    """A number that is always 1: its labels are what counts."""

    def collect(self) -> Sequence[GaugeMetricFamily]:
        """One family."""
        family = GaugeMetricFamily(
            "parley_build_info", "What runs: always 1.", labels=("version", "python")
        )
        family.add_metric((VERSION, platform.python_version()), 1)
        return (family,)


class Condition:
    """The last known condition of a node and of its store."""

    def __init__(self, engine: Engine, health: Health, data_dir: Path) -> None:
        self._engine = engine
        self._health = health
        self._mark = data_dir / BACKUP_MARK
        self._ready: dict[str, float] = {}
        self._size: dict[str, float] = {}

    async def look_at_readiness(self) -> None:
        """Ask every part whether it works."""
        self._ready = {
            part: float(state == "ok") for part, state in (await self._health.parts()).items()
        }

    async def look_at_size(self) -> None:
        """Ask the store how large it is."""
        self._size = {"database": float(await self._engine.size())}

    def _last_backup(self) -> dict[str, float]:
        try:
            return {"done": self._mark.stat().st_mtime}
        except OSError:
            return {}

    def numbers(self) -> Sequence[Numbers]:
        """As metrics."""
        return (
            Numbers(
                "parley_ready",
                "Whether a part works, as `/health/ready` says: 1 or 0. None before the first look.",
                lambda: self._ready,
                label="check",
            ),
            Numbers(
                "parley_store_queue", "Writes that wait for the store.", lambda: self._engine.queued
            ),
            Numbers(
                "parley_store_size_bytes",
                "Space that the store takes, uploads on disk aside. None before the first look.",
                lambda: self._size,
            ),
            Numbers(
                "parley_last_backup_timestamp_seconds",
                "When the last backup was made, in Unix time. None if there was none.",
                self._last_backup,
                label="state",
            ),
        )
