"""Messages as a reader sees them: with what is kept beside them, reactions and status."""

import asyncio
import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from actions.accounts.people import People
from actions.messaging.memberships import Memberships
from domain.events import CLIENT_ID
from domain.messaging.conversations import Kind
from domain.messaging.messages import Message, MessageStatus, status_of
from store.engine import Document
from store.messaging.conversations import ConversationRepository

LOOKED_AT = 3
"""Members of a conversation of whom it is found out first whether they are disabled."""


class Positions(Protocol):
    """How far members have come (`store.messaging.receipts`)."""

    async def positions(
        self, org: str, conversations: Sequence[str]
    ) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """By conversation and user `{delivered_seq, delivered_at, read_seq, read_at}`; who has
        none yet is left out.
        """
        ...

    async def of_users(
        self, org: str, conversation: str, users: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """The same of some users in one conversation."""
        ...


class ReactionCounts(Protocol):
    """How many reactions messages have (`store.messaging.reactions`)."""

    async def counts(self, org: str, messages: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """By message and emoji; messages without any may be left out."""
        ...


class _Place(NamedTuple):
    """How far a member has come; what was there before does not count."""

    user: str
    joined: int
    delivered: int
    read: int


class _Lowest:
    """How far the two of some members have come who have come least far: one of the two is not the
    one left out.
    """

    __slots__ = ("delivered", "joined", "read")

    def __init__(self, places: Iterable[_Place]) -> None:
        places = list(places)
        self.joined = heapq.nsmallest(2, ((each.joined, each.user) for each in places))
        self.delivered = heapq.nsmallest(2, ((each.delivered, each.user) for each in places))
        self.read = heapq.nsmallest(2, ((each.read, each.user) for each in places))

    def status(self, seq: int, sender: str) -> MessageStatus:
        """How far a message has come; what nobody else was there for stays sent."""
        if _of_others(self.joined, sender, seq) >= seq:
            return "sent"
        return status_of(
            seq, _of_others(self.delivered, sender, 0), _of_others(self.read, sender, 0)
        )


class _Reached:
    """How far all members of a conversation but one have come, for any one. Who is disabled is not
    waited for, unless there is nobody else.
    """

    __slots__ = ("_active", "_all", "_places")

    def __init__(
        self, members: Mapping[str, int], positions: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """`members`: the seq at which each joined. Who came later is not waited for."""
        nothing = {"delivered_seq": 0, "read_seq": 0}
        self._places = [
            _Place(user, joined, max(at["delivered_seq"], joined), max(at["read_seq"], joined))
            for user, joined in members.items()
            for at in (positions.get(user, nothing),)
        ]
        self._all = self._active = _Lowest(self._places)

    def slowest(self, seq: int, most: int | None) -> set[str]:
        """Who has not come as far as this seq; of many those who have come least far."""
        behind = [each for each in self._places if each.read < seq]
        if most is None or len(behind) <= most:
            return {each.user for each in behind}
        found = heapq.nsmallest(most, behind, key=lambda each: each.read)
        found += heapq.nsmallest(most, behind, key=lambda each: each.delivered)
        return {each.user for each in found}

    def leave_out(self, disabled: Collection[str]) -> None:
        """Wait no more for these."""
        self._active = _Lowest(each for each in self._places if each.user not in disabled)

    def status(self, seq: int, sender: str) -> MessageStatus:
        """How far a message has come."""
        waits = any(user != sender for _, user in self._active.joined)
        return (self._active if waits else self._all).status(seq, sender)


def _of_others(lowest: Iterable[tuple[int, str]], sender: str, nobody: int) -> int:
    return next((seq for seq, who in lowest if who != sender), nobody)


class MessageViews:
    """Fills in what is kept beside messages."""

    def __init__(
        self,
        conversations: ConversationRepository,
        memberships: Memberships,
        positions: Positions,
        reactions: ReactionCounts,
        people: People,
    ) -> None:
        self._conversations = conversations
        self._memberships = memberships
        self._positions = positions
        self._reactions = reactions
        self._people = people

    async def one(self, org: str, doc: Document) -> Message:
        """A message as it is now."""
        return (await self.many(org, [doc]))[0]

    async def many(self, org: str, docs: Sequence[Document]) -> list[Message]:
        """Messages, of one conversation or several, as they are now."""
        if not docs:
            return []
        counts, reached = await asyncio.gather(
            self._reactions.counts(org, [doc["id"] for doc in docs if not doc["deleted_at"]]),
            self._reached(org, docs),
        )
        return [_filled(doc, counts, reached.get(doc["conversation"])) for doc in docs]

    async def _reached(self, org: str, docs: Sequence[Document]) -> dict[str, _Reached]:
        newest: dict[str, int] = {}
        for doc in docs:
            conversation = doc["conversation"]
            newest[conversation] = max(doc["seq"], newest.get(conversation, 0))
        facts = {each: await self._memberships.facts(org, each) for each in newest}
        tracked = [each for each, known in facts.items() if known.kind is not Kind.CHANNEL]
        if not tracked:
            return {}
        groups = [each for each in tracked if facts[each].pair is None]
        positions, members = await asyncio.gather(
            self._positions.positions(org, tracked),
            self._conversations.members_of(org, groups),
        )
        reached = {
            each: _Reached(
                dict.fromkeys(facts[each].pair or (), 0)
                or {member["user"]: member["joined_seq"] for member in members[each]},
                positions.get(each, {}),
            )
            for each in tracked
        }
        await self._leave_out_disabled(org, reached, newest)
        return reached

    async def _leave_out_disabled(
        self, org: str, reached: Mapping[str, _Reached], newest: Mapping[str, int]
    ) -> None:
        """Those who hold a message back are looked at; all of them only where the first few of
        them are disabled.
        """
        rooms = list(reached)
        for most in (LOOKED_AT, None):
            slowest = {each: reached[each].slowest(newest[each], most) for each in rooms}
            users = set().union(*slowest.values())
            disabled = users - set(await self._people.existing(org, list(users))) if users else ()
            rooms = [each for each in rooms if not slowest[each].isdisjoint(disabled)]
            if not rooms:
                return
            for each in rooms:
                reached[each].leave_out(disabled)


def _filled(
    doc: Document, counts: Mapping[str, Mapping[str, int]], reached: _Reached | None
) -> Message:
    sender: str = doc["sender"]
    view = {
        **doc,
        "reactions": dict(counts.get(doc["id"], {})) if not doc["deleted_at"] else {},
        "status": "sent" if reached is None else reached.status(doc["seq"], sender),
    }
    return shown(view)


def shown(doc: Document) -> Message:
    """A message as it is stored, without what only `message.created` shows."""
    if CLIENT_ID in doc:
        doc = {name: value for name, value in doc.items() if name != CLIENT_ID}
    return cast(Message, doc)
