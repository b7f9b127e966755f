"""Work that is done again and again while a node runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from domain.errors import ParleyError

log = structlog.get_logger(__name__)


async def every(seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` every so often until cancelled; a failure is logged and the next time comes.

    The first time comes after a random part of the interval, so that nodes started together do
    not work together.
    """
    await asyncio.sleep(seconds * random.random())
    while True:
        try:
            await work()
        except ParleyError as error:
            log.warning("periodic_work_delayed", work=name, code=error.code)
        except Exception:
            log.exception("periodic_work_failed", work=name)
        await asyncio.sleep(seconds)
