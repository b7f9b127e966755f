"""Work that is done again and again while a node runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any

import structlog

from domain.errors import ParleyError

log = structlog.get_logger(__name__)

CANCEL_AGAIN = 0.5
"""Seconds after which what has not ended is cancelled once more."""

TOLD_EVERY = 600.0
"""Seconds between two log entries about work that fails each time."""


async def every(seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` every so often until cancelled; a failure is logged and the next time comes. Of
    failures in a row the first is logged, then one in ten minutes.

    The first time comes after a random part of the interval, so that nodes started together do
    not work together.
    """
    clock = asyncio.get_running_loop().time
    told_at: float | None = None
    await asyncio.sleep(seconds * random.random())
    while True:
        try:
            await work()
            if told_at is not None:
                log.info("periodic_work_resumed", work=name)
            told_at = None
        except Exception as error:
            if told_at is None or clock() - told_at >= TOLD_EVERY:
                told_at = clock()
                if isinstance(error, ParleyError):
                    log.warning("periodic_work_delayed", work=name, code=error.code)
                else:
                    log.exception("periodic_work_failed", work=name)
        await asyncio.sleep(seconds)


async def at_once_and_every(
    seconds: float, name: str, work: Callable[[], Awaitable[object]]
) -> None:
    """As `every`, and once before: a failure of that is what the next time tells."""
    with suppress(ParleyError):
        await work()
    await every(seconds, name, work)


async def end_all(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancel what runs for as long as the node does, and wait for the end of it all. Asked for again
    and again: until Python 3.12, `asyncio.wait_for` forgets a cancellation that comes in the moment
    it returns, and the store's client uses it for each command.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
