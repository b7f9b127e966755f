"""An end to guessing: how often logging in to an account failed in a row.

After `MOST_IN_A_ROW` failures an account takes a password only from networks where it was used
before and that have not themselves failed so often since. So guessing ends, and nobody keeps an
owner out who comes from home. A login from such a network, or a reset by an administrator, clears
it. Addresses without an account are counted alike, so that nothing tells them apart.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from domain.accounts.accounts import GUESSES_KEPT, MOST_IN_A_ROW
from domain.clock import Clock, timestamp
from domain.errors import Unauthenticated
from store.accounts.guesses import GuessRepository

log = structlog.get_logger(__name__)

SHUT = (
    "Too many passwords were tried. This account can be logged in to only from a network where it "
    "was used before, or with a reset link from an administrator."
)


class Guesses:
    """Counts failed logins by account, and by account and network."""

    def __init__(self, repository: GuessRepository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock

    async def check(self, account: str, network: str, familiar: bool) -> None:
        """Return if a password may be tried. `familiar`: this network is known to be one of the
        account's own.

        Raises:
            Unauthenticated: too many were, and this network is not one of the account's own.
        """
        if await self._repository.failures(account) < MOST_IN_A_ROW:
            return
        there = await self._repository.network(account, network)
        failures, ok_at = (there["failures"], there["ok_at"]) if there is not None else (0, None)
        if not (familiar or ok_at is not None) or failures >= MOST_IN_A_ROW:
            raise Unauthenticated(SHUT)

    async def succeeded(self, account: str, network: str) -> None:
        """The account was used from this network, which is one of its own from now on."""
        await self._repository.succeeded(account, network, timestamp(self._clock.now()))

    @asynccontextmanager
    async def counting(self, account: str, network: str) -> AsyncIterator[None]:
        """Count what is done inside as a failure, unless it succeeds or says nothing of the
        password. Counted beforehand, so that many at once do not slip through.
        """
        at = timestamp(self._clock.now())
        count = await self._repository.failed(account, network, at)
        try:
            yield
        except Unauthenticated:
            if count == MOST_IN_A_ROW:
                log.warning("account_shut", account=account, network=network)
            raise
        except BaseException:
            await self._repository.take_back(account, network)
            raise
        await self._repository.succeeded(account, network, at)

    async def clear(self, account: str) -> None:
        """Begin anew: an administrator vouches for the account."""
        await self._repository.clear(account)

    async def trim(self) -> None:
        """Forget accounts and networks of which nothing was heard for long."""
        await self._repository.trim(timestamp(self._clock.now() - GUESSES_KEPT))
