"""The storage engine's interface. Its docstrings are the contract: each sentence has a test in
`tests/contract/`, run over every engine.

An engine keeps two things: streams (an append-only log each) and documents in declared
collections. Repositories (`store/<aggregate>.py`) are written once over this interface.

Documents are flat JSON objects keyed by `id`, each owned by an organization. Only declared fields
can be queried or sorted by, so every query has an index to use. The fields of documents and of
events' data keep the order in which they were given; a stamped field that was not given is the last.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from domain.events import Actor, StoredEvent
from domain.streams import Head

Document = dict[str, Any]
Value = str | int | float | bool | None

SET_SIZE = 100
"""Strings in a set field."""

SET_LENGTH = 200
"""Characters in each of them."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index over declared fields, within one organization. One of them may be a set field, unless
    the index is `unique` or `any_org`: it has an entry for each of a document's strings.
    """

    fields: tuple[str, ...]
    unique: bool = False
    """Unique within the organization. Documents in which a field is null are not compared."""
    any_org: bool = False
    """Whether `find_any_org` or `delete_any_org` ask by these fields: an engine whose index begins
    with the organization may need another one for it."""
    ordered: bool = False
    """Of one for `any_org`: whether `find_any_org` sorts by these fields, for which there is an index
    that no organization leads."""

    def __post_init__(self) -> None:
        if self.ordered and not self.any_org:
            raise ValueError(f"{self.fields}: only what is asked for any_org is ordered for it")


class Unindexed(NamedTuple):
    """A query that no index answers alone: what it finds is read and sorted, or more is read than
    found.
    """

    where: tuple[str, ...]
    """The fields that it filters by, `id` aside."""
    order: tuple[str, ...]
    """As `Engine.find` is given it, with `id` at the end."""
    reason: str
    """Why that is never much."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Declares a kind of document: which fields are queried and how."""

    name: str
    indexes: tuple[Index, ...] = ()
    text: str | None = None
    """The field that `Engine.search` looks into."""
    fields: tuple[str, ...] = ()
    """Fields that are filtered by but lead no index."""
    sets: tuple[str, ...] = ()
    """Set fields: a document has a list of strings there, or null, which is none. Each has at most
    `SET_LENGTH` characters, a list at most `SET_SIZE` of them. A filter asks `Is("has", "x")` of
    such a field and nothing else, which an index answers; nothing is sorted, counted or summed by
    it."""
    unindexed: tuple[Unindexed, ...] = ()
    """What may be asked all the same; a test fails of whatever else is."""
    _columns: tuple[str, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [name for index in self.indexes for name in index.fields]
        names += self.fields
        columns = tuple(dict.fromkeys(n for n in names if n != "id" and n not in self.sets))
        object.__setattr__(self, "_columns", columns)
        if "id" in self.sets or self.text in self.sets:
            raise ValueError(f"{self.name}: neither `id` nor a text is a set")
        for index in self.indexes:
            of = [name for name in index.fields if name in self.sets]
            if len(of) > 1 or (of and (index.unique or index.any_org)):
                raise ValueError(f"{self.name}: no such index over {', '.join(of)}")

    @property
    def columns(self) -> tuple[str, ...]:
        """All declared fields but `id` and the set fields, in a stable order."""
        return self._columns

    @property
    def set_indexes(self) -> dict[tuple[str, ...], str]:
        """The indexes that have a set field among theirs, by their fields: that field. Each set field
        has one of its own.
        """
        found: dict[tuple[str, ...], str] = {(name,): name for name in self.sets}
        for index in self.indexes:
            for name in index.fields:
                if name in self.sets:
                    found[index.fields] = name
        return found

    def check_sets(self, doc: Mapping[str, Any]) -> None:
        """Hold the set fields of a document against what they may have.

        Raises:
            ValueError: one has something else than a list of strings, too many or too long ones.
        """
        for name in self.sets:
            value = doc.get(name)
            if value is None:
                continue
            if not isinstance(value, list | tuple) or len(value) > SET_SIZE:
                raise ValueError(f"{self.name}: {name} is a list of at most {SET_SIZE} strings")
            for each in value:
                if not isinstance(each, str) or len(each) > SET_LENGTH or "\0" in each:
                    raise ValueError(f"{self.name}: {name} has strings of up to {SET_LENGTH}")


@dataclass(frozen=True, slots=True)
class Is:
    """A comparison in a filter, e.g. `{"seq": Is("<", 10)}`. A bare value in a filter means `=`."""

    op: str
    """One of `<`, `<=`, `>`, `>=`, `!=`, `in`, `prefix`. `!=` is also true of null. In filters of set fields
    only `has`: the list has this string."""
    value: Any


Filter = Mapping[str, Any]
"""All conditions must hold. Keys are `id` or declared fields; values are values, `Is`, or a tuple of
these, all of which must hold of the field: `{"seq": (Is(">", 3), Is("<=", 10))}`."""


_NOTHING: Mapping[str, Any] = {}

# What every append is made of is a named tuple: a frozen dataclass takes four times as long to make.


class Insert(NamedTuple):
    """Store a new document. In `Engine.append`, one that is there already is left as it is."""

    collection: Collection
    doc: Document
    stamp: str | None = None
    """The field of the document that takes the seq of the append's first event."""


class Update(NamedTuple):
    """Change fields of one document if it is there; otherwise nothing happens."""

    collection: Collection
    id: str
    set: Mapping[str, Any] = _NOTHING
    inc: Mapping[str, int] = _NOTHING
    stamp: str | None = None
    """The field that takes the seq of the append's first event."""


class Put(NamedTuple):
    """Store a whole document, new or in place of the one with its id."""

    collection: Collection
    doc: Document


class Delete(NamedTuple):
    """Remove one document if it is there."""

    collection: Collection
    id: str


Change = Insert | Update | Put | Delete


class Guard(NamedTuple):
    """What must be true of one document for an append.

    Of a document that belongs to the append's own stream, at the moment of writing. Of any other, at some
    moment after the append was asked for: what was acknowledged before is seen, what happens beside
    it may not be (decision 0016).

    `where` is compared with the document's fields, also undeclared ones: equality, `Is` or a tuple
    of them. With `absent`, there must be no such document.
    """

    collection: Collection
    id: str
    where: Mapping[str, Any] = _NOTHING
    absent: bool = False


class NewEvent(NamedTuple):
    """An event to append. `data` is its content as a JSON-serialisable object."""

    type: str
    data: Document
    stamp: str | None = None
    """The field of `data` that takes this event's seq."""


class Key(NamedTuple):
    """An idempotency key: unique per stream and actor, for as long as the stream's retention."""

    client_id: str
    digest: str
    """Of the request's content: the same key with another digest is a conflict."""


class Redaction(NamedTuple):
    """Takes content out of events that are in the stream's log already."""

    seqs: Sequence[int]
    """Of the events. Those that are not in the log, or not before the append's own, are passed
    over."""
    set: Mapping[str, Any]
    """Fields of the events' `data` and the values they have from now on. Other fields stay."""


class Append(NamedTuple):
    """One atomic step of a stream: events, and the state they change."""

    org: str
    stream: str
    actor: Actor
    at: str
    """Time of the events, as `domain.clock.timestamp` writes it."""
    events: Sequence[NewEvent]
    changes: Sequence[Change] = ()
    guards: Sequence[Guard] = ()
    key: Key | None = None
    redactions: Sequence[Redaction] = ()


class Appended(NamedTuple):
    """What an append did."""

    epoch: str
    seq: int
    """Of the first event."""
    events: Sequence[StoredEvent]
    """Empty if replayed and trimmed from the log since."""
    replayed: bool = False
    """The key was there already: these are the events of the first time, nothing was written."""


class StoreError(Exception):
    """Base of what an engine raises besides `domain.errors.Unavailable`."""


class GuardFailed(StoreError):
    """A guard of an append did not hold; nothing was written."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(f"{guard.collection.name}/{guard.id}")
        self.guard = guard


class KeyReused(StoreError):
    """The idempotency key is there with another digest; nothing was written."""


class ForeignStream(StoreError):
    """The stream's name belongs to another organization; nothing was written."""


class Duplicate(StoreError):
    """A document with this id, or with these values under a unique index, is there already."""

    def __init__(self, collection: str) -> None:
        super().__init__(collection)
        self.collection = collection


class Engine(ABC):
    """Where streams and documents are kept.

    Every method raises `domain.errors.Unavailable` when the store cannot be reached, is full or
    locked; later calls succeed by themselves once the cause is gone. Then nothing was written; but
    over a network it may be only the answer that was lost. Of a `write` or `delete` of many, and
    of a `trim`, a part may have been done.
    """

    shared: ClassVar[bool]
    """Whether several nodes may have the same data open at the same time. Otherwise `start` fails
    while another has."""

    # -- life ---------------------------------------------------------------------------------

    @abstractmethod
    async def start(self) -> None:
        """Open the store, bring its schema up to date. Safe to repeat on the same data.

        Raises:
            StoreError: the data is of a newer version than this program knows, or open elsewhere
                and not to be `shared`.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Finish what was accepted, then close."""

    @abstractmethod
    async def ping(self) -> None:
        """Write and read something small: returns if both work, else raises `Unavailable`."""

    async def time(self) -> float | None:
        """What the store's own clock says, in Unix seconds; None if it has none to ask.

        Raises:
            Unavailable: the store is out of reach.
        """
        return None

    @property
    @abstractmethod
    def queued(self) -> int:
        """Writes that were asked for and are not safe yet."""

    @abstractmethod
    async def size(self) -> int:
        """Bytes that the data and its indexes take where they are kept."""

    # -- streams ------------------------------------------------------------------------------

    @abstractmethod
    async def append(self, append: Append) -> Appended:
        """Store events and the state they change in one step.

        Returns only when both are safe on disk: from then on every reader sees both, and a crash
        at any moment leaves both or neither. The events of a stream get the next seqs without a
        hole, in the order in which appends are decided. A stream is made by its first append.

        Guards on documents of this stream are judged as of its state just before the events, others as of
        a moment before (see `Guard`). With a key that was
        used before by the same actor in the same stream, nothing is judged or written and the
        first result is returned.

        A document that an append stores or changes belongs to that stream. No append to another
        stream and no plain write may change it, except to delete it; after a plain one its id may
        stay the stream's for an hour, to be used by it or by plain writes.

        The values that a document has under a unique index are changed by plain writes only: a
        change of an append may bring them with a new document, or leave them as they are.

        Redactions, in order, are part of the step: whoever sees its events or state sees earlier
        events redacted, in `read` as in the answer to a retry with an earlier key, and no record
        of the store has their old content. Seq, type, time, actor and epoch of an event stay.

        Raises:
            GuardFailed: the first guard, in order, that does not hold.
            KeyReused: the key is there with another digest.
            Duplicate: an `Insert` met a unique index.
            Unavailable: nothing was written; or, over a network, the answer was lost for good and
                a retry with the key tells.
            ForeignStream: the stream's name belongs to another organization.
            ValueError: a document belongs to another stream, a unique value would change, or
                something in the append cannot be stored; nothing was written.
        """

    @abstractmethod
    async def head(self, org: str, stream: str) -> Head | None:
        """Where a stream stands; None if it has no event or is another organization's.

        Never older than what a read that ended before has shown.
        """

    @abstractmethod
    async def heads(
        self, org: str, streams: Sequence[str], *, returned: bool = False
    ) -> dict[str, Head]:
        """As `head`, for many: streams that are not there are left out.

        With `returned`, only appends that have returned are certain to count, whatever a read has
        shown: in fewer commands, for who asks often.
        """

    @abstractmethod
    async def read(
        self, org: str, stream: str, after: int, limit: int, max_bytes: int | None = None
    ) -> list[StoredEvent]:
        """Events with seq > `after` still in the log, ascending, at most `limit`.

        With `max_bytes`, stops before the event with which their data would exceed it, but gives
        at least one.
        """

    @abstractmethod
    async def trim(self, *, keep: int, before: str) -> int:
        """Drop from all logs the events that are older than the time `before` or beyond the
        newest `keep` of their stream; never a stream's newest event. Works in small steps that
        do not hold up appends. Returns how many events were dropped. Documents stay. Keys stay
        as long as they are younger than `before`.
        """

    @abstractmethod
    async def trim_stream(self, org: str, stream: str) -> None:
        """As `trim`, of one stream's log: drop all but its newest event, and keep the keys. What was
        appended a moment before may be left for the next time.
        """

    # -- documents ----------------------------------------------------------------------------

    @abstractmethod
    async def get(self, org: str, collection: Collection, id: str) -> Document | None:
        """One document, or None if there is none of this id in this organization."""

    @abstractmethod
    async def get_many(
        self, org: str, collection: Collection, ids: Sequence[str]
    ) -> dict[str, Document]:
        """Documents by id; those that are not there are left out."""

    @abstractmethod
    async def find(
        self,
        org: str,
        collection: Collection,
        where: Filter,
        *,
        order: Sequence[str] = ("id",),
        after: Sequence[Value] | None = None,
        limit: int | None = 1000,
    ) -> list[Document]:
        """Documents that match, sorted by the fields of `order` (a leading `-` on *all* of them
        for descending; `id` is added last if it is not among them). `after` goes on behind the
        document that has these values in the sort fields (`id` included).
        """

    @abstractmethod
    async def count(self, org: str, collection: Collection, where: Filter) -> int:
        """How many documents match."""

    @abstractmethod
    async def count_each(
        self, org: str, collection: Collection, wheres: Sequence[Filter], at_most: int
    ) -> list[int]:
        """How many documents match each of the filters, in their order; no filter's are counted
        further than `at_most`.
        """

    @abstractmethod
    async def count_groups(
        self,
        org: str,
        collection: Collection,
        fields: Sequence[str],
        where: Filter,
        *,
        at_most: int = 1000,
    ) -> dict[tuple[Value, ...], int]:
        """How many of the documents that match have the same values in these declared fields (one or
        more), by those values, in ascending order as `find` sorts; null is a value too. Of more
        than `at_most` groups the first ones are told. Whether a truth value is told as such or as 1
        or 0, which are equal, is open.
        """

    async def count_by(
        self, org: str, collection: Collection, field: str, where: Filter, *, at_most: int = 1000
    ) -> dict[Value, int]:
        """As `count_groups`, by the values of one field."""
        groups = await self.count_groups(org, collection, (field,), where, at_most=at_most)
        return {value: count for (value,), count in groups.items()}

    @abstractmethod
    async def sum(self, org: str, collection: Collection, field: str, where: Filter) -> int:
        """The sum of a declared integer field over the documents that match; 0 for none."""

    @abstractmethod
    async def find_any_org(
        self,
        collection: Collection,
        where: Filter,
        limit: int = 10,
        *,
        order: Sequence[str] | None = None,
        after: Sequence[Value] | None = None,
    ) -> list[Document]:
        """As `find`, across organizations: only for finding out *whose* something is, e.g. the
        account of an email address or a token, and for jobs. Each document has its `org`; without
        `order` they come in none.

        `order` is as in `find`, with `org` behind `id`: the fields of an `ordered` index, without
        the first ones if the filter has one value for each of these. `after` goes on behind the
        document that has these values in the sort fields (`id` and `org` included).

        Raises:
            ValueError: no `ordered` index sorts so, or `after` without an order.
        """

    @abstractmethod
    async def insert(self, org: str, collection: Collection, doc: Document) -> None:
        """Store a new document.

        Raises:
            Duplicate: its id or a unique index's values are there already.
        """

    @abstractmethod
    async def insert_or_get(self, org: str, collection: Collection, doc: Document) -> Document:
        """Store a new document, or give the one that has its id already. Of any number of
        concurrent callers with one id exactly one stores, and all get what it stored.
        """

    @abstractmethod
    async def update(
        self,
        org: str,
        collection: Collection,
        id: str,
        *,
        set: Mapping[str, Any] | None = None,
        inc: Mapping[str, int] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Document | None:
        """Change one document atomically if `where` (equality, `Is` or a tuple of them, also
        undeclared fields) holds of it, and return it as it is now; None, and nothing changed, otherwise.

        Raises:
            Duplicate: the new values meet a unique index.
            ValueError: the document belongs to a stream, or cannot be stored.
        """

    @abstractmethod
    async def write(self, org: str, changes: Sequence[Change]) -> None:
        """Apply plain changes in order. Each one is atomic; a crash may leave only some of them done.
        Here an `Insert` whose id is there already raises `Duplicate`.

        Raises:
            Duplicate: as `insert` and `update`.
            ValueError: as `update`.
        """

    @abstractmethod
    async def delete(self, org: str, collection: Collection, where: Filter) -> int:
        """Remove the documents that match; returns how many."""

    @abstractmethod
    async def delete_any_org(self, collection: Collection, where: Filter) -> int:
        """As `delete`, across organizations: only for clean-up by age."""

    # -- search -------------------------------------------------------------------------------

    @abstractmethod
    async def search(
        self,
        org: str,
        collection: Collection,
        text: str,
        where: Filter,
        *,
        limit: int,
        before: str | None = None,
    ) -> list[Document]:
        """Documents whose text field holds every word of `text` (the last one as a prefix),
        regardless of case and accents (`store.words`), newest id first, at most `limit`. `before` goes on behind
        the document with this id. Everything written before the call is found. No character
        of `text` has a special meaning. No word in `text`: no hits.
        """

    # -- copies -------------------------------------------------------------------------------

    @abstractmethod
    async def new_epoch(self) -> None:
        """Give every stream a new epoch: its history is not the one that clients knew."""
