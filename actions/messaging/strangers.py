"""How often somebody is put into conversations by people this one has nothing to do with.

Whom a user knows is for the user to say: who is among the user's contacts, and who is in a direct
conversation with the user which the user has opened or written in. That both are in the same group
or channel says nothing: a stranger could have put the user into it. Administrators are no strangers.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from domain.errors import RateLimited, TooLarge
from domain.messaging.conversations import MAX_BY_STRANGERS
from domain.principals import Principal, Role
from fanout.limits import RateLimiter
from store.accounts.contacts import ContactRepository
from store.engine import Document
from store.messaging.conversations import ConversationRepository
from store.messaging.messages import MessageRepository, Range

BUCKET = "member.added"

LOOKED_AT = 50
"""Newest messages of a direct conversation among which one of the user's makes it the user's too."""

AT_ONCE = 50
"""Users who are looked at together."""


class Strangers:
    """Bounds what strangers can do to a user's list of conversations."""

    def __init__(
        self,
        contacts: ContactRepository,
        conversations: ConversationRepository,
        messages: MessageRepository,
        limiter: RateLimiter,
    ) -> None:
        self._contacts = contacts
        self._conversations = conversations
        self._messages = messages
        self._limiter = limiter

    @asynccontextmanager
    async def adding(self, principal: Principal, users: Sequence[str]) -> AsyncIterator[None]:
        """Put users into a conversation inside; what fails there does not count.

        Raises:
            TooLarge: one does not know the caller, and is in `MAX_BY_STRANGERS` conversations.
            RateLimited: one was put into conversations by strangers too often lately.
        """
        strangers = await self._strangers(principal, users)
        crowded = await self._conversations.crowded(principal.org, strangers, MAX_BY_STRANGERS)
        if crowded:
            raise TooLarge(
                f"User {crowded[0]} is in too many conversations to be added by somebody unknown.",
                data={"limit": MAX_BY_STRANGERS, "user": crowded[0]},
            )
        taken: list[str] = []
        done = False
        try:
            for start in range(0, len(strangers), AT_ONCE):
                batch = strangers[start : start + AT_ONCE]
                waits = await asyncio.gather(*(self._limiter.take(BUCKET, each) for each in batch))
                taken += [each for each, wait in zip(batch, waits, strict=True) if not wait]
                if wait := max(waits):
                    user = batch[waits.index(wait)]
                    raise RateLimited(
                        f"User {user} was added to many conversations lately. They may be added by "
                        "those among their contacts.",
                        retry_after=wait,
                    )
            yield
            done = True
        finally:
            if not done:
                await asyncio.gather(*(self._limiter.give_back(BUCKET, each) for each in taken))

    async def _strangers(self, principal: Principal, users: Sequence[str]) -> list[str]:
        """Those of the users who do not know the caller."""
        others = [each for each in dict.fromkeys(users) if each != principal.user]
        if not others or principal.role.at_least(Role.ADMIN):
            return []
        org, user = principal.org, principal.user
        friends = await self._contacts.who_have(org, user, others)
        others = [each for each in others if each not in friends]
        directs = await self._conversations.directs(org, user, others)
        strangers: list[str] = []
        for start in range(0, len(others), AT_ONCE):
            batch = others[start : start + AT_ONCE]
            speaks = await asyncio.gather(
                *(self._speaks(org, directs.get(each), each) for each in batch)
            )
            strangers += [each for each, known in zip(batch, speaks, strict=True) if not known]
        return strangers

    async def _speaks(self, org: str, direct: Document | None, user: str) -> bool:
        """Whether a user has opened a direct conversation, or written in it."""
        if direct is None or direct["created_by"] == user:
            return direct is not None
        page = await self._messages.page(org, Range(direct["id"]), newest=True, limit=LOOKED_AT)
        return any(message["sender"] == user for message in page)
