"""Messaging: conversations, messages, receipts, unread counts, reactions, typing."""

from collections.abc import Mapping
from functools import partial

from actions.messaging.conversation_views import ConversationViews
from actions.messaging.conversations import Conversations
from actions.messaging.deletions import Deletions
from actions.messaging.handovers import Handovers
from actions.messaging.history import History
from actions.messaging.last_messages import LastMessages
from actions.messaging.lost_files import LostFiles
from actions.messaging.member_roles import MemberRoles
from actions.messaging.members import Members
from actions.messaging.memberships import Memberships
from actions.messaging.message_views import MessageViews
from actions.messaging.messages import Messages
from actions.messaging.other_nodes import Elsewhere
from actions.messaging.owners import Owners
from actions.messaging.pins import Pins
from actions.messaging.places import Places
from actions.messaging.reactions import Reactions
from actions.messaging.receipts import Receipts
from actions.messaging.search import Search
from actions.messaging.strangers import Strangers
from actions.messaging.typing import Typing
from actions.messaging.unread import Unread
from actions.messaging.unread_totals import UnreadTotals
from actions.messaging.veil import Veil, as_deleted
from actions.messaging.writing import is_shut_out
from actions.streams.reconcile import Reconciler
from domain.events import EventType
from domain.messaging import conversations, messages, reactions, receipts, typing, unread
from domain.messaging.conversations import (
    CONVERSATION_DELETED,
    CONVERSATION_UPDATED,
    MEMBER_REMOVED,
)
from domain.messaging.messages import MESSAGE_CREATED, MESSAGE_DELETED, MESSAGE_EDITED
from domain.rates import HOUR, MINUTE, Rate
from fanout.limits import RateLimiter
from handlers.command import CommandSet
from handlers.messaging.conversations import ConversationCommands
from handlers.messaging.history import HistoryCommands
from handlers.messaging.members import MemberCommands
from handlers.messaging.messages import MessageCommands
from handlers.messaging.pins import PinCommands
from handlers.messaging.reactions import ReactionCommands
from handlers.messaging.receipts import ReceiptCommands
from handlers.messaging.typing import TypingCommands
from handlers.messaging.unread import UnreadCommands
from server.core import Core
from server.features.accounts import AccountsFeature
from server.features.feature import Feature, Job
from server.features.uploads import UploadsFeature
from store.accounts.contacts import ContactRepository
from store.engine import Collection
from store.messaging import conversations as conversations_store
from store.messaging import deletions as deletions_store
from store.messaging import handovers as handovers_store
from store.messaging import messages as messages_store
from store.messaging import places as places_store
from store.messaging import reactions as reactions_store
from store.messaging import receipts as receipts_store
from store.messaging import unread as unread_store
from store.messaging.conversations import ConversationRepository
from store.messaging.deletions import DeletionRepository
from store.messaging.handovers import HandoverRepository
from store.messaging.messages import MessageRepository
from store.messaging.places import PlaceRepository
from store.messaging.reactions import ReactionRepository
from store.messaging.receipts import ReceiptRepository
from store.messaging.unread import UnreadRepository

COLLECTIONS: tuple[Collection, ...] = (
    *conversations_store.COLLECTIONS,
    *handovers_store.COLLECTIONS,
    *places_store.COLLECTIONS,
    *deletions_store.COLLECTIONS,
    *messages_store.COLLECTIONS,
    *receipts_store.COLLECTIONS,
    *unread_store.COLLECTIONS,
    *reactions_store.COLLECTIONS,
)
EVENTS: tuple[EventType, ...] = (
    *conversations.EVENTS,
    *messages.EVENTS,
    *receipts.EVENTS,
    *unread.EVENTS,
    *typing.EVENTS,
    *reactions.EVENTS,
)
COMMANDS: tuple[type[CommandSet], ...] = (
    ConversationCommands,
    MemberCommands,
    MessageCommands,
    HistoryCommands,
    PinCommands,
    ReceiptCommands,
    UnreadCommands,
    ReactionCommands,
    TypingCommands,
)
LIMITS: Mapping[str, Rate] = {
    "member.added": Rate(100, HOUR),  # per user added: by those whom this one does not know
}

TYPING_BLOCKED = "typing.blocked"
"""The order to end what a user types to somebody who has blocked this user."""


def build(
    core: Core, limiter: RateLimiter, accounts: AccountsFeature, uploads: UploadsFeature
) -> Feature:
    """The feature on one node."""
    engine, clock, observe = core.engine, core.clock, core.sequencer.observe
    people, contacts = accounts.people, ContactRepository(engine)
    rooms, posts = ConversationRepository(engine), MessageRepository(engine)
    positions, reacted = ReceiptRepository(engine), ReactionRepository(engine)
    memberships = Memberships(engine, rooms, core.user_control, clock)

    kept = UnreadRepository(engine)
    counts = Unread(kept, memberships, core.hub, core.clients, core.publisher, clock)
    totals = UnreadTotals(counts, kept, memberships, core.sequencer)
    core.streams.on_expelled.append(counts.expelled)
    observe(CONVERSATION_UPDATED.name, totals.settings_changed)
    observe(MESSAGE_CREATED.name, counts.sent)
    observe(MESSAGE_DELETED.name, counts.deleted)
    observe(MESSAGE_DELETED.name, totals.hidden)
    observe(MESSAGE_EDITED.name, totals.edited)

    message_views = MessageViews(rooms, memberships, positions, reacted, people)
    last = LastMessages(engine, posts)
    views = ConversationViews(rooms, posts, memberships, message_views, last, positions, counts)

    owners = Owners(rooms, people, memberships, core.ledger, clock)
    handovers = Handovers(HandoverRepository(engine), owners, people, clock)
    accounts.users.before_disabled.append(handovers.begin)
    accounts.users.on_disabled.append(handovers.go_on)
    accounts.keys.before_agent_ends.append(handovers.begin)
    accounts.keys.on_agent_ended.append(handovers.go_on)
    strangers = Strangers(contacts, rooms, posts, limiter)
    places = Places(rooms, PlaceRepository(engine), clock)
    opened = Conversations(
        engine,
        rooms,
        people,
        memberships,
        views,
        owners,
        strangers,
        places,
        core.streams,
        core.ledger,
        clock,
    )
    members = Members(
        engine,
        rooms,
        people,
        memberships,
        views,
        opened,
        owners,
        strangers,
        places,
        core.streams,
        core.ledger,
        clock,
    )
    roles = MemberRoles(rooms, people, views, members, owners, core.ledger, clock)
    deletions = Deletions(
        rooms,
        DeletionRepository(engine),
        memberships,
        views,
        owners,
        core.hub,
        core.streams,
        core.ledger,
        clock,
    )
    observe(MEMBER_REMOVED.name, members.removed)
    observe(CONVERSATION_DELETED.name, deletions.deleted)
    services = [handovers.run, deletions.run]

    sent = Messages(
        engine,
        posts,
        uploads.files,
        memberships,
        message_views,
        last,
        core.streams,
        core.ledger,
        clock,
    )
    moved = Receipts(
        engine,
        positions,
        rooms,
        sent,
        memberships,
        counts,
        core.clients,
        core.publisher,
        clock,
    )
    if not core.bus.alone:
        reconciler = Reconciler(core.clients, core.rules, core.streams, core.user_control)
        core.streams.on_expelled.append(reconciler.check_user)
        core.streams.on_admitted.append(reconciler.check_user)
        services.append(reconciler.run)
        Elsewhere(core.user_control, counts, moved)
    lost = LostFiles(engine, posts, uploads.files, message_views, core.ledger, clock)
    uploads.uploads.on_removed.append(lost.removed)
    uploads.uploads.hidden = posts.hidden
    core.rules.declare(
        conversations.NAMESPACE,
        memberships.may_read,
        memberships.own,
        memberships.later,
        tells=True,
    )
    core.rules.veils.append(Veil(posts).drawn)
    core.sequencer.veil = as_deleted

    reacting = Reactions(reacted, sent, memberships, core.ledger, clock)
    core.rules.declare(reactions.NAMESPACE, reacting.may_read, reacting.own)

    shut_out = partial(is_shut_out, memberships, contacts)
    writing = Typing(core.publisher, shut_out, clock, memberships.is_of)
    core.user_control.on(TYPING_BLOCKED, writing.blocked)

    def blocked(org: str, blocker: str, blocked: str, there: bool) -> None:
        if there:
            core.user_control.send([blocked], TYPING_BLOCKED, org=org, by=blocker)

    accounts.contacts.on_block.append(blocked)
    observe(MESSAGE_CREATED.name, writing.sent)
    core.streams.on_expelled.append(writing.end)

    async def close() -> None:
        await counts.close()
        await moved.close()

    return Feature(
        name="messaging",
        commands=[
            ConversationCommands(opened, deletions, views),
            MemberCommands(members, roles, views),
            MessageCommands(sent),
            HistoryCommands(
                History(posts, sent, memberships, message_views),
                Search(posts, rooms, memberships, message_views),
            ),
            PinCommands(Pins(posts, sent, memberships, message_views, clock)),
            ReceiptCommands(moved),
            UnreadCommands(totals),
            ReactionCommands(reacting),
            TypingCommands(writing),
        ],
        followers=[counts, totals, moved],
        greetings={conversations.NAMESPACE: totals.at_ready},
        services=services,
        jobs=[
            Job("handovers", MINUTE, handovers.finish),
            Job("deletions", MINUTE, deletions.finish),
            Job("creations", HOUR, opened.trim),
        ],
        close=close,
    )
