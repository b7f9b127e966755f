"""Work that is done again and again while a node runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from domain.errors import ParleyError

log = structlog.get_logger(__name__)


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
