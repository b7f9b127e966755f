"""Messages as a reader sees them: with what is kept beside them, reactions and status."""

import asyncio
import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from actions.memberships import Memberships
from domain.conversations import Kind
from domain.events import CLIENT_ID
from domain.messages import Message, MessageStatus, status_of
from store.conversations import ConversationRepository
from store.engine import Document


class Positions(Protocol):
    """How far members have come (`store.receipts`)."""

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
    """How many reactions messages have (`store.reactions`)."""

    async def counts(self, org: str, messages: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """By message and emoji; messages without any may be left out."""
        ...


class _Reached:
    """How far all members of a conversation but one have come, for any one."""

    __slots__ = ("_delivered", "_joined", "_read")

    def __init__(
        self, members: Mapping[str, int], positions: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """`members`: the seq at which each joined. Who came later is not waited for."""
        nothing = {"delivered_seq": 0, "read_seq": 0}
        places = [(user, positions.get(user, nothing), at) for user, at in members.items()]
        # The lowest two suffice: one of them is not the one left out.
        self._joined = heapq.nsmallest(2, ((at, who) for who, at in members.items()))
        self._delivered = heapq.nsmallest(
            2, ((max(at["delivered_seq"], joined), who) for who, at, joined in places)
        )
        self._read = heapq.nsmallest(
            2, ((max(at["read_seq"], joined), who) for who, at, joined in places)
        )

    def status(self, seq: int, sender: str) -> MessageStatus:
        """How far a message has come; what nobody else was there for stays sent."""
        if _of_others(self._joined, sender, seq) >= seq:
            return "sent"
        return status_of(
            seq, _of_others(self._delivered, sender, 0), _of_others(self._read, sender, 0)
        )


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
    ) -> None:
        self._conversations = conversations
        self._memberships = memberships
        self._positions = positions
        self._reactions = reactions

    async def one(self, org: str, doc: Document) -> Message:
        """A message as it is now."""
        return (await self.many(org, [doc]))[0]

    async def many(self, org: str, docs: Sequence[Document]) -> list[Message]:
        """Messages, of one conversation or several, as they are now."""
        if not docs:
            return []
        counts, reached = await asyncio.gather(
            self._reactions.counts(org, [doc["id"] for doc in docs if not doc["deleted_at"]]),
            self._reached(org, dict.fromkeys(doc["conversation"] for doc in docs)),
        )
        return [_filled(doc, counts, reached.get(doc["conversation"])) for doc in docs]

    async def _reached(self, org: str, conversations: Iterable[str]) -> dict[str, _Reached]:
        facts = {each: await self._memberships.facts(org, each) for each in conversations}
        tracked = [each for each, known in facts.items() if known.kind is not Kind.CHANNEL]
        if not tracked:
            return {}
        groups = [each for each in tracked if facts[each].pair is None]
        positions, members = await asyncio.gather(
            self._positions.positions(org, tracked),
            self._conversations.members_of(org, groups),
        )
        return {
            each: _Reached(
                dict.fromkeys(facts[each].pair or (), 0)
                or {member["user"]: member["joined_seq"] for member in members[each]},
                positions.get(each, {}),
            )
            for each in tracked
        }


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
