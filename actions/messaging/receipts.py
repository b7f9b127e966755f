"""Receipts: how far members have come, and when one message reached each of them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from weakref import WeakValueDictionary

import structlog

from actions.connections.clients import Client, Clients
from actions.messaging.memberships import Memberships, by_joining
from actions.messaging.messages import Messages
from actions.messaging.unread import Unread
from actions.pacer import Pacer
from domain.clock import Clock, timestamp
from domain.errors import ParleyError, Unavailable
from domain.events import Actor
from domain.messaging.conversations import Kind, stream_of
from domain.messaging.receipts import (
    MAX_RESENT,
    NAMESPACE,
    RECEIPT_UPDATED,
    MemberStatus,
    Position,
    ReceiptKind,
    moved,
)
from domain.pages import Page, cut, resume
from domain.principals import Principal
from fanout.publisher import Publisher
from store.engine import Engine
from store.messaging.conversations import ConversationRepository
from store.messaging.receipts import PositionDoc, ReceiptRepository, position_of

log = structlog.get_logger(__name__)

ATTEMPTS = 20
"""Tries to move a position that the user's other devices move at the same moment."""

INTERVAL = 0.25
"""Seconds between two `receipt.updated` of one member in one conversation."""

RESENT_AT_ONCE = 50
"""Clients that came back for which positions are read together, about."""

RESENT_ROOMS = 500
"""Conversations whose positions are read together, but for a client that is in more."""

MAX_HEADS = 50_000
"""Conversations of which it is remembered how far they reach."""

Key = tuple[str, str]
"""A conversation and a user."""

OnMoved = Callable[[str, Position, Kind], None]
"""`(org, position, kind of the conversation)`"""


class Receipts:
    """Moves members' positions, tells of them, and answers how far a message has come."""

    def __init__(
        self,
        engine: Engine,
        repository: ReceiptRepository,
        conversations: ConversationRepository,
        messages: Messages,
        memberships: Memberships,
        unread: Unread,
        clients: Clients,
        publisher: Publisher,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._repository = repository
        self._conversations = conversations
        self._messages = messages
        self._memberships = memberships
        self._unread = unread
        self._clients = clients
        self._publisher = publisher
        self._clock = clock
        self._heads: OrderedDict[str, int] = OrderedDict()
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._latest: dict[Key, tuple[Position, Kind, Actor]] = {}
        self._pacer: Pacer[Key] = Pacer(self._tell, interval=INTERVAL)
        self._returned: dict[Client, Sequence[str]] = {}
        self._resender: asyncio.Task[None] | None = None
        self._meanwhile: set[Key] | None = None
        """What has moved since a resend began to read."""
        self.on_moved: list[OnMoved] = []
        """Called with each position that moved on this node."""

    # -- moving -------------------------------------------------------------------------------

    async def move(
        self, principal: Principal, conversation: str, kind: ReceiptKind, seq: int
    ) -> Position:
        """Note that everything in a conversation up to `seq`, or up to its end if that comes
        first, has reached one of the caller's devices or was read. Returns where the caller
        stands now, which may be further.

        Raises:
            NotFound: the caller is in no such conversation.
        """
        facts = await self._memberships.require(principal, conversation)
        key = conversation, principal.user
        # One at a time on this node: most of many that come at once then move nothing.
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        async with lock:
            return await self._move(principal, conversation, facts.kind, kind, seq)

    async def _move(
        self,
        principal: Principal,
        conversation: str,
        conversation_kind: Kind,
        kind: ReceiptKind,
        seq: int,
    ) -> Position:
        org, user = principal.org, principal.user
        for _ in range(ATTEMPTS):
            at = timestamp(self._clock.now())
            old = await self._repository.get(org, conversation, user)
            if moved(old, kind, seq, at) is None:
                return old
            new = moved(old, kind, await self._capped(org, conversation, seq), at)
            if new is None:
                return old
            if not await self._repository.move(org, old, new):
                continue
            if new["read_seq"] > old["read_seq"]:
                self._unread.read(org, user, conversation, new["read_seq"])
            self._announce(new, conversation_kind, principal.actor)
            for callback in self.on_moved:
                callback(org, new, conversation_kind)
            reached = new["read_seq"] if kind == "read" else new["delivered_seq"]
            await self._repository.log(org, conversation, user, kind, reached, at)
            return new
        raise Unavailable("Too many of your devices are reading this conversation at once.")

    async def mark(self, principal: Principal, message: str, kind: ReceiptKind) -> Position:
        """As `move`, up to a message.

        Raises:
            NotFound: there is no such message for the caller.
        """
        doc, _ = await self._messages.find(principal, message, hidden=True)
        return await self.move(principal, doc["conversation"], kind, doc["seq"])

    async def _capped(self, org: str, conversation: str, seq: int) -> int:
        known = self._heads.get(conversation, 0)
        if seq <= known:
            return seq
        head = await self._engine.head(org, stream_of(conversation))
        reach = head.seq if head is not None else 0
        self._heads[conversation] = max(known, reach)
        self._heads.move_to_end(conversation)
        if len(self._heads) > MAX_HEADS:
            self._heads.popitem(last=False)
        return min(seq, reach)

    # -- asking -------------------------------------------------------------------------------

    async def status(
        self, principal: Principal, message: str, *, cursor: str | None, limit: int
    ) -> Page[MemberStatus]:
        """When a message reached each member but its sender, and when each read it; who joined
        first first.

        Raises:
            NotFound: there is no such message for the caller.
        """
        doc, _ = await self._messages.find(principal, message)
        org, conversation = principal.org, doc["conversation"]
        after = resume(cursor, "at", "id")
        found = await self._conversations.members(org, conversation, after=after, limit=limit + 1)
        page, next = cut(found, limit, by_joining)
        others = [each["user"] for each in page if each["user"] != doc["sender"]]
        positions = await self._repository.of_users(org, conversation, others)
        items = await asyncio.gather(
            *(self._status_of(org, doc["seq"], positions[user]) for user in others)
        )
        return {"items": items, "next": next}

    async def _status_of(self, org: str, seq: int, position: Position) -> MemberStatus:
        conversation, user = position["conversation"], position["user"]
        delivered = read = None
        if position["read_seq"] >= seq:
            # A move whose record was lost in a crash is told by the position itself.
            read = (
                await self._repository.first(org, conversation, user, "read", seq)
                or position["read_at"]
            )
        if position["delivered_seq"] >= seq:
            delivered = await self._repository.first(org, conversation, user, "delivered", seq)
            times = [each for each in (delivered, read) if each is not None]
            delivered = min(times) if times else position["delivered_at"]
        return {"user": user, "delivered_at": delivered, "read_at": read}

    # -- telling ------------------------------------------------------------------------------

    def _announce(self, position: Position, kind: Kind, actor: Actor) -> None:
        key = position["conversation"], position["user"]
        known = self._latest.get(key)
        if known is None or _is_behind(known[0], position):
            self._latest[key] = position, kind, actor
        if self._meanwhile is not None:
            self._meanwhile.add(key)
        self._pacer.touch(key)

    def moved_elsewhere(self, position: Position, kind: Kind, actor: Actor) -> None:
        """A position of a user who is connected here too moved on another node. That node tells
        the conversation; here the user's own connections hear of it where only they do, and what
        waits to be told is not older.
        """
        key = position["conversation"], position["user"]
        if kind is Kind.CHANNEL or key in self._latest:
            self._announce(position, kind, actor)

    def _tell(self, key: Key) -> None:
        waiting = self._latest.pop(key, None)
        if waiting is None:
            return
        position, kind, actor = waiting
        stream = stream_of(position["conversation"])
        at = timestamp(self._clock.now())
        name = ":".join(key)
        if kind is Kind.CHANNEL:
            own = [each.outlet for each in self._clients.of_user(key[1], NAMESPACE)]
            self._publisher.send(
                RECEIPT_UPDATED, own, at, position, actor=actor, stream=stream, key=name
            )
        else:
            self._publisher.emit(
                RECEIPT_UPDATED, stream, at, position, actor=actor, stream=stream, key=name
            )

    # -- coming back --------------------------------------------------------------------------

    async def entered(self, client: Client, resumed: Collection[str]) -> None:
        """A client is in; one that was here before is told where the members stand now, soon."""
        if client.namespace == NAMESPACE and resumed:
            conversations = [
                stream.partition("/")[2] for stream in resumed if stream in client.streams
            ]
            self._returned[client] = conversations
            if self._resender is None:
                self._resender = asyncio.get_running_loop().create_task(self._resend_all())

    async def left(self, client: Client) -> None:
        """A client has gone."""
        self._returned.pop(client, None)

    async def resend(self, returned: Mapping[Client, Sequence[str]]) -> None:
        """Send clients of one organization the positions of the members of conversations they
        follow; in channels only their user's own.
        """
        org = next(iter(returned)).principal.org
        tracked: dict[Client, list[str]] = {}
        channels: dict[Client, list[Key]] = {}
        for client, conversations in returned.items():
            user = client.principal.user
            tracked[client], channels[client] = [], []
            for each in conversations:
                if each == user:
                    continue
                if (await self._memberships.facts(org, each)).kind is Kind.CHANNEL:
                    channels[client].append((each, user))
                else:
                    tracked[client].append(each)
        meanwhile = self._meanwhile = set[Key]()
        try:
            found = await self._repository.positions(
                org, list(dict.fromkeys(chain.from_iterable(tracked.values())))
            )
            own = await self._repository.of_pairs(
                org, list(dict.fromkeys(chain.from_iterable(channels.values())))
            )
            newest = {each: _newest(docs.values()) for each, docs in found.items()}
            at = timestamp(self._clock.now())
            for client in returned:
                current = [position for each in tracked[client] for position in newest[each]]
                current += [own[pair] for pair in channels[client] if own[pair]["delivered_seq"]]
                for position in current:
                    # What has moved meanwhile is told by itself, and not overtaken by the old.
                    if (position["conversation"], position["user"]) not in meanwhile:
                        self._send_position(client, at, position)
                await asyncio.sleep(0)
        finally:
            self._meanwhile = None

    def _send_position(self, client: Client, at: str, position: Position) -> None:
        conversation, member = position["conversation"], position["user"]
        stream = stream_of(conversation)
        if stream not in client.streams:
            return  # put out of it since it came back
        self._publisher.send(
            RECEIPT_UPDATED,
            [client.outlet],
            at,
            position,
            actor=Actor(member),
            stream=stream,
            key=f"{conversation}:{member}",
        )

    def _next_returned(self) -> dict[Client, Sequence[str]]:
        """Some of those who have come back, of one organization."""
        org = next(iter(self._returned)).principal.org
        batch: dict[Client, Sequence[str]] = {}
        rooms = 0
        for client in [each for each in self._returned if each.principal.org == org]:
            rooms += len(self._returned[client])
            if batch and (rooms > RESENT_ROOMS or len(batch) == RESENT_AT_ONCE):
                break
            batch[client] = self._returned.pop(client)
        return batch

    async def _resend_all(self) -> None:
        missed, code = 0, ""
        try:
            while self._returned:
                batch = self._next_returned()
                try:
                    await self.resend(batch)
                except ParleyError as error:
                    missed, code = missed + len(batch), error.code
                except Exception:
                    log.exception("receipts_not_resent", clients=len(batch))
            if missed:
                log.warning("receipts_not_resent", code=code, clients=missed)
        finally:
            self._resender = None

    async def close(self) -> None:
        """Tell nobody anything any more."""
        self._pacer.close()
        if self._resender is not None:
            self._resender.cancel()
            await asyncio.gather(self._resender, return_exceptions=True)


def _is_behind(one: Position, other: Position) -> bool:
    return (one["delivered_seq"], one["read_seq"]) < (other["delivered_seq"], other["read_seq"])


def _newest(docs: Iterable[PositionDoc]) -> list[Position]:
    """The positions that moved last, of one conversation."""
    ordered = sorted(docs, key=lambda doc: max(doc["delivered_at"] or "", doc["read_at"] or ""))
    return [position_of(doc) for doc in ordered[-MAX_RESENT:] if doc["delivered_seq"]]
