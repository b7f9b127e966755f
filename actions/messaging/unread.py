"""Unread counts, told to all devices of a user.

For users who are connected here the counts are kept in memory: loaded when something first
happens in one of their conversations, and from then on moved by what happens. A new message costs
the same whether ten or ten thousand have not read it: it is noted once for its conversation, and
added to the counts of the users at most once a second. The counts of users who are not connected
are not kept.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import islice
from typing import cast

import structlog

from actions.connections.clients import Client, Clients, Outlet
from actions.messaging.memberships import Memberships
from actions.messaging.unread_counts import Entry, Fact, Feed, Inbox
from actions.pacer import Pacer
from domain.clock import Clock, timestamp
from domain.errors import ParleyError
from domain.events import StoredEvent
from domain.messaging.conversations import stream_of
from domain.messaging.messages import Message, MessageDeleted
from domain.messaging.unread import MAX_UNREAD, NAMESPACE, UNREAD_INTERVAL, UNREAD_UPDATED, Counts
from domain.messaging.unread import Unread as UnreadData
from fanout.hub import Hub
from fanout.publisher import Publisher
from store.messaging.unread import Counted, UnreadRepository

log = structlog.get_logger(__name__)

LOADED_AT_ONCE = 20
"""Users whose counts are loaded together."""

LOAD_PAUSE = 0.05
"""Seconds between two loads, so that many who come at the same time do not slow others down."""

RETRY = 1.0
"""Seconds after which a load is tried again when the store was out of reach."""


class Unread:
    """Counts what users have not read and tells their devices."""

    def __init__(
        self,
        repository: UnreadRepository,
        memberships: Memberships,
        hub: Hub,
        clients: Clients,
        publisher: Publisher,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._memberships = memberships
        self._hub = hub
        self._clients = clients
        self._publisher = publisher
        self._clock = clock
        self._feeds: dict[str, Feed] = {}
        self._inboxes: dict[str, Inbox] = {}
        self._wanted: dict[Inbox, set[str]] = {}
        """Conversations to be loaded; for an inbox that is not loaded yet, all are."""
        self._loader: asyncio.Task[None] | None = None
        self._pacer: Pacer[Feed | Entry] = Pacer(self._work, interval=UNREAD_INTERVAL)

    @property
    def kept(self) -> tuple[int, int]:
        """Users and conversations of which something is kept in memory."""
        return len(self._inboxes), len(self._feeds)

    # -- asked --------------------------------------------------------------------------------

    async def counts(self, org: str, user: str, conversations: Sequence[str]) -> dict[str, Counts]:
        """What a user has not read, by conversation. Those the user is not in are left out."""
        found: dict[str, Counts] = {}
        inbox = self._inboxes.get(user)
        if inbox is not None and inbox.org == org:
            for each in conversations:
                entry = inbox.entries.get(each)
                if entry is not None and self._is_right(entry):
                    entry.fold()
                    found[each] = entry.counts
        missing = [(each, user) for each in conversations if each not in found]
        counted = await self._repository.count(org, missing)
        found.update({conversation: each.counts for (conversation, _), each in counted.items()})
        return found

    def kept_of(self, user: str) -> Inbox | None:
        """What is kept of a user, if all of the user's counts are."""
        inbox = self._inboxes.get(user)
        return inbox if inbox is not None and inbox.loaded else None

    def is_waiting(self, inbox: Inbox) -> bool:
        """Whether some of a user's counts are being made anew."""
        return inbox in self._wanted or any(
            inbox.user in entry.feed.counting for entry in inbox.entries.values()
        )

    # -- told ---------------------------------------------------------------------------------

    def sent(self, _org: str, event: StoredEvent) -> None:
        """A message was published, by whichever node."""
        message: Message = event.content()
        self.created(message["conversation"], event.seq, message["sender"], message["mentions"])

    def created(self, conversation: str, seq: int, sender: str, mentions: Sequence[str]) -> None:
        """A message was published."""
        feed = self._feeds.get(conversation) or self._followed(conversation)
        if feed is None:
            return
        if seq > feed.last:
            feed.recent.append(Fact(seq, sender, mentions))
            self._touch(feed)
        elif all(fact.seq != seq for fact in feed.recent):
            # Late: who has counted beyond it counts again.
            if feed.recent and seq > feed.recent[0].seq:
                place = bisect_right(feed.recent, seq, key=lambda fact: fact.seq)
                feed.recent.insert(place, Fact(seq, sender, mentions))
            self._count_again(feed)
            for entry in feed.entries.values():
                if entry.through >= seq > entry.floor:
                    self._want(entry.inbox, conversation)

    def deleted(self, _org: str, event: StoredEvent) -> None:
        """A message was deleted for everyone, on whichever node. Of one that is not among the newest
        it is not known whom it mentioned: who has counted it counts again.
        """
        told: MessageDeleted = event.content()
        conversation, seq = told["conversation"], told["seq"]
        if event.stream != stream_of(conversation):
            return  # in a user's own stream: for this user alone (`UnreadTotals.hidden`)
        feed = self._feeds.get(conversation) or self._followed(conversation)
        if feed is None:
            return
        self._count_again(feed)
        gone = next((fact for fact in feed.recent if fact.seq == seq), None)
        feed.recent = [fact for fact in feed.recent if fact.seq != seq]
        for user, entry in feed.entries.items():
            if seq in entry.hidden or not entry.floor < seq <= entry.through:
                continue
            if event.seq <= entry.counted:
                continue
            if gone is None or entry.counts.more:
                self._want(entry.inbox, conversation)
                continue
            unread, mentioned = gone.adds(user)
            entry.set(entry.counts.unread - unread, entry.counts.mentions - mentioned)
        self._touch(feed)

    def edited(self, conversation: str, seq: int, mentions: Sequence[str]) -> None:
        """A message was changed, and may mention others than before."""
        feed = self._feeds.get(conversation) or self._followed(conversation)
        if feed is None:
            return
        self._count_again(feed)
        place = bisect_right(feed.recent, seq - 1, key=lambda fact: fact.seq)
        old: Sequence[str] | None = None
        if place < len(feed.recent) and (fact := feed.recent[place]).seq == seq:
            old = fact.mentions
            feed.recent[place] = fact._replace(mentions=mentions)
        for user, entry in feed.entries.items():
            # What it mentioned before is known of the newest alone.
            was = entry.counts.mentions > 0 if old is None else user in old
            now = user in mentions
            is_news = was or now if old is None else was is not now
            if is_news and entry.floor < seq <= entry.through:
                self._want(entry.inbox, conversation)
        # Who is here and was not counted yet is.
        self._touch(feed)

    def recount_of(self, user: str) -> None:
        """Count everything again that is kept of a user: something may have been missed."""
        inbox = self._inboxes.get(user)
        if inbox is not None:
            for conversation in inbox.entries:
                self._want(inbox, conversation)

    def read(self, org: str, user: str, conversation: str, seq: int) -> None:
        """A user has read everything in a conversation up to `seq`."""
        feed = self._feeds.get(conversation)
        if feed is not None and user in feed.counting:
            feed.counting[user] = True
        inbox = self._inboxes.get(user)
        entry = inbox.entries.get(conversation) if inbox is not None else None
        if inbox is None or entry is None:
            self._request(org, user, conversation)
            return
        entry.fold()
        if seq > entry.floor:
            if entry.read(seq):
                self._pacer.touch(entry)
            else:
                self._want(inbox, conversation)

    def recount(self, org: str, user: str, conversation: str) -> None:
        """Something else has changed in what a user has to read in a conversation."""
        feed = self._feeds.get(conversation)
        if feed is not None and user in feed.counting:
            feed.counting[user] = True
        self._request(org, user, conversation)

    def expelled(self, user: str, stream: str) -> None:
        """A user no longer follows a stream: if it is a conversation's, its count is gone."""
        namespace, _, conversation = stream.partition("/")
        if namespace != NAMESPACE:
            return
        inbox = self._inboxes.get(user)
        entry = inbox.entries.get(conversation) if inbox is not None else None
        if entry is not None:
            self._drop(entry)
            self._send(entry)
        elif inbox is None or not inbox.loaded:
            # The total that was told with `ready` may have it.
            for client in self._clients.of_user(user, NAMESPACE):
                self._request(client.principal.org, user, conversation)

    # -- coming and going ---------------------------------------------------------------------

    async def entered(self, client: Client, resumed: Collection[str]) -> None:
        """A client is in; one that was here before is told where it stands now."""
        if client.namespace == NAMESPACE and resumed:
            self.resend(
                client,
                [stream.partition("/")[2] for stream in resumed if stream in client.streams],
            )

    async def left(self, client: Client) -> None:
        """A client has gone: with the last one, what was kept for its user."""
        user = client.principal.user
        inbox = self._inboxes.get(user)
        if inbox is None or self._clients.has(user, NAMESPACE):
            return
        del self._inboxes[user]
        self._wanted.pop(inbox, None)
        for entry in list(inbox.entries.values()):
            self._drop(entry)

    def resend(self, client: Client, conversations: Sequence[str]) -> None:
        """Tell a client's user again what is unread in some conversations, soon."""
        for each in conversations:
            if each == client.principal.user:
                continue
            inbox = self._inboxes.get(client.principal.user)
            entry = inbox.entries.get(each) if inbox is not None else None
            if entry is None:
                self._request(client.principal.org, client.principal.user, each)
            else:
                entry.sent = None
                self._pacer.touch(entry)

    async def close(self) -> None:
        """Tell nobody anything any more."""
        self._pacer.close()
        if self._loader is not None:
            self._loader.cancel()
            await asyncio.gather(self._loader, return_exceptions=True)

    # -- keeping ------------------------------------------------------------------------------

    def _followed(self, conversation: str) -> Feed | None:
        """A new feed, if somebody here follows the conversation."""
        if not self._hub.occupied(stream_of(conversation)):
            return None
        feed = self._feeds[conversation] = Feed(conversation)
        return feed

    def _is_right(self, entry: Entry) -> bool:
        """Whether an entry waits for no count from the store."""
        wanted = self._wanted.get(entry.inbox, ())
        return entry.inbox.user not in entry.feed.counting and (
            entry.feed.conversation not in wanted
        )

    def _touch(self, feed: Feed) -> None:
        feed.changed = True
        self._pacer.touch(feed)

    @staticmethod
    def _count_again(feed: Feed) -> None:
        for user in feed.counting:
            feed.counting[user] = True

    def _drop(self, entry: Entry) -> None:
        inbox, feed = entry.inbox, entry.feed
        entry.set(0, 0)
        inbox.entries.pop(feed.conversation, None)
        if feed.entries.get(inbox.user) is entry:
            del feed.entries[inbox.user]
        self._drop_if_unused(feed)

    def _drop_if_unused(self, feed: Feed) -> None:
        unused = not feed.entries and not feed.counting and not self._hub.occupied(feed.stream)
        if unused and self._feeds.get(feed.conversation) is feed:
            del self._feeds[feed.conversation]

    def _work(self, what: Feed | Entry) -> None:
        if isinstance(what, Feed):
            self._count(what)
        else:
            self._tell(what)

    def _count(self, feed: Feed) -> None:
        """Add what is new in a conversation to the counts of all who are connected here."""
        feed.changed = False
        present: set[str] = set()
        for outlet in cast("Collection[Outlet]", self._hub.members(feed.stream)):
            client: Client = outlet.state
            user = client.principal.user
            if user not in present:
                present.add(user)
                if user not in feed.entries:
                    self._request(client.principal.org, user, feed.conversation)
        for user, entry in list(feed.entries.items()):
            if user not in present:
                self._drop(entry)
                continue
            entry.fold()
            if entry.is_news:
                self._pacer.touch(entry)
        feed.shorten()
        self._drop_if_unused(feed)

    def _tell(self, entry: Entry) -> None:
        if entry.feed.entries.get(entry.inbox.user) is not entry:
            return
        entry.fold()
        if entry.is_news:
            entry.sent = entry.counts
            self._send(entry)

    def _send(self, entry: Entry) -> None:
        inbox = entry.inbox
        inbox.told = inbox.total
        data: UnreadData = {
            "conversation": entry.feed.conversation,
            "unread": entry.counts.shown,
            "more": entry.counts.more,
            "mentions": min(entry.counts.mentions, MAX_UNREAD),
            "total": inbox.total,
        }
        self._publisher.send(
            UNREAD_UPDATED,
            [
                client.outlet
                for client in self._clients.of_user(inbox.user, NAMESPACE)
                if client.ready
            ],
            timestamp(self._clock.now()),
            data,
            key=entry.feed.conversation,
        )

    # -- loading ------------------------------------------------------------------------------

    def _request(self, org: str, user: str, conversation: str) -> None:
        """Load a user's count in a conversation, then tell the user; not if nobody would hear."""
        inbox = self._inboxes.get(user)
        if inbox is None:
            if not self._clients.has(user, NAMESPACE):
                return
            inbox = self._inboxes[user] = Inbox(org, user)
        self._want(inbox, conversation)

    def _want(self, inbox: Inbox, conversation: str) -> None:
        inbox.tell.add(conversation)
        self._wanted.setdefault(inbox, set()).add(conversation)
        if self._loader is None:
            self._loader = asyncio.get_running_loop().create_task(self._load())

    async def _load(self) -> None:
        delayed = False
        try:
            while self._wanted:
                batch = {each: self._wanted.pop(each) for each in self._next_batch()}
                pause = LOAD_PAUSE
                try:
                    await self._load_batch(batch)
                    delayed = False
                except ParleyError as error:
                    if not delayed:
                        log.warning("unread_load_delayed", code=error.code, users=len(batch))
                    delayed = True
                    self._want_again(batch)
                    pause = RETRY
                except Exception:
                    log.exception("unread_load_failed", users=len(batch))
                if self._wanted:
                    await asyncio.sleep(pause)
        finally:
            self._loader = None

    def _next_batch(self) -> list[Inbox]:
        """Inboxes of one organization."""
        org = next(iter(self._wanted)).org
        return list(islice((each for each in self._wanted if each.org == org), LOADED_AT_ONCE))

    def _want_again(self, batch: dict[Inbox, set[str]]) -> None:
        for inbox, conversations in batch.items():
            if self._inboxes.get(inbox.user) is inbox:
                self._wanted.setdefault(inbox, set()).update(conversations)

    async def _load_batch(self, batch: dict[Inbox, set[str]]) -> None:
        pairs: dict[tuple[str, str], Inbox] = {}
        whole = [inbox for inbox in batch if not inbox.loaded]
        org = next(iter(batch)).org
        lists = await asyncio.gather(
            *(self._memberships.of_user(org, inbox.user) for inbox in whole)
        )
        for inbox, mine in zip(whole, lists, strict=True):
            batch[inbox] = batch[inbox] | set(mine)
        for inbox, conversations in batch.items():
            for each in conversations:
                pairs[each, inbox.user] = inbox
                # From here on what happens is noted, so nothing falls between count and notes.
                feed = self._feeds.get(each)
                if feed is None:
                    feed = self._feeds[each] = Feed(each)
                feed.counting[inbox.user] = False
        counted: dict[tuple[str, str], Counted] | None = None
        gone: list[Entry] = []
        try:
            counted = await self._repository.count(org, list(pairs))
        finally:
            for (conversation, user), inbox in pairs.items():
                feed = self._feeds[conversation]
                again = feed.counting.pop(user)
                if counted is not None and self._inboxes.get(user) is inbox:
                    if (conversation, user) not in counted and (
                        conversation in inbox.tell or conversation in inbox.entries
                    ):
                        gone.append(Entry(inbox, feed))
                    self._take(inbox, feed, counted.get((conversation, user)), again=again)
                self._drop_if_unused(feed)
        for inbox in whole:
            inbox.loaded = True
        for entry in gone:
            self._send(entry)

    def _take(self, inbox: Inbox, feed: Feed, counted: Counted | None, *, again: bool) -> None:
        """Go on from what was counted."""
        conversation = feed.conversation
        entry = inbox.entries.get(conversation)
        is_new = entry is None
        if counted is None:
            inbox.tell.discard(conversation)
            if entry is not None:
                self._drop(entry)
            return
        if again or counted.through < feed.dropped:
            self._want(inbox, conversation)
            return
        if entry is None:
            entry = inbox.entries[conversation] = feed.entries[inbox.user] = Entry(inbox, feed)
        entry.floor = counted.floor
        entry.through = entry.counted = counted.through
        entry.hidden = counted.hidden
        entry.set(*counted.counts)
        entry.hush(counted.quiet)
        if conversation in inbox.tell or feed.changed:
            # What happened and is still to be told may be in the count already.
            inbox.tell.discard(conversation)
            entry.sent = None
        elif is_new:
            entry.sent = entry.counts
        entry.fold()
        if entry.counts != entry.sent:
            self._pacer.touch(entry)
