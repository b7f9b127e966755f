"""Room in a user's list of conversations, also for those who come at the same moment.

Each conversation counts its own members, so that nothing counts those of a user in the append. Who
is counted and then put in is therefore counted as on the way meanwhile; but not where there is
plenty of room, since that would cost each newcomer two writes.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from domain.clock import Clock, timestamp
from domain.messaging import conversations as limits
from store.messaging.conversations import ConversationRepository
from store.messaging.places import PlaceRepository

NEAR = 500
"""Free places from which on those are counted who are on the way. So many are never between being
counted and being there: the store refuses them before."""

LOST_AFTER = 60.0
"""Seconds after which one on the way is taken to have been cut off by a crash."""


class Places:
    """Holds places in lists."""

    def __init__(
        self, conversations: ConversationRepository, places: PlaceRepository, clock: Clock
    ) -> None:
        self._conversations = conversations
        self._places = places
        self._clock = clock

    @asynccontextmanager
    async def held(self, org: str, users: Sequence[str]) -> AsyncIterator[str | None]:
        """Hold a place in the list of each user while something is put into it; gives a user who
        is in as many conversations as one may be in, if there is one.
        """
        most = limits.MAX_CONVERSATIONS
        now = self._clock.now()
        held: list[str] = []
        crowded: str | None = None
        try:
            for user in await self._conversations.crowded(org, users, max(most - NEAR, 0)):
                at, lost = timestamp(now), timestamp(now - LOST_AFTER)
                coming = await self._places.take(org, user, at, lost)
                held.append(user)
                # Counted after it set out: of two at the same moment each sees the other, on the
                # way or arrived.
                if await self._conversations.crowded(org, [user], most - coming + 1):
                    crowded = user
                    break
            yield crowded
        finally:
            for user in held:
                await self._places.give_back(org, user)
