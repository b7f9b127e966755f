"""How often one may fail before one has to wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from domain.errors import ParleyError, RateLimited
from fanout.limits import RateLimiter


@asynccontextmanager
async def counting_failures(
    limiter: RateLimiter, failure: type[ParleyError], bucket: str, key: str, message: str
) -> AsyncIterator[None]:
    """Count how often what is done inside ends with `failure`. Taken beforehand and given back
    otherwise, so that many at once do not slip through.

    Raises:
        RateLimited: it did so too often; with `message`, and nothing inside was done.
    """
    wait = await limiter.take(bucket, key)
    if wait > 0:
        raise RateLimited(message, retry_after=wait)
    failed = False
    try:
        yield
    except failure:
        failed = True
        raise
    finally:
        if not failed:
            await limiter.give_back(bucket, key)
