"""What is kept in memory of what users have not read: pure counting, without I/O."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from domain.messaging.conversations import stream_of
from domain.messaging.unread import COUNTED, MAX_UNREAD, NONE, Counts, UnreadTotal

KEPT = 64
"""Messages of a conversation that are kept to count again what is behind a position."""


class Fact(NamedTuple):
    """A message, as far as it matters here."""

    seq: int
    sender: str
    mentions: Sequence[str]

    def adds(self, user: str) -> tuple[int, int]:
        """What it adds to a user's counts."""
        if self.sender == user:
            return 0, 0
        return 1, user in self.mentions


class Feed:
    """What happens in one conversation, and who keeps counts of it."""

    __slots__ = ("changed", "conversation", "counting", "dropped", "entries", "recent", "stream")

    def __init__(self, conversation: str) -> None:
        self.conversation = conversation
        self.stream = stream_of(conversation)
        self.recent: list[Fact] = []
        """The newest messages, ascending, without a hole."""
        self.dropped = 0
        """The greatest seq that was in `recent` and is no longer."""
        self.entries: dict[str, Entry] = {}
        self.counting: dict[str, bool] = {}
        """Users whose count is being loaded, and whether it must be loaded again."""
        self.changed = False
        """Whether something has happened that those who keep counts were not asked to tell yet."""

    @property
    def last(self) -> int:
        return self.recent[-1].seq if self.recent else self.dropped

    def after(self, seq: int) -> list[Fact]:
        """The messages behind a seq."""
        return self.recent[bisect_right(self.recent, seq, key=lambda fact: fact.seq) :]

    def shorten(self) -> None:
        surplus = len(self.recent) - KEPT
        if surplus > 0:
            self.dropped = self.recent[surplus - 1].seq
            del self.recent[:surplus]


def total_of(counts: Iterable[Counts]) -> UnreadTotal:
    """What is unread in several conversations, as the user is told."""
    total: UnreadTotal = {"total": 0, "mentions": 0, "more": False}
    for each in counts:
        total["total"] += each.shown
        total["mentions"] += min(each.mentions, MAX_UNREAD)
        total["more"] = total["more"] or each.more
    return total


class Inbox:
    """A user who is connected here."""

    __slots__ = ("entries", "loaded", "org", "tell", "told", "total", "user")

    def __init__(self, org: str, user: str) -> None:
        self.org = org
        self.user = user
        self.entries: dict[str, Entry] = {}
        self.loaded = False
        self.total = 0
        """What is unread in all conversations that are not quiet."""
        self.told = 0
        """The total that the user's devices know."""
        self.tell: set[str] = set()
        """Conversations the user is to be told of once they are loaded."""

    def totals(self) -> UnreadTotal:
        """All of it together."""
        for entry in self.entries.values():
            entry.fold()
        return total_of(entry.counts for entry in self.entries.values() if not entry.quiet)


class Entry:
    """One user's count in one conversation."""

    __slots__ = (
        "counted",
        "counts",
        "feed",
        "floor",
        "hidden",
        "inbox",
        "quiet",
        "sent",
        "through",
    )

    def __init__(self, inbox: Inbox, feed: Feed) -> None:
        self.inbox = inbox
        self.feed = feed
        self.floor = 0
        self.through = 0
        """Messages up to this seq are in `counts`."""
        self.counted = 0
        """What was deleted up to this seq is not in `counts`, though we may hear of it later: the
        store knows before we are told.
        """
        self.hidden: Collection[int] = ()
        """Seqs of messages that the user has deleted for this user alone: they do not count."""
        self.counts = NONE
        self.quiet = False
        """Whether it is left out of the total."""
        self.sent: Counts | None = None
        """What the user's devices know."""

    @property
    def is_news(self) -> bool:
        """Whether the user's devices know something else."""
        return self.counts != self.sent or self.inbox.total != self.inbox.told

    def set(self, unread: int, mentions: int) -> None:
        known, self.counts = self.counts, Counts(min(unread, COUNTED), min(mentions, COUNTED))
        if not self.quiet:
            self.inbox.total += self.counts.shown - known.shown

    def hush(self, quiet: bool) -> None:
        """Leave it out of the total, or not."""
        if quiet != self.quiet:
            self.quiet = quiet
            self.inbox.total += -self.counts.shown if quiet else self.counts.shown

    def fold(self) -> None:
        """Add the messages that are not counted yet."""
        feed = self.feed
        last = feed.last
        if last <= self.through:
            return
        unread, mentions = self._sum(feed.after(max(self.through, self.floor)))
        self.through = last
        if unread:
            self.set(self.counts.unread + unread, self.counts.mentions + mentions)

    def read(self, seq: int) -> bool:
        """Move the floor; False if what is above it must be counted from the store."""
        self.floor = seq
        if seq >= self.through:
            self.set(0, 0)
            return True
        recent = self.feed.recent
        if not recent or seq < recent[0].seq - 1:
            return False
        self.set(*self._sum(self.feed.after(seq)))
        # What the store knew and we have not been told is not in `recent` yet.
        self.through = min(self.through, self.feed.last)
        self.counted = min(self.counted, self.through)
        return True

    def _sum(self, facts: Sequence[Fact]) -> tuple[int, int]:
        unread = mentions = 0
        for fact in facts:
            if fact.seq in self.hidden:
                continue
            one, mention = fact.adds(self.inbox.user)
            unread += one
            mentions += mention
        return unread, mentions
