"""Reactions to messages. Their counts are decided where they cannot race: with the append."""

import asyncio
import sys
from collections.abc import Sequence
from weakref import WeakValueDictionary

from actions.ledger import Ledger, Must
from actions.messaging.memberships import Memberships
from actions.messaging.messages import Messages
from actions.messaging.writing import may_write, no_message
from domain.clock import Clock, timestamp
from domain.errors import TooLarge, Unavailable
from domain.messaging.reactions import (
    MAX_KINDS,
    REACTION_ADDED,
    REACTION_REMOVED,
    Reaction,
    ReactionGroup,
    canonical,
    stream_of,
)
from domain.pages import Page, cut, resume
from domain.principals import Principal
from domain.streams import StreamName
from store.engine import Change, Guard, GuardFailed, NewEvent
from store.messaging.conversations import is_member
from store.messaging.messages import is_in
from store.messaging.reactions import (
    ReactionRepository,
    add,
    count,
    counted,
    is_new,
    is_there,
    remove,
)

ATTEMPTS = 50
"""Tries to count a reaction that other nodes count others beside."""


class Reactions:
    """What can be done with reactions."""

    def __init__(
        self,
        repository: ReactionRepository,
        messages: Messages,
        memberships: Memberships,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._messages = messages
        self._memberships = memberships
        self._ledger = ledger
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def add(self, principal: Principal, message: str, emoji: str) -> Reaction:
        """React to a message. Whoever has done so already has done so.

        Raises:
            Invalid: not one emoji or shortcode.
            NotFound: there is no such message for the caller, or it was deleted.
            Forbidden: the other one of a direct conversation has blocked the caller.
            TooLarge: the message has `MAX_KINDS` kinds of reactions, and this is another.
        """
        return await self._change(principal, message, canonical(emoji), adds=True)

    async def remove(self, principal: Principal, message: str, emoji: str) -> Reaction:
        """Take a reaction back. Whoever has none has none.

        Raises:
            Invalid: not one emoji or shortcode.
            NotFound: there is no such message for the caller, or it was deleted.
        """
        return await self._change(principal, message, canonical(emoji), adds=False)

    async def _change(
        self, principal: Principal, message: str, emoji: str, *, adds: bool
    ) -> Reaction:
        # One at a time on this node: the guards are then met the first time, unless another node
        # counts too.
        lock = self._locks.get(message)
        if lock is None:
            lock = self._locks[message] = asyncio.Lock()
        async with lock:
            for attempt in range(ATTEMPTS):
                found = await self._try(principal, message, emoji, adds=adds)
                if found is not None:
                    return found
                await asyncio.sleep(min(0.001 * attempt, 0.02))
        raise Unavailable("Too many are reacting to this message at once.")

    async def _try(
        self, principal: Principal, message: str, emoji: str, *, adds: bool
    ) -> Reaction | None:
        """Add or remove a reaction; None if the counts were changed by somebody else meanwhile."""
        org, user = principal.org, principal.user
        doc, facts = await self._messages.find(principal, message)
        if doc["deleted_at"]:
            raise no_message()
        conversation: str = doc["conversation"]
        counts, version = await self._repository.counted(org, message)
        there = await self._repository.exists(org, message, emoji, user)
        changed = dict(counts)
        result: Reaction = {"message": message, "emoji": emoji, "user": user, "counts": changed}
        if there == adds:
            return result
        at = timestamp(self._clock.now())
        change: Change
        if adds:
            if emoji not in counts and len(counts) >= MAX_KINDS:
                raise TooLarge(f"A message may have {MAX_KINDS} kinds of reactions.")
            changed[emoji] = counts.get(emoji, 0) + 1
            change = add(message, conversation, emoji, user, at)
            mine = is_new(message, emoji, user)
        else:
            if emoji not in counts:
                return None
            changed[emoji] = counts[emoji] - 1
            if not changed[emoji]:
                del changed[emoji]
            change = remove(message, emoji, user)
            mine = is_there(message, emoji, user)
        allowed = (
            may_write(facts, conversation, user, no_message)
            if adds
            else [Must(is_member(conversation, user), no_message)]
        )
        guards: Sequence[Guard | Must] = (
            *allowed,
            Must(is_in(message, conversation, deleted_at=None), no_message),
            mine,
            counted(message, version),
        )
        kind = REACTION_ADDED if adds else REACTION_REMOVED
        try:
            await self._ledger.append(
                org,
                stream_of(conversation),
                principal.actor,
                at,
                (NewEvent(kind.name, {**result}),),
                (change, count(message, conversation, changed, version + 1)),
                guards,
            )
        except GuardFailed:
            return None
        return result

    async def page(
        self, principal: Principal, message: str, *, cursor: str | None, limit: int
    ) -> Page[ReactionGroup]:
        """Who has reacted to a message, by emoji: `limit` reactions per page. A page may end in
        the middle of an emoji's users; the next one goes on there. A message deleted for everyone
        has none any more.

        Raises:
            NotFound: there is no such message for the caller.
        """
        doc, _ = await self._messages.find(principal, message)
        if doc["deleted_at"]:
            return {"items": [], "next": None}
        after = resume(cursor, "emoji", "user")
        counts, _ = await self._repository.counted(principal.org, message)
        found = await self._repository.page(principal.org, message, after=after, limit=limit + 1)
        page, next = cut(found, limit, lambda row: {"emoji": row["emoji"], "user": row["user"]})
        groups: dict[str, ReactionGroup] = {}
        for doc in page:
            emoji = doc["emoji"]
            group = groups.get(emoji)
            if group is None:
                group = groups[emoji] = {
                    "emoji": emoji,
                    "count": counts.get(emoji, 0),
                    "users": [],
                }
            group["users"].append(doc["user"])
        return {"items": list(groups.values()), "next": next}

    # -- the rules of streams -----------------------------------------------------------------

    async def may_read(self, principal: Principal, name: StreamName) -> bool:
        """Whether the caller may read `reactions/<conversation>`: as its messages."""
        return await self._memberships.reads(principal, name.id)

    async def own(self, principal: Principal) -> Sequence[str]:
        """What a connection to the reactions namespace joins: all the caller's conversations."""
        found = await self._memberships.of_user(principal.org, principal.user)
        return [sys.intern(stream_of(each)) for each in found]
