"""Messages as they are now, in the form clients see; `reactions` and `status` are kept elsewhere
and filled in when a message is read.

All are changed by appends to the conversation's stream alone, but `HIDDEN`, which is changed by
appends to the stream of the user who hides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from domain.events import VEILED
from domain.messaging.conversations import personal_stream
from store.engine import (
    Collection,
    Delete,
    Document,
    Engine,
    Filter,
    Guard,
    Index,
    Insert,
    Is,
    Update,
    Value,
)
from store.messaging.conversations import CONVERSATIONS

MESSAGES = Collection(
    "messages",
    # Sender and deletion are in the index so that what is unread is counted in it alone.
    indexes=(Index(("conversation", "seq", "id", "sender", "deleted_at")),),
    text="body",
    fields=("created_at",),
)
"""`domain.messaging.messages.Message`."""

REPLIES = Collection("thread_replies", indexes=(Index(("thread", "seq")),))
"""`{id: <message>, thread, seq}`: what is in a thread."""

PINS = Collection("pins", indexes=(Index(("conversation", "pinned_at")),))
"""`{id: <message>, conversation, pinned_at}`."""

HIDDEN = Collection(
    "hidden_messages", indexes=(Index(("user", "conversation", "seq")), Index(("message",)))
)
"""`{id: "<message>:<user>", message, user, conversation, seq}`: what a user has deleted for this
user alone; `seq` is the message's."""

TOLD = Collection("message_events", indexes=(Index(("message", "seq")),))
"""`{id: "<message>:<number>", message, number, seq}`: the events of the conversation's stream that
carry a message after the one that brought it. `number` counts a message's from 1, so that two
cannot be told at the same moment; of those that have left the log only the newest is kept."""

COLLECTIONS = (MESSAGES, REPLIES, PINS, HIDDEN, TOLD)


STEP = 200
"""Messages that are read at a time where a user has deleted so many that a page was not filled."""


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a conversation's history; None is no bound."""

    conversation: str
    after: int | None = None
    """Messages with a greater seq."""
    before: int | None = None
    """Messages with a smaller seq."""
    since: str | None = None
    """Messages of this time and later."""
    until: str | None = None
    """Messages of this time and earlier."""
    thread: str | None = None
    """Messages in this message's thread."""


def is_in(message: str, conversation: str, **fields: Any) -> Guard:
    """Holds as long as the message is in the conversation and has these values."""
    return Guard(MESSAGES, message, {"conversation": conversation, **fields})


class Told(NamedTuple):
    """Which events carry a message, besides the one that brought it."""

    message: str
    seqs: Sequence[int]
    last: int
    """The number of the newest, 0 if there is none."""

    @property
    def is_all(self) -> Guard:
        """Holds until another event carries the message."""
        return Guard(TOLD, f"{self.message}:{self.last + 1}", absent=True)

    def more(self) -> Insert:
        """Notes that the append's event, guarded by `is_all`, carries the message."""
        number = self.last + 1
        doc: Document = {
            "id": f"{self.message}:{number}",
            "message": self.message,
            "number": number,
            "seq": 0,
        }
        return Insert(TOLD, doc, "seq")


def hide(message: Document, user: str) -> tuple[Guard, Insert]:
    """What takes a message away from one user; the guard holds until it is done."""
    id = f"{message['id']}:{user}"
    doc: Document = {
        "id": id,
        "message": message["id"],
        "user": user,
        "conversation": message["conversation"],
        "seq": message["seq"],
    }
    return Guard(HIDDEN, id, absent=True), Insert(HIDDEN, doc)


class MessageRepository:
    """Reads messages."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, org: str, id: str) -> Document | None:
        """One message."""
        return await self._engine.get(org, MESSAGES, id)

    async def get_many(self, org: str, ids: Sequence[str]) -> dict[str, Document]:
        """Messages by id."""
        return await self._engine.get_many(org, MESSAGES, ids)

    async def at(self, org: str, conversation: str, seq: int) -> Document | None:
        """The message that was created as this event of its conversation."""
        where = {"conversation": conversation, "seq": seq}
        found = await self._engine.find(org, MESSAGES, where, order=("seq",), limit=1)
        return found[0] if found else None

    async def newest(
        self, org: str, conversation: str, *, before: int | None = None
    ) -> Document | None:
        """The last message of a conversation, or the last one before a seq."""
        found = await self.page(org, Range(conversation, before=before), newest=True, limit=1)
        return found[0] if found else None

    async def newest_visible(
        self, org: str, conversation: str, user: str, before: int
    ) -> Document | None:
        """The last message before a seq that the user has not deleted for this user alone."""
        found = await self.visible(
            org, Range(conversation, before=before), user, newest=True, limit=1
        )
        return found[0] if found else None

    async def visible(
        self, org: str, range: Range, user: str, *, newest: bool, limit: int
    ) -> list[Document]:
        """As `page`, of the messages that the user has not deleted for this user alone: fewer
        than `limit` only at the end.
        """
        visible: list[Document] = []
        size = limit
        while True:
            docs = await self.page(org, range, newest=newest, limit=size)
            if not docs:
                return visible
            first, last = docs[0]["seq"], docs[-1]["seq"]
            gone = await self._hidden_between(
                org, range.conversation, user, min(first, last), max(first, last)
            )
            visible += [doc for doc in docs if doc["id"] not in gone] if gone else docs
            if len(docs) < size or len(visible) >= limit:
                return visible[:limit]
            range = replace(range, **({"before": last} if newest else {"after": last}))
            size = max(limit, STEP)

    async def _hidden_between(
        self, org: str, conversation: str, user: str, first: int, last: int
    ) -> set[str]:
        found = await self._engine.find(
            org,
            HIDDEN,
            {"user": user, "conversation": conversation, "seq": Is(">=", first)},
            order=("-seq", "-id"),
            after=(last + 1, ""),
            limit=None,
        )
        return {doc["message"] for doc in found}

    async def hiders(self, org: str, users: Sequence[str]) -> dict[str, bool]:
        """Who of the users may have deleted a message for this user alone; the others are left out.

        It is an event of the user's own stream, which most users do not have.
        """
        streams = {personal_stream(user): user for user in users}
        heads = await self._engine.heads(org, list(streams), returned=True)
        return {streams[stream]: True for stream in heads}

    async def hidden_after(
        self, org: str, user: str, conversations: Sequence[str], seq: int
    ) -> list[Document]:
        """`HIDDEN` of the messages with a greater seq in these conversations."""
        return await self._engine.find(
            org,
            HIDDEN,
            {"user": user, "conversation": Is("in", conversations), "seq": Is(">", seq)},
            order=("conversation", "seq"),
            limit=None,
        )

    async def hidden(self, org: str, messages: Iterable[str], user: str) -> set[str]:
        """Which of the messages the user has deleted for this user alone."""
        ids = [f"{message}:{user}" for message in messages]
        if not ids:
            return set()
        found = await self._engine.get_many(org, HIDDEN, ids)
        return {doc["message"] for doc in found.values()}

    async def veil(self, org: str, message: str) -> dict[str, list[str]]:
        """What an event that carries the message says of those who have deleted it for themselves."""
        found = await self._engine.find(org, HIDDEN, {"message": message}, limit=None)
        return {VEILED: [doc["user"] for doc in found]} if found else {}

    async def page(self, org: str, range: Range, *, newest: bool, limit: int) -> list[Document]:
        """Messages of a range, at most `limit`.

        Args:
            newest: those with the greatest seqs, descending; else the smallest, ascending.
        """
        after, before = await self._seqs(org, range)
        if before is not None and before <= after + 1:
            return []
        # A filter holds one condition per field; the bound where the walk starts is the other.
        # No id sorts before the empty text or behind "~".
        order: tuple[str, ...]
        start: tuple[Value, ...] | None
        bound: Is | None
        if newest:
            order, bound = ("-seq", "-id"), Is(">", after)
            start = (before, "") if before is not None else None
        else:
            order, start = ("seq", "id"), (after, "~")
            bound = Is("<", before) if before is not None else None
        in_thread = range.thread is not None
        where: dict[str, Any] = (
            {"thread": range.thread} if in_thread else {"conversation": range.conversation}
        )
        if bound is not None:
            where["seq"] = bound
        found = await self._engine.find(
            org,
            REPLIES if in_thread else MESSAGES,
            where,
            order=order,
            after=start,
            limit=limit,
        )
        if not in_thread:
            return found
        docs = await self._engine.get_many(org, MESSAGES, [each["id"] for each in found])
        return [docs[each["id"]] for each in found if each["id"] in docs]

    async def _seqs(self, org: str, range: Range) -> tuple[int, int | None]:
        """The range as `after` and `before`, times turned into places."""
        after = max(range.after or 0, 0)
        before = range.before
        if range.since is not None:
            after = max(after, await self._first(org, range.conversation, range.since) - 1)
        if range.until is not None:
            # Times have a fixed width: behind this one comes the next millisecond.
            end = await self._first(org, range.conversation, range.until + "~")
            before = end if before is None else min(before, end)
        return after, before

    async def _first(self, org: str, conversation: str, time: str) -> int:
        """The seq at which the messages of a time and later begin.

        A stream's times do not fall from one seq to the next, as far as the nodes' clocks agree:
        so the place is found by halving, and needs no index of its own.
        """
        newest = await self.newest(org, conversation)
        low, high = 1, newest["seq"] + 1 if newest is not None else 1
        while low < high:
            middle = (low + high) // 2
            found = await self._engine.find(
                org,
                MESSAGES,
                {"conversation": conversation},
                order=("seq", "id"),
                after=(middle - 1, "~"),
                limit=1,
            )
            if not found or found[0]["created_at"] >= time:
                high = middle
            else:
                low = found[0]["seq"] + 1
        return low

    # -- events that carry a message ----------------------------------------------------------

    async def told(self, org: str, message: str) -> Told:
        """Which events carry a message."""
        found = await self._engine.find(
            org, TOLD, {"message": message}, order=("seq", "id"), limit=None
        )
        last = max((doc["number"] for doc in found), default=0)
        return Told(message, [doc["seq"] for doc in found], last)

    async def last_told(self, org: str, message: str) -> Told:
        """As `told`, for `Told.more` alone: without the seqs."""
        found = await self._engine.find(
            org, TOLD, {"message": message}, order=("-seq", "-id"), limit=1
        )
        return Told(message, (), found[0]["number"] if found else 0)

    async def trimmed(self, org: str, message: str, upto: int) -> list[Delete]:
        """Forgets a few of the events that carry a message and have left the log, which is gone
        up to this seq: more than one event adds.
        """
        found = await self._engine.find(
            org, TOLD, {"message": message, "seq": Is("<=", upto)}, order=("seq", "id"), limit=2
        )
        return [Delete(TOLD, doc["id"]) for doc in found]

    async def forget_told(self, org: str, message: str) -> None:
        """Forget which events carry a message, once nothing is left in them."""
        await self._engine.delete(org, TOLD, {"message": message})

    # -- pins ---------------------------------------------------------------------------------

    async def count_pins(self, org: str, conversation: str) -> int:
        """How many messages of a conversation are pinned."""
        return await self._engine.count(org, PINS, {"conversation": conversation})

    async def pins(self, org: str, conversation: str, by: int, most: int) -> tuple[Guard, Update]:
        """What counts a pin that comes (`by` 1) or goes (-1) in the conversation's document; the guard
        holds as long as there are not more than `most` then. What was made before pins were counted
        has no count, and gets one.
        """
        doc = await self._engine.get(org, CONVERSATIONS, conversation)
        if doc is not None and doc.get("pins") is None:
            pins = await self.count_pins(org, conversation) + by
            return (
                Guard(CONVERSATIONS, conversation, {"pins": None}),
                Update(CONVERSATIONS, conversation, set={"pins": pins}),
            )
        return (
            Guard(CONVERSATIONS, conversation, {"pins": Is("<=", most - by)} if by > 0 else {}),
            Update(CONVERSATIONS, conversation, inc={"pins": by}),
        )

    async def pinned(
        self, org: str, conversation: str, *, after: tuple[str, str] | None, limit: int
    ) -> list[Document]:
        """Pinned messages, last pinned first, behind `(pinned_at, id)`."""
        pins = await self._engine.find(
            org,
            PINS,
            {"conversation": conversation},
            order=("-pinned_at", "-id"),
            after=after,
            limit=limit,
        )
        docs = await self._engine.get_many(org, MESSAGES, [pin["id"] for pin in pins])
        return [docs[pin["id"]] for pin in pins if pin["id"] in docs]

    # -- search -------------------------------------------------------------------------------

    async def search(
        self, org: str, text: str, where: Filter, *, before: str | None, limit: int
    ) -> list[Document]:
        """Messages that hold every word of the text, newest first, behind the id `before`."""
        return await self._engine.search(org, MESSAGES, text, where, limit=limit, before=before)
