"""Who is in which conversation: the rules of the streams, and what may be kept in memory of it.

Two things are kept. What never changes of a conversation (whose it is, its kind, the two of a
direct one) saves a read with every message. A user's list of conversations saves one with every
connect; it is kept only while the user is connected here and orders to the user are heard, dropped
whenever the user comes or goes, and forgotten after a short while in any case.
"""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from domain.clock import Clock
from domain.errors import NotFound
from domain.messaging.conversations import Kind, personal_stream
from domain.principals import Principal
from domain.streams import StreamName
from fanout.user_control import UserControl
from store.engine import Document, Engine
from store.gathered import Gathered
from store.messaging.conversations import ConversationRepository, key_of

MAX_FACTS = 50_000
"""Conversations of which the unchanging part is kept."""

MAX_LISTS = 5_000
"""Users whose list of conversations is kept."""

MAX_LISTED = 500_000
"""Conversations in all lists together."""

LIST_TTL = 15.0
"""Seconds a list is kept."""

READ_AT_ONCE = 200
"""Users whose lists are read together, about."""

_DROP = "memberships.drop"


class Facts(NamedTuple):
    """What never changes of a conversation."""

    org: str
    kind: Kind
    pair: tuple[str, str] | None
    """The two of a direct one."""

    def other(self, user: str) -> str | None:
        """The other one of a direct conversation."""
        if self.pair is None:
            return None
        return self.pair[1] if self.pair[0] == user else self.pair[0]


class _List(NamedTuple):
    org: str
    conversations: tuple[str, ...]
    personal: bool
    """Whether the user's own stream has begun."""
    until: float


class Memberships:
    """Answers who is in which conversation."""

    def __init__(
        self,
        engine: Engine,
        conversations: ConversationRepository,
        control: UserControl,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._conversations = conversations
        self._control = control
        self._clock = clock
        self._facts: OrderedDict[str, Facts] = OrderedDict()
        self._lists: OrderedDict[str, _List] = OrderedDict()
        self._listed = 0
        self._loading: dict[str, object] = {}
        self._reading = Gathered(self._read, READ_AT_ONCE)
        self._checking = Gathered(conversations.members_by_key)
        control.on(_DROP, self._drop_here)
        control.on_missed.append(self.forget)

    # -- conversations ------------------------------------------------------------------------

    def is_of(self, org: str, conversation: str, one: str, other: str) -> bool:
        """Whether a conversation is known here as the direct one of two users."""
        facts = self.known(org, conversation)
        return facts is not None and facts.other(one) == other and one in (facts.pair or ())

    def known(self, org: str, conversation: str) -> Facts | None:
        """What is in memory of a conversation."""
        facts = self._facts.get(conversation)
        return facts if facts is not None and facts.org == org else None

    async def facts(self, org: str, conversation: str) -> Facts:
        """What never changes of a conversation.

        Raises:
            NotFound: the organization has no such conversation.
        """
        facts = self.known(org, conversation)
        if facts is not None:
            return facts
        doc = await self._conversations.get(org, conversation)
        if doc is None:
            raise NotFound("There is no such conversation.")
        kind = Kind(doc["kind"])
        pair: tuple[str, str] | None = None
        if kind is Kind.DIRECT:
            one, other = [each["user"] for each in await self._members(org, conversation)]
            pair = (one, other)
        facts = self._facts[conversation] = Facts(org, kind, pair)
        if len(self._facts) > MAX_FACTS:
            self._facts.popitem(last=False)
        return facts

    async def _members(self, org: str, conversation: str) -> Sequence[Document]:
        return await self._conversations.members(org, conversation)

    async def is_member(self, org: str, conversation: str, user: str) -> bool:
        """Whether a user is in a conversation now."""
        return await self._conversations.member(org, conversation, user) is not None

    async def require(self, principal: Principal, conversation: str) -> Facts:
        """What never changes of a conversation the caller is in.

        Raises:
            NotFound: the caller is in no such conversation.
        """
        facts = await self.facts(principal.org, conversation)
        if not await self.is_member(principal.org, conversation, principal.user):
            raise NotFound("There is no such conversation.")
        return facts

    async def is_there(self, org: str, conversation: str) -> bool:
        """Whether a conversation is not deleted, as of the store."""
        return await self._conversations.get(org, conversation) is not None

    def forget_facts(self, conversation: str) -> None:
        """A conversation is gone: keep nothing of it on this node."""
        self._facts.pop(conversation, None)

    # -- users --------------------------------------------------------------------------------

    async def of_user(self, org: str, user: str) -> Sequence[str]:
        """The conversations a user is in."""
        return (await self._list(org, user)).conversations

    async def listed(self, org: str, user: str) -> Sequence[str]:
        """As `of_user`, with all that was answered before the call, on whichever node. With several
        the store is asked: what another one changed is known here a moment later.
        """
        if self._control.alone:
            return await self.of_user(org, user)
        return await self._conversations.of_user(org, user)

    def changed(self, users: Sequence[str]) -> None:
        """These users came or went, or their own stream began: forget their lists everywhere."""
        self._control.send(users, _DROP)

    async def _list(self, org: str, user: str) -> _List:
        heard = self._control.hears(user)
        kept = self._lists.get(user) if heard else None
        if kept is not None and kept.org == org and kept.until > self._clock.monotonic():
            return kept
        # A list read while it changed must not be kept: the change takes the ticket away.
        ticket = self._loading[user] = object()
        try:
            conversations, personal = (await self._reading.get(org, [user]))[user]
        finally:
            valid = self._loading.get(user) is ticket
            if valid:
                del self._loading[user]
        # Shared with the sets of streams of all who are in the same conversations.
        found = _List(
            org, tuple(map(sys.intern, conversations)), personal, self._clock.monotonic() + LIST_TTL
        )
        if valid and heard and self._control.hears(user):
            self._keep(user, found)
        return found

    async def _read(
        self, org: str, users: Sequence[str]
    ) -> Mapping[str, tuple[Sequence[str], bool]]:
        """The conversations of some users, and whether the user's own stream has begun."""
        lists, heads = await asyncio.gather(
            self._conversations.of_users(org, users),
            self._engine.heads(org, [personal_stream(each) for each in users]),
        )
        return {user: (lists[user], personal_stream(user) in heads) for user in users}

    def _keep(self, user: str, found: _List) -> None:
        self._forget(user)
        self._lists[user] = found
        self._listed += len(found.conversations)
        while len(self._lists) > MAX_LISTS or self._listed > MAX_LISTED:
            self._forget(next(iter(self._lists)))

    def _forget(self, user: str) -> None:
        dropped = self._lists.pop(user, None)
        if dropped is not None:
            self._listed -= len(dropped.conversations)

    def _drop_here(self, user: str, _order: dict[str, Any]) -> None:
        self.forget(user)

    def forget(self, user: str) -> None:
        """Forget a user's list on this node."""
        self._loading.pop(user, None)
        self._forget(user)

    # -- the rules of streams -----------------------------------------------------------------

    async def may_read(self, principal: Principal, name: StreamName) -> bool:
        """Whether the caller may read `messages/<id>`: a conversation's, or the caller's own."""
        if name.id == principal.user:
            return True
        return await self.reads(principal, name.id)

    async def reads(self, principal: Principal, conversation: str) -> bool:
        """As `is_member`, of the caller, together with all who ask at the same moment: after an
        interruption that is every client, of every stream that it does not join by itself.
        """
        key = key_of(conversation, principal.user)
        return bool(await self._checking.get(principal.org, [key]))

    async def own(self, principal: Principal) -> Sequence[str]:
        """What a connection to the messages namespace joins: all the caller's conversations, and
        the caller's own stream if it has begun.
        """
        found = await self._list(principal.org, principal.user)
        streams = [sys.intern(f"messages/{each}") for each in found.conversations]
        if found.personal:
            streams.append(personal_stream(principal.user))
        return streams

    async def later(self, principal: Principal) -> Sequence[str]:
        """The caller's own stream, if it has not begun. It is not joined before: of most users it
        never begins, and each stream costs every connection memory.
        """
        found = await self._list(principal.org, principal.user)
        return () if found.personal else (personal_stream(principal.user),)


def by_joining(member: Document) -> Mapping[str, Any]:
    """The position of a member in the list of a conversation's, for cursors."""
    return {"at": member["joined_at"], "id": member["id"]}
