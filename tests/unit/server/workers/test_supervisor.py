"""The supervisor's patience with workers that crash."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from types import SimpleNamespace

import pytest

from config.settings import Settings
from server.workers import supervisor as workers
from server.workers.supervisor import FIRST_DELAY, LONGEST_DELAY, SETTLED, Supervisor


class Crashing:
    """A worker that serves for some time, each time another, and ends."""

    def __init__(self, clock: "Clock", served: list[float]) -> None:
        self.number, self.pid, self.process = 1, 0, object()
        self._clock, self._served = clock, served

    async def start(self, arguments: list[str]) -> object:
        return object()

    async def ready(self) -> bool:
        return True

    async def ended(self) -> int:
        self._clock.now += self._served.pop(0)
        return 1

    def terminate(self) -> None:
        raise AssertionError("it is not running")


class Clock:
    """In place of the supervisor's, and of its waiting."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waited: list[float] = []

    def monotonic(self) -> float:
        return self.now


async def pauses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, served: list[float]
) -> list[float]:
    """The seconds between a worker's end and its next start; it serves for so long each time."""
    clock, count = Clock(), len(served)
    supervisor = Supervisor(Settings(_env_file=None), 0, tmp_path)

    async def wait_for(waiting: Awaitable[object], timeout: float) -> object:
        clock.waited.append(timeout)
        if len(clock.waited) == count:
            supervisor._stop.set()
        return await asyncio.wait_for(waiting, 0.01)

    patched = SimpleNamespace(**{**vars(asyncio), "wait_for": wait_for})
    monkeypatch.setattr(workers, "asyncio", patched)
    monkeypatch.setattr(workers, "time", clock)
    await supervisor._keep(Crashing(clock, served))  # type: ignore[arg-type]
    return clock.waited


async def test_a_worker_that_crashes_again_and_again_is_started_ever_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waited = await pauses(monkeypatch, tmp_path, [SETTLED - 1.0] * 12)
    assert len(waited) == 12
    for crashes, pause in enumerate(waited):
        longest = min(LONGEST_DELAY, FIRST_DELAY * 2**crashes)
        assert longest / 2 <= pause <= longest


async def test_crashes_before_a_long_service_no_longer_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waited = await pauses(monkeypatch, tmp_path, [*[0.0] * 6, SETTLED + 1.0, 0.0])
    assert waited[5] >= 4.0
    assert waited[6] <= FIRST_DELAY
    assert waited[7] <= 2 * FIRST_DELAY
