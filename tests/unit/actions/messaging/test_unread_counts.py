"""What the store knows and what is told of it later add up, whichever comes first."""

from actions.messaging.unread_counts import Entry, Fact, Feed, Inbox
from domain.messaging.unread import Counts


def loaded(feed: Feed, *, through: int, unread: int) -> Entry:
    """An entry as it is when the store has counted up to `through`."""
    entry = Entry(Inbox("org", "bob"), feed)
    entry.through = entry.counted = through
    entry.set(unread, 0)
    return entry


def test_what_the_store_counted_is_not_added_when_it_is_told() -> None:
    feed = Feed("c")
    entry = loaded(feed, through=3, unread=3)
    feed.recent = [Fact(seq, "ann", ()) for seq in (2, 3, 4)]
    entry.fold()
    assert entry.counts == Counts(4, 0)


def test_reading_to_the_middle_loses_nothing_that_is_told_later() -> None:
    feed = Feed("c")
    feed.recent = [Fact(seq, "ann", ()) for seq in (1, 2, 3)]
    # The store has messages 4 and 5 already; nobody has told of them.
    entry = loaded(feed, through=5, unread=5)
    assert entry.read(2)
    feed.recent += [Fact(4, "ann", ()), Fact(5, "ann", ())]
    entry.fold()
    assert entry.counts == Counts(3, 0)
    assert entry.inbox.total == 3
