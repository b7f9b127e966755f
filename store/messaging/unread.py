"""What users have not read, counted from what is stored."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from domain.messaging.conversations import stream_of
from domain.messaging.messages import MESSAGE_DELETED
from domain.messaging.unread import COUNTED, NONE, Counts
from store.engine import Change, Collection, Delete, Document, Engine, Index, Insert, Is
from store.messaging.conversations import MEMBERS, SETTINGS, key_of
from store.messaging.messages import MESSAGES, MessageRepository
from store.messaging.receipts import POSITIONS
from store.scan import pages

MENTIONS = Collection("mentions", indexes=(Index(("user", "conversation", "seq")),))
"""`{id: "<message>:<user>", conversation, user, seq}`: who is mentioned by which message.
Belongs to the conversation's stream."""

COLLECTIONS = (MENTIONS,)

RECOUNTS = 3
"""Times a count is made while messages keep coming, before they are read one by one instead."""

REREADS = 10
"""Times they are read one by one while messages keep being deleted."""

READ_AT_ONCE = 1000

READ_TOGETHER = 500
"""Messages that are read to count in several conversations at once."""

READ_EACH = 50
"""Messages of one conversation that are read; more are counted by the store."""

Pair = tuple[str, str]
"""A conversation and a user."""

Hidden = Mapping[int, str]
"""Messages that a user has deleted for this user alone, by seq."""


class Counted(NamedTuple):
    """What a user has not read in one conversation, as of one place in its stream."""

    floor: int
    """Nothing up to this seq counts: it was read, or is from before the user came."""
    through: int
    """Everything up to this seq was looked at, nothing after it."""
    counts: Counts
    quiet: bool = False
    """Whether the user has muted or archived the conversation."""
    hidden: frozenset[int] = frozenset()
    """Seqs above the floor of messages that the user has deleted for this user alone: they are in
    no count."""


def mention(
    message: str, conversation: str, users: Iterable[str], seq: int | None = None
) -> list[Change]:
    """Stores whom a message mentions; part of the append that sends it, or changes it: then with
    its seq.
    """
    return [
        Insert(
            MENTIONS,
            {
                "id": f"{message}:{user}",
                "conversation": conversation,
                "user": user,
                "seq": seq or 0,
            },
            stamp="seq" if seq is None else None,
        )
        for user in users
    ]


def unmention(message: str, users: Iterable[str]) -> list[Change]:
    """Forgets whom a message mentions; part of the append that deletes it."""
    return [Delete(MENTIONS, f"{message}:{user}") for user in users]


class UnreadRepository:
    """Counts what users have not read."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._messages = MessageRepository(engine)

    async def count(self, org: str, pairs: Sequence[Pair]) -> dict[Pair, Counted]:
        """What users have not read in conversations; where a user is not in it, it is left out."""
        if not pairs:
            return {}
        keys = [key_of(*pair) for pair in pairs]
        members, positions, settings = await asyncio.gather(
            self._engine.get_many(org, MEMBERS, keys),
            self._engine.get_many(org, POSITIONS, keys),
            self._engine.get_many(org, SETTINGS, keys),
        )
        floors = {
            pair: _floor(members[key], positions.get(key))
            for pair, key in zip(pairs, keys, strict=True)
            if key in members
        }
        # A position is moved at most to where its stream stands, so the heads are read after it.
        conversations = dict.fromkeys(conversation for conversation, _ in floors)
        heads = await self._heads(org, list(conversations))
        counted = {pair: Counted(floor, heads[pair[0]], NONE) for pair, floor in floors.items()}
        behind = {pair: floor for pair, floor in floors.items() if floor < heads[pair[0]]}
        hidden = await self._hidden(org, behind)
        for group in _groups(behind, heads):
            together = await self._count_together(org, group, heads, hidden)
            counted |= together
            for pair in together:
                del behind[pair]
        for pair, one in (await self._count_each(org, behind, heads, hidden)).items():
            counted[pair] = one
            del behind[pair]
        found = await asyncio.gather(
            *(
                self._count_one(org, pair, floor, heads[pair[0]], hidden.get(pair, {}))
                for pair, floor in behind.items()
            )
        )
        counted.update(found)
        for pair, gone in hidden.items():
            counted[pair] = counted[pair]._replace(hidden=frozenset(gone))
        for doc in settings.values():
            conversation, _, user = doc["id"].partition(":")
            if (doc["muted"] or doc["archived"]) and (conversation, user) in counted:
                counted[conversation, user] = counted[conversation, user]._replace(quiet=True)
        return counted

    async def _hidden(self, org: str, floors: Mapping[Pair, int]) -> Mapping[Pair, Hidden]:
        """What the users have deleted for themselves alone above the floors; pairs without any are
        left out.
        """
        places: dict[str, dict[str, int]] = {}
        for (conversation, user), floor in floors.items():
            places.setdefault(user, {})[conversation] = floor
        hiders = await self._messages.hiders(org, list(places)) if places else {}
        hidden: dict[Pair, dict[int, str]] = {}
        for user in hiders:
            mine = places[user]
            for doc in await self._messages.hidden_after(org, user, list(mine), min(mine.values())):
                conversation = doc["conversation"]
                if doc["seq"] > mine[conversation]:
                    hidden.setdefault((conversation, user), {})[doc["seq"]] = doc["message"]
        return hidden

    async def _counts_of(self, org: str, hidden: Mapping[Pair, Hidden]) -> dict[Pair, Counts]:
        """How many of the hidden messages the store counts as unread."""
        ids = list(chain.from_iterable(each.values() for each in hidden.values()))
        docs = await self._engine.get_many(org, MESSAGES, ids) if ids else {}
        counts: dict[Pair, Counts] = {}
        for pair, messages in hidden.items():
            gone = [
                doc
                for doc in map(docs.get, messages.values())
                if doc is not None and doc["sender"] != pair[1] and not doc["deleted_at"]
            ]
            counts[pair] = Counts(len(gone), sum(1 for doc in gone if pair[1] in doc["mentions"]))
        return counts

    async def _count_together(
        self,
        org: str,
        floors: Mapping[Pair, int],
        heads: Mapping[str, int],
        hidden: Mapping[Pair, Hidden],
    ) -> dict[Pair, Counted]:
        """Counts in some conversations, from their messages. Where something came meanwhile, none."""
        conversations = list(dict.fromkeys(conversation for conversation, _ in floors))
        where = {
            "conversation": Is("in", conversations),
            "seq": Is(">", min(floors.values())),
            "deleted_at": None,
        }
        messages: dict[str, list[Document]] = {each: [] for each in conversations}
        for doc in await self._engine.find(
            org, MESSAGES, where, order=("conversation", "seq"), limit=None
        ):
            messages[doc["conversation"]].append(doc)
        after = await self._heads(org, conversations)
        counted: dict[Pair, Counted] = {}
        for (conversation, user), floor in floors.items():
            if after[conversation] == heads[conversation]:
                gone = hidden.get((conversation, user), {})
                unread = [
                    doc
                    for doc in messages[conversation]
                    if doc["seq"] > floor and doc["sender"] != user and doc["seq"] not in gone
                ]
                mentions = sum(1 for doc in unread if user in doc["mentions"])
                counts = Counts(len(unread), mentions)
                counted[conversation, user] = Counted(floor, heads[conversation], counts)
        return counted

    async def _count_each(
        self,
        org: str,
        floors: Mapping[Pair, int],
        heads: Mapping[str, int],
        hidden: Mapping[Pair, Hidden],
    ) -> dict[Pair, Counted]:
        """Counts in the store, for each conversation and user. Where something came meanwhile, none."""
        if not floors:
            return {}
        hidden = {pair: each for pair, each in hidden.items() if pair in floors}
        most = COUNTED + max(map(len, hidden.values()), default=0)
        unread, mentions, gone = await asyncio.gather(
            self._engine.count_each(
                org, MESSAGES, [_unread(*each) for each in floors.items()], most
            ),
            self._engine.count_each(
                org, MENTIONS, [_mentions(*each) for each in floors.items()], most
            ),
            self._counts_of(org, hidden),
        )
        after = await self._heads(org, list(dict.fromkeys(pair[0] for pair in floors)))
        return {
            pair: Counted(floor, heads[pair[0]], _less(one, mentioned, gone.get(pair, NONE)))
            for (pair, floor), one, mentioned in zip(floors.items(), unread, mentions, strict=True)
            if after[pair[0]] == heads[pair[0]]
        }

    async def _heads(self, org: str, conversations: Sequence[str]) -> dict[str, int]:
        heads = await self._engine.heads(org, [stream_of(each) for each in conversations])
        return {
            each: heads[stream_of(each)].seq if stream_of(each) in heads else 0
            for each in conversations
        }

    async def _count_one(
        self, org: str, pair: Pair, floor: int, through: int, hidden: Hidden
    ) -> tuple[Pair, Counted]:
        conversation = pair[0]
        unread, mentions = _unread(pair, floor), _mentions(pair, floor)
        most = COUNTED + len(hidden)
        for _ in range(RECOUNTS):
            (count,) = await self._engine.count_each(org, MESSAGES, [unread], most)
            (mentioned,) = await self._engine.count_each(org, MENTIONS, [mentions], most)
            gone = (await self._counts_of(org, {pair: hidden}))[pair]
            counts = _less(count, mentioned, gone)
            # Exact for this place, if nothing came while it was counted.
            head = (await self._heads(org, [conversation]))[conversation]
            if head == through:
                return pair, Counted(floor, through, counts)
            through = head
        counts = NONE
        for _ in range(REREADS):
            counts = Counts(
                await self._count_by_reading(org, MESSAGES, unread, through, hidden),
                await self._count_by_reading(org, MENTIONS, mentions, through, hidden),
            )
            # Exact for this place, if nothing was deleted while it was read.
            since = await self._engine.read(org, stream_of(conversation), through, READ_AT_ONCE)
            if not any(event.type == MESSAGE_DELETED.name for event in since):
                break
            through = since[-1].seq
        return pair, Counted(floor, through, counts)

    async def _count_by_reading(
        self, org: str, collection: Collection, where: Document, through: int, hidden: Hidden
    ) -> int:
        total = 0
        async for docs in pages(
            self._engine, org, collection, where, order=("seq",), size=READ_AT_ONCE
        ):
            total += sum(1 for doc in docs if doc["seq"] <= through and doc["seq"] not in hidden)
            if docs[-1]["seq"] > through or total >= COUNTED:
                break
        return min(total, COUNTED)


def _unread(pair: Pair, floor: int) -> Document:
    return {
        "conversation": pair[0],
        "seq": Is(">", floor),
        "sender": Is("!=", pair[1]),
        "deleted_at": None,
    }


def _less(unread: int, mentions: int, hidden: Counts) -> Counts:
    return Counts(min(unread - hidden.unread, COUNTED), min(mentions - hidden.mentions, COUNTED))


def _mentions(pair: Pair, floor: int) -> Document:
    return {"conversation": pair[0], "user": pair[1], "seq": Is(">", floor)}


def _floor(member: Document, position: Document | None) -> int:
    """A user who comes to a conversation has no debts: what was said before does not count."""
    joined: int = member["joined_seq"]
    return max(joined, position["read_seq"]) if position is not None else joined


def _groups(floors: Mapping[Pair, int], heads: Mapping[str, int]) -> list[dict[Pair, int]]:
    """Parts of what is to be counted, for each of which few messages have to be read. What needs
    many by itself is in none.
    """
    lowest: dict[str, int] = {}
    for (conversation, _), floor in floors.items():
        lowest[conversation] = min(floor, lowest.get(conversation, floor))
    groups: list[dict[Pair, int]] = []
    place: dict[str, dict[Pair, int]] = {}
    left = 0
    start = 0
    for conversation, floor in sorted(lowest.items(), key=lambda each: each[1]):
        if heads[conversation] - floor > READ_EACH:
            continue
        if not groups or heads[conversation] - start > left:
            groups.append({})
            left, start = READ_TOGETHER, floor
        left -= heads[conversation] - start
        place[conversation] = groups[-1]
    for (conversation, user), floor in floors.items():
        if conversation in place:
            place[conversation][conversation, user] = floor
    return groups
