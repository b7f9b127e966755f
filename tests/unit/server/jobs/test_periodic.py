"""Work that is done again and again: a failure does not end it, and is told in few words."""

import asyncio

from structlog.testing import capture_logs

from domain.errors import Unavailable
from server.jobs.periodic import end_all, every
from tests.support.counting import until


async def told(*failures: Exception) -> list[str]:
    """What is logged while work fails in these ways, one after the other, and then succeeds."""
    coming = iter(failures)
    successes = 0

    async def work() -> None:
        nonlocal successes
        if (error := next(coming, None)) is not None:
            raise error
        successes += 1

    with capture_logs() as logs:
        task = asyncio.create_task(every(0.001, "sweep", work))
        await until(lambda: successes > 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert all(each["work"] == "sweep" for each in logs)
    return [each["event"] for each in logs]


async def test_an_outage_is_told_once_and_so_is_its_end() -> None:
    away = [Unavailable() for _ in range(20)]
    assert await told(*away) == ["periodic_work_delayed", "periodic_work_resumed"]


async def test_a_defect_is_told_once() -> None:
    defects = [KeyError("x") for _ in range(20)]
    assert await told(*defects) == ["periodic_work_failed", "periodic_work_resumed"]


async def test_work_that_succeeds_says_nothing() -> None:
    assert await told() == []


async def test_a_service_that_forgets_a_cancellation_ends_all_the_same() -> None:
    cancelled = 0

    async def service() -> None:
        nonlocal cancelled
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled == 2:
                    raise

    task = asyncio.create_task(service())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end_all([task])
    assert task.cancelled()
