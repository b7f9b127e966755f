"""Conversations and messages over a real store, with clients that need no network."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from actions.connections.clients import Client
from actions.messaging.conversation_views import ConversationViews
from actions.messaging.conversations import Conversations
from actions.messaging.deletions import Deletions
from actions.messaging.handovers import Handovers
from actions.messaging.history import History, Wanted
from actions.messaging.last_messages import LastMessages
from actions.messaging.member_roles import MemberRoles
from actions.messaging.members import Members
from actions.messaging.memberships import Memberships
from actions.messaging.message_views import MessageViews
from actions.messaging.messages import Draft, Messages
from actions.messaging.owners import Owners
from actions.messaging.pins import Pins
from actions.messaging.places import Places
from actions.messaging.search import Search
from actions.messaging.strangers import Strangers
from actions.messaging.veil import Veil
from actions.streams.streams import Position
from domain.events import StoredEvent
from domain.ids import new_id
from domain.messaging import conversations as conversation_rules
from domain.messaging import messages as message_rules
from domain.messaging.conversations import Conversation, Kind
from domain.messaging.messages import Message
from domain.pages import Page
from domain.principals import Principal, Role
from fanout.bus import Bus, LocalBus
from fanout.limits import LocalRateLimiter
from server.core import Core
from store.accounts import contacts
from store.accounts.contacts import ContactRepository
from store.engine import Engine
from store.messaging import (
    conversations,
    deletions,
    handovers,
    messages,
    places,
    reactions,
    receipts,
    unread,
)
from store.messaging.conversations import ConversationRepository
from store.messaging.deletions import DeletionRepository
from store.messaging.handovers import HandoverRepository
from store.messaging.messages import MessageRepository
from store.messaging.places import PlaceRepository
from store.messaging.reactions import ReactionRepository
from store.messaging.receipts import ReceiptRepository
from store.sqlite import SqliteEngine
from store.uploads import uploads
from store.uploads.uploads import UploadRepository
from tests.support.local import LocalOutlet, TurnedClock, encode, local_client

COLLECTIONS = (
    *conversations.COLLECTIONS,
    *handovers.COLLECTIONS,
    *places.COLLECTIONS,
    *deletions.COLLECTIONS,
    *messages.COLLECTIONS,
    *contacts.COLLECTIONS,
    *reactions.COLLECTIONS,
    *receipts.COLLECTIONS,
    *unread.COLLECTIONS,
    *uploads.COLLECTIONS,
)
STRANGERS = (1000, 3600.0)
"""How often somebody is added by strangers."""

EVENTS = (*conversation_rules.EVENTS, *message_rules.EVENTS)

_CONVERSATION: TypeAdapter[Conversation] = TypeAdapter(Conversation)
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


class _Nobody(NamedTuple):
    shown: int = 0
    more: bool = False
    mentions: int = 0


class NotedUnread:
    """In place of `actions.messaging.unread`: counts nothing and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def sent(self, _org: str, event: StoredEvent) -> None:
        message = event.content()
        conversation, mentions = message["conversation"], message["mentions"]
        self.told.append(("created", conversation, event.seq, message["sender"], mentions))

    def deleted(self, _org: str, event: StoredEvent) -> None:
        gone = event.content()
        self.told.append(("deleted", gone["conversation"], gone["seq"]))

    async def counts(
        self, org: str, user: str, conversations: Sequence[str]
    ) -> Mapping[str, _Nobody]:
        return {}


class Everybody:
    """In place of `store.accounts.accounts`: who there is, by organization."""

    def __init__(self) -> None:
        self.users: dict[str, set[str]] = {}
        """Who is taken out of these is disabled."""
        self.ever: dict[str, set[str]] = {}

    async def existing(self, org: str, users: Sequence[str]) -> set[str]:
        return self.users.get(org, set()) & set(users)

    async def known(self, org: str, users: Sequence[str]) -> set[str]:
        return (self.users.get(org, set()) | self.ever.get(org, set())) & set(users)


class MessagingWorld:
    """Everything that conversations and messages are made of, on one node."""

    def __init__(
        self, engine: Engine, clock: TurnedClock, bus: Bus | None = None, head_check: float = 5.0
    ) -> None:
        """On a bus it is a node of a cluster."""
        self.engine = engine
        self.clock = clock
        self.core = Core(engine, bus or LocalBus(), clock, encode, head_check=head_check)
        self.hub = self.core.hub
        self.sequencer = self.core.sequencer
        self.publisher = self.core.publisher
        self.ledger = self.core.ledger
        self.clients = self.core.clients
        control = self.core.user_control
        self.rules = self.core.rules
        self.streams = self.core.streams
        self.people = Everybody()
        self.unread = NotedUnread()
        self.uploads = UploadRepository(engine)
        self.receipts = ReceiptRepository(engine)
        self.conversation_store = ConversationRepository(engine)
        self.message_store = MessageRepository(engine)
        self.memberships = Memberships(engine, self.conversation_store, control, clock)
        self.message_views = MessageViews(
            self.conversation_store,
            self.memberships,
            self.receipts,
            ReactionRepository(engine),
            self.people,
        )
        self.last_messages = LastMessages(engine, self.message_store)
        self.views = ConversationViews(
            self.conversation_store,
            self.message_store,
            self.memberships,
            self.message_views,
            self.last_messages,
            self.receipts,
            self.unread,
        )
        self.owners = Owners(
            self.conversation_store,
            self.people,
            self.memberships,
            self.ledger,
            clock,
        )
        self.handovers = Handovers(HandoverRepository(engine), self.owners, self.people, clock)
        self.limiter = LocalRateLimiter({"member.added": STRANGERS}, clock)
        self.strangers = Strangers(
            ContactRepository(engine), self.conversation_store, self.message_store, self.limiter
        )
        self.places = Places(self.conversation_store, PlaceRepository(engine), clock)
        self.conversations = Conversations(
            engine,
            self.conversation_store,
            self.people,
            self.memberships,
            self.views,
            self.owners,
            self.strangers,
            self.places,
            self.streams,
            self.ledger,
            clock,
        )
        self.members = Members(
            engine,
            self.conversation_store,
            self.people,
            self.memberships,
            self.views,
            self.conversations,
            self.owners,
            self.strangers,
            self.places,
            self.streams,
            self.ledger,
            clock,
        )
        self.roles = MemberRoles(
            self.conversation_store,
            self.people,
            self.views,
            self.members,
            self.owners,
            self.ledger,
            clock,
        )
        self.deletions = Deletions(
            self.conversation_store,
            DeletionRepository(engine),
            self.memberships,
            self.views,
            self.owners,
            self.hub,
            self.streams,
            self.ledger,
            clock,
        )
        self.messages = Messages(
            engine,
            self.message_store,
            self.uploads,
            self.memberships,
            self.message_views,
            self.last_messages,
            self.streams,
            self.ledger,
            clock,
        )
        self.history = History(
            self.message_store, self.messages, self.memberships, self.message_views
        )
        self.search = Search(
            self.message_store, self.conversation_store, self.memberships, self.message_views
        )
        self.pins = Pins(
            self.message_store, self.messages, self.memberships, self.message_views, clock
        )
        self.rules.declare(
            "messages",
            self.memberships.may_read,
            self.memberships.own,
            self.memberships.later,
            tells=True,
        )
        self.rules.veils.append(Veil(self.message_store).drawn)
        self.sequencer.observe(message_rules.MESSAGE_CREATED.name, self.unread.sent)
        self.sequencer.observe(message_rules.MESSAGE_DELETED.name, self.unread.deleted)
        self.sequencer.observe(conversation_rules.MEMBER_REMOVED.name, self.members.removed)
        self.sequencer.observe(conversation_rules.CONVERSATION_DELETED.name, self.deletions.deleted)

    def user(self, name: str, role: Role = Role.MEMBER, org: str = "org") -> Principal:
        """Somebody in an organization, with a login session."""
        for names in (self.people.users, self.people.ever):
            names.setdefault(org, set()).add(name)
        return Principal(name, org, role, f"login-{name}", 4e9)

    async def connect(
        self, who: Principal, resume: Mapping[str, Position] | None = None
    ) -> tuple[Client, LocalOutlet]:
        """A connection to the messages namespace, as the gateway makes it. What it is sent is
        checked against the declared events.
        """
        client, outlet = local_client(who, events=EVENTS)
        self.clients.add(client)
        await self.streams.enter(
            client, resume or {}, lambda streams: outlet.emit("ready", streams)
        )
        return client, outlet

    def disconnect(self, client: Client) -> None:
        """The connection has gone."""
        self.streams.exit(client)
        self.clients.remove(client)

    # -- short forms --------------------------------------------------------------------------

    async def open(
        self, who: Principal, *others: Principal, kind: Kind = Kind.GROUP, title: str | None = None
    ) -> Conversation:
        """Open a conversation under a key of its own."""
        found = await self.conversations.create(
            who,
            kind=kind,
            members=[each.user for each in others],
            title=title,
            client_id=f"create-{new_id()}",
        )
        return _CONVERSATION.validate_python(found, strict=True)

    async def send(self, who: Principal, conversation: str, body: str, **more: Any) -> Message:
        """Send a message under a key of its own."""
        draft = Draft(conversation, more.pop("client_id", f"send-{new_id()}"), body, **more)
        return _MESSAGE.validate_python(await self.messages.send(who, draft), strict=True)

    async def page(
        self,
        who: Principal,
        conversation: str,
        *,
        cursor: str | None = None,
        limit: int = 50,
        **wanted: Any,
    ) -> Page[Message]:
        """A page of history."""
        return await self.history.page(
            who, conversation, Wanted(**wanted), cursor=cursor, limit=limit
        )

    async def mine(self, who: Principal, *, limit: int = 50, **more: Any) -> list[Conversation]:
        """All of a user's conversations, page after page."""
        found: list[Conversation] = []
        cursor: str | None = None
        asked = {"kind": None, "archived": None, **more}
        while True:
            page = await self.views.mine(who, cursor=cursor, limit=limit, **asked)
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                return found


@asynccontextmanager
async def messaging_world(path: Path) -> AsyncIterator[MessagingWorld]:
    """A world with a fresh store."""
    clock = TurnedClock()
    engine = SqliteEngine(path / "parley.db", COLLECTIONS, clock=clock, synchronous="NORMAL")
    await engine.start()
    try:
        yield MessagingWorld(engine, clock)
    finally:
        await engine.stop()
