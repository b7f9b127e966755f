"""The features, put together: repositories over the engine, actions over those, commands over
actions.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from actions.access import Authenticator
from actions.accounts import Accounts, PasswordRules
from actions.api_keys import ApiKeys
from actions.avatars import Avatars
from actions.contacts import Contacts
from actions.conversation_views import ConversationViews
from actions.conversations import Conversations
from actions.deletions import Deletions
from actions.elsewhere import Elsewhere
from actions.expiry import Expirations
from actions.guesses import Guesses
from actions.handovers import Handovers
from actions.hashing import PasswordHasher
from actions.history import History
from actions.last_messages import LastMessages
from actions.lost_files import LostFiles
from actions.member_roles import MemberRoles
from actions.members import Members
from actions.memberships import Memberships
from actions.message_views import MessageViews
from actions.messages import Messages
from actions.owners import Owners
from actions.pictures import Pictures
from actions.pins import Pins
from actions.places import Places
from actions.presence import Presences
from actions.presence_watch import PresenceWatch
from actions.reactions import Reactions
from actions.receipts import Receipts
from actions.reconcile import Reconciler
from actions.retention import Retention
from actions.search import Search
from actions.sessions import Sessions
from actions.strangers import Strangers
from actions.tokens import Tokens
from actions.typing import Typing
from actions.unread import Unread
from actions.unread_totals import UnreadTotals
from actions.uploads import Limits as UploadLimits
from actions.uploads import Uploads
from actions.users import Users
from actions.veil import Veil, as_deleted
from actions.writing import is_shut_out
from config.load import SettingsError
from config.settings import PasswordRule, Registration, Settings
from domain import conversations, messages, presence, reactions, receipts, typing, unread
from domain.conversations import CONVERSATION_DELETED, CONVERSATION_UPDATED, MEMBER_REMOVED
from domain.errors import Conflict, Invalid
from domain.events import EventType
from domain.presence import SEEN_EVERY
from fanout.limits import RateLimiter
from fanout.presence import PresenceRegistry
from handlers.auth import AuthCommands
from handlers.command import CommandSet
from handlers.contacts import ContactCommands
from handlers.conversations import ConversationCommands
from handlers.history import HistoryCommands
from handlers.members import MemberCommands
from handlers.messages import MessageCommands
from handlers.pins import PinCommands
from handlers.presence import PresenceCommands
from handlers.reactions import ReactionCommands
from handlers.receipts import ReceiptCommands
from handlers.streams import StreamCommands, SyncCommands
from handlers.typing import TypingCommands
from handlers.unread import UnreadCommands
from handlers.uploads import UploadCommands
from handlers.users import ApiKeyCommands, UserCommands
from server.fabric import Fabric
from server.gateway import Follower, Greeting
from store import accounts as accounts_store
from store import contacts as contacts_store
from store import conversations as conversations_store
from store import deletions as deletions_store
from store import guesses as guesses_store
from store import handovers as handovers_store
from store import leases as leases_store
from store import messages as messages_store
from store import nodes as nodes_store
from store import places as places_store
from store import presence as presence_store
from store import reactions as reactions_store
from store import receipts as receipts_store
from store import sessions as sessions_store
from store import unread as unread_store
from store import uploads as uploads_store
from store.accounts import AccountRepository
from store.blobs import Blobs
from store.contacts import ContactRepository
from store.conversations import ConversationRepository
from store.deletions import DeletionRepository
from store.engine import Collection
from store.guesses import GuessRepository
from store.handovers import HandoverRepository
from store.messages import MessageRepository
from store.places import PlaceRepository
from store.presence import PresenceRepository
from store.reactions import ReactionRepository
from store.receipts import ReceiptRepository
from store.sessions import SessionRepository
from store.unread import UnreadRepository
from store.uploads import UploadRepository

COLLECTIONS: tuple[Collection, ...] = (
    *accounts_store.COLLECTIONS,
    *sessions_store.COLLECTIONS,
    *guesses_store.COLLECTIONS,
    *contacts_store.COLLECTIONS,
    *conversations_store.COLLECTIONS,
    *handovers_store.COLLECTIONS,
    *places_store.COLLECTIONS,
    *deletions_store.COLLECTIONS,
    *messages_store.COLLECTIONS,
    *receipts_store.COLLECTIONS,
    *unread_store.COLLECTIONS,
    *reactions_store.COLLECTIONS,
    *presence_store.COLLECTIONS,
    *uploads_store.COLLECTIONS,
    *leases_store.COLLECTIONS,
    *nodes_store.COLLECTIONS,
)
"""Everything that is stored."""

EVENTS: tuple[EventType, ...] = (
    *conversations.EVENTS,
    *messages.EVENTS,
    *receipts.EVENTS,
    *unread.EVENTS,
    *typing.EVENTS,
    *reactions.EVENTS,
    *presence.EVENTS,
)
"""Everything that is told."""

TYPING_BLOCKED = "typing.blocked"
"""The order to end what a user types to somebody who has blocked this user."""

HOUR = 3600.0
MINUTE = 60.0
LEASE_RENEWED = 5.0
"""Seconds: a node that dies takes its connections offline within a minute."""


class Job(NamedTuple):
    """Work that is done again and again."""

    name: str
    seconds: float
    run: Callable[[], Awaitable[object]]
    everywhere: bool = False
    """Done by every node for itself; otherwise by one for all, and safe to be done by two at once
    all the same: see `server.shared_jobs`."""


class Features:
    """All features of one node."""

    def __init__(
        self,
        fabric: Fabric,
        settings: Settings,
        blobs: Blobs,
        limiter: RateLimiter,
        registry: PresenceRegistry,
    ) -> None:
        self._fabric = fabric
        self._settings = settings
        self.command_sets: list[CommandSet] = [
            StreamCommands(fabric.streams),
            SyncCommands(fabric.streams),
        ]
        self.followers: list[Follower] = []
        self.greetings: dict[str, Greeting] = {}
        self.services: list[Callable[[], Awaitable[object]]] = []
        """Run for as long as the node does."""
        self.jobs: list[Job] = []
        retention = Retention(
            fabric.engine,
            fabric.clock,
            keep=settings.retention_events,
            age=settings.retention_age,
        )
        self.jobs.append(Job("retention", HOUR / 6, retention.run))
        self._add_accounts(limiter)
        self._add_messaging(blobs, limiter)
        self._add_presence(registry)

    def _add_accounts(self, limiter: RateLimiter) -> None:
        fabric, settings = self._fabric, self._settings
        users, sessions = AccountRepository(fabric.engine), SessionRepository(fabric.engine)
        tokens = Tokens(
            settings.secret_key.get_secret_value(),
            settings.token_issuer,
            settings.token_audience,
            settings.access_ttl,
            fabric.clock,
        )
        self.authenticator = Authenticator(
            tokens,
            users,
            sessions,
            fabric.control,
            fabric.clients,
            limiter,
            fabric.clock,
            settings.access_ttl,
        )
        self.hasher = PasswordHasher(settings.bcrypt_cost)
        self.pictures = Pictures(
            max_pixels=settings.image_pixels, metadata=settings.image_metadata.value
        )
        expirations = Expirations(self.authenticator, fabric.clock)
        logins = Sessions(
            sessions,
            users,
            tokens,
            self.authenticator,
            expirations,
            fabric.clients,
            fabric.clock,
            settings.refresh_ttl,
            settings.refresh_grace,
            settings.session_max_age,
        )
        self.avatars = Avatars(users, UploadRepository(fabric.engine), fabric.clock)
        guesses = Guesses(GuessRepository(fabric.engine), fabric.clock)
        self.accounts = Accounts(
            users,
            sessions,
            logins,
            self.hasher,
            limiter,
            fabric.clock,
            settings.registration.value,
            guesses,
            PasswordRules(settings.password_rule is PasswordRule.LENGTH, (settings.token_issuer,)),
            self.avatars,
        )
        managed = Users(
            users,
            logins,
            self.authenticator,
            fabric.clock,
            sessions,
            takes_registrations=settings.registration is not Registration.CLOSED,
        )
        self.keys = keys = ApiKeys(sessions, self.authenticator, fabric.clock, settings.api_key_ttl)
        contacts = Contacts(ContactRepository(fabric.engine), users, fabric.clock)
        self.logins, self.contacts, self.managed = logins, contacts, managed
        self.people = users
        self.followers.append(expirations)
        self.services += [self.authenticator.run, expirations.run]
        self.jobs.append(Job("sessions", HOUR, logins.trim))
        self.jobs.append(Job("guesses", HOUR, guesses.trim))
        self.command_sets += [
            AuthCommands(self.accounts, logins),
            UserCommands(self.accounts, managed),
            ApiKeyCommands(keys),
            ContactCommands(contacts),
        ]

    def _add_messaging(self, blobs: Blobs, limiter: RateLimiter) -> None:
        fabric, settings = self._fabric, self._settings
        engine, clock = fabric.engine, fabric.clock
        rooms, posts = ConversationRepository(engine), MessageRepository(engine)
        positions, reacted = ReceiptRepository(engine), ReactionRepository(engine)
        files = UploadRepository(engine)
        memberships = Memberships(engine, rooms, fabric.user_control, clock)
        unread_counts = UnreadRepository(engine)
        self.unread = counts = Unread(
            unread_counts,
            memberships,
            fabric.hub,
            fabric.clients,
            fabric.publisher,
            clock,
        )
        fabric.streams.on_expelled.append(counts.expelled)
        totals = UnreadTotals(counts, unread_counts, memberships, fabric.sequencer)
        self.greetings[conversations.NAMESPACE] = totals.at_ready
        fabric.sequencer.observe(CONVERSATION_UPDATED.name, totals.settings_changed)
        fabric.sequencer.observe(messages.MESSAGE_DELETED.name, totals.hidden)
        fabric.sequencer.observe(messages.MESSAGE_EDITED.name, totals.edited)
        message_views = MessageViews(rooms, memberships, positions, reacted, self.people)
        last = LastMessages(engine, posts)
        views = ConversationViews(rooms, posts, memberships, message_views, last, positions, counts)
        owners = Owners(engine, rooms, self.people, memberships, fabric.publisher, clock)
        handovers = Handovers(HandoverRepository(engine), owners, self.people, clock)
        self.managed.before_disabled.append(handovers.begin)
        self.managed.on_disabled.append(handovers.go_on)
        self.keys.before_agent_ends.append(handovers.begin)
        self.keys.on_agent_ended.append(handovers.go_on)
        self.services.append(handovers.run)
        self.jobs.append(Job("handovers", MINUTE, handovers.finish))
        strangers = Strangers(ContactRepository(engine), rooms, posts, limiter)
        places = Places(rooms, PlaceRepository(engine), clock)
        opened = Conversations(
            engine,
            rooms,
            self.people,
            memberships,
            views,
            owners,
            strangers,
            places,
            fabric.streams,
            fabric.publisher,
            clock,
        )
        members = Members(
            engine,
            rooms,
            self.people,
            memberships,
            views,
            opened,
            owners,
            strangers,
            places,
            fabric.streams,
            fabric.publisher,
            clock,
        )
        roles = MemberRoles(
            engine, rooms, self.people, views, members, owners, fabric.publisher, clock
        )
        deletions = Deletions(
            engine,
            rooms,
            DeletionRepository(engine),
            memberships,
            views,
            owners,
            fabric.hub,
            fabric.streams,
            fabric.publisher,
            clock,
        )
        self.services.append(deletions.run)
        self.jobs.append(Job("deletions", MINUTE, deletions.finish))
        fabric.sequencer.observe(MEMBER_REMOVED.name, members.removed)
        fabric.sequencer.observe(CONVERSATION_DELETED.name, deletions.deleted)
        if not fabric.bus.alone:
            reconciler = Reconciler(
                fabric.clients, fabric.rules, fabric.streams, fabric.user_control
            )
            fabric.streams.on_expelled.append(reconciler.check_user)
            fabric.streams.on_admitted.append(reconciler.check_user)
            self.services.append(reconciler.run)
        sent = Messages(
            engine,
            posts,
            files,
            memberships,
            message_views,
            last,
            counts,
            fabric.streams,
            fabric.publisher,
            clock,
        )
        self.receipts = Receipts(
            engine,
            positions,
            rooms,
            sent,
            memberships,
            counts,
            fabric.clients,
            fabric.publisher,
            clock,
        )
        self.followers += [self.unread, totals, self.receipts]
        if not fabric.bus.alone:
            Elsewhere(fabric.sequencer, fabric.user_control, self.unread, self.receipts)
        history = History(posts, sent, memberships, message_views)
        search = Search(posts, rooms, memberships, message_views)
        pins = Pins(posts, sent, memberships, message_views, clock)
        self.uploads = Uploads(
            files,
            blobs,
            fabric.rules,
            clock,
            UploadLimits(settings.upload_max, settings.upload_quota, settings.upload_unattached),
            self.pictures,
        )
        lost = LostFiles(engine, posts, files, message_views, fabric.publisher, clock)
        self.uploads.on_removed += [lost.removed, self.avatars.removed]
        self.uploads.shows = self.avatars.shows
        self.uploads.hidden = posts.hidden
        fabric.rules.declare(
            conversations.NAMESPACE,
            memberships.may_read,
            memberships.own,
            memberships.later,
            tells=True,
        )
        fabric.rules.veils.append(Veil(posts).drawn)
        fabric.sequencer.veil = as_deleted
        shut_out = partial(is_shut_out, memberships, ContactRepository(engine))
        reacting = Reactions(engine, reacted, sent, memberships, fabric.publisher, clock)
        fabric.rules.declare(reactions.NAMESPACE, reacting.may_read, reacting.own)
        writing = Typing(fabric.publisher, shut_out, clock, memberships.is_of)
        fabric.user_control.on(TYPING_BLOCKED, writing.blocked)

        def blocked(org: str, blocker: str, blocked: str, there: bool) -> None:
            if there:
                fabric.user_control.send([blocked], TYPING_BLOCKED, org=org, by=blocker)

        self.contacts.on_block.append(blocked)
        fabric.sequencer.observe(messages.MESSAGE_CREATED.name, writing.sent)
        fabric.streams.on_expelled.append(writing.end)
        self.jobs.append(Job("uploads", HOUR, self.uploads.sweep))
        self.jobs.append(Job("creations", HOUR, opened.trim))
        self.command_sets += [
            ConversationCommands(opened, deletions, views),
            MemberCommands(members, roles, views),
            MessageCommands(sent),
            HistoryCommands(history, search),
            PinCommands(pins),
            ReceiptCommands(self.receipts),
            UnreadCommands(totals),
            ReactionCommands(reacting),
            TypingCommands(writing),
            UploadCommands(self.uploads),
        ]

    def _add_presence(self, registry: PresenceRegistry) -> None:
        fabric, settings = self._fabric, self._settings
        fabric.connect_presence(registry)
        kept = PresenceRepository(fabric.engine)
        self.presences = Presences(
            registry, kept, fabric.control, fabric.clock, settings.presence_grace
        )
        self.presence_watch = PresenceWatch(
            registry,
            kept,
            ContactRepository(fabric.engine),
            fabric.rules,
            fabric.hub,
            fabric.clients,
            fabric.publisher,
            fabric.control,
            fabric.clock,
        )
        self.logins.on_ended.append(self.presences.logged_out)
        self.contacts.on_block.append(self.presence_watch.blocked)
        self.followers.append(self.presences)
        self.jobs += [
            Job("presence", LEASE_RENEWED, self.presences.maintain, everywhere=True),
            Job("last_seen", SEEN_EVERY, self.presences.keep_seen, everywhere=True),
        ]
        self.command_sets.append(PresenceCommands(self.presences, self.presence_watch))

    async def start(self) -> None:
        """What must be there before the first request.

        Raises:
            SettingsError: the first administrator cannot be made.
            Unavailable: the store is out of reach.
        """
        owned = await self.accounts.ensure_organization()
        await self.authenticator.start()
        email, password = self._settings.admin_email, self._settings.admin_password
        if email and password:
            try:
                await self.accounts.ensure_first_admin(email, password.get_secret_value())
            except Invalid as error:
                problem = error.errors[0]["message"]
                raise SettingsError(("PARLEY_ADMIN_PASSWORD", problem)) from None
            except Conflict:
                problem = "is of an account with another password than PARLEY_ADMIN_PASSWORD"
                raise SettingsError(("PARLEY_ADMIN_EMAIL", problem)) from None
        elif email and not owned:  # later it may be taken out of the settings
            problem = "is missing: the first administrator needs both"
            raise SettingsError(("PARLEY_ADMIN_PASSWORD", problem))

    async def stop(self) -> None:
        """Let go of what the features hold."""
        await self.presence_watch.close()
        await self.presences.close()
        await self.unread.close()
        await self.receipts.close()
        self.hasher.close()
        self.pictures.close()
