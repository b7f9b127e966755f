"""What an engine must do, as a few dictionaries, and random operations for both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from store.engine import (
    Append,
    Appended,
    Change,
    Delete,
    Duplicate,
    Engine,
    Guard,
    GuardFailed,
    Insert,
    Is,
    Key,
    KeyReused,
    NewEvent,
    Put,
    Redaction,
    StoreError,
    Update,
)
from tests.support.stores import ADA, AT, BOB, NOTES, ORG, PEOPLE, gathered, note

STREAMS = ("messages/a", "messages/b", "messages/c")

streams = st.sampled_from(STREAMS)
docs = st.integers(0, 3)
small = st.integers(0, 2)
tags = st.none() | st.lists(st.sampled_from(["t0", "t1", "t2"]), max_size=3)


@st.composite
def changes(draw: st.DrawFn, stream: str) -> Change:
    """A change of one of the stream's own documents."""
    id = f"{stream}:{draw(docs)}"
    number = draw(small)
    match draw(st.sampled_from(["insert", "update", "put", "delete", "person"])):
        case "insert":
            doc = note(id, room=stream, n=number, seq=None, tags=draw(tags))
            return Insert(NOTES, doc, stamp="seq")
        case "update":
            fields: dict[str, Any] = {"kind": f"k{number}"}
            if draw(st.booleans()):
                fields["tags"] = draw(tags)
            return Update(NOTES, id, set=fields, inc={"n": 1}, stamp="last")
        case "put":
            doc = note(id, room=stream, n=number, body=f"put {number}", tags=draw(tags))
            return Put(NOTES, doc)
        case "delete":
            return Delete(NOTES, id)
        case _:
            who = draw(st.integers(0, 20))
            return Insert(PEOPLE, {"id": f"p{who}", "email": f"{who % 7}@x"})


@st.composite
def guards(draw: st.DrawFn, stream: str) -> Guard:
    """A guard on one of the stream's own documents."""
    id = f"{stream}:{draw(docs)}"
    where: dict[str, Any] = draw(
        st.sampled_from(
            [{}, {"n": 1}, {"n": None}, {"kind": "k1"}, {"room": stream}, {"tags": Is("has", "t1")}]
        )
    )
    return Guard(NOTES, id, where, absent=draw(st.booleans()))


redactions = st.builds(
    Redaction,
    st.lists(st.integers(0, 12), max_size=4),
    st.dictionaries(st.sampled_from(["n", "gone"]), st.integers(10, 12), min_size=1),
)


@st.composite
def appends(draw: st.DrawFn) -> Append:
    """An append that may well fail."""
    stream = draw(streams)
    events = [
        NewEvent(f"e{n}", {"n": n, "seq": None}, stamp="seq" if n % 2 else None)
        for n in range(draw(st.integers(1, 3)))
    ]
    key = Key(f"k{draw(small)}", f"d{draw(st.integers(0, 1))}") if draw(st.booleans()) else None
    return Append(
        ORG,
        stream,
        draw(st.sampled_from([ADA, BOB])),
        AT,
        events,
        draw(st.lists(changes(stream), max_size=3)),
        draw(st.lists(guards(stream), max_size=1)),
        key,
        draw(st.lists(redactions, max_size=1)),
    )


@dataclass
class Log:
    """A stream."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    trimmed: int = 0
    keys: dict[tuple[str, str], tuple[str, int, int]] = field(default_factory=dict)


class Model:
    """The engine's state and rules for one organization."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        self.people: dict[str, dict[str, Any]] = {}

    def append(self, append: Append) -> tuple[int, int, bool] | type[Exception]:
        """First seq, how many events, whether replayed; or the error."""
        log = self.logs.get(append.stream)
        used = (append.actor.id, append.key.client_id) if append.key else None
        if log is not None and used in log.keys and append.key and used:
            digest, seq, count = log.keys[used]
            if digest != append.key.digest:
                return KeyReused
            return seq, count if seq > log.trimmed else 0, True
        for guard in append.guards:
            doc = self.notes.get(guard.id)
            holds = doc is not None and all(_holds(doc.get(k), v) for k, v in guard.where.items())
            if holds == guard.absent:
                return GuardFailed
        first = len(log.events) + 1 if log else 1
        notes, people = dict(self.notes), dict(self.people)
        for change in append.changes:
            if not self._change(change, first, notes, people):
                return Duplicate
        self.notes, self.people = notes, people
        log = self.logs.setdefault(append.stream, Log())
        for redaction in append.redactions:
            for seq in redaction.seqs:
                if log.trimmed < seq < first:
                    type, data = log.events[seq - 1]
                    log.events[seq - 1] = (type, {**data, **redaction.set})
        for seq, event in enumerate(append.events, first):
            stamp = {event.stamp: seq} if event.stamp else {}
            log.events.append((event.type, {**event.data, **stamp}))
        if append.key and used:
            log.keys[used] = (append.key.digest, first, len(append.events))
        return first, len(append.events), False

    @staticmethod
    def _change(
        change: Change,
        seq: int,
        notes: dict[str, dict[str, Any]],
        people: dict[str, dict[str, Any]],
    ) -> bool:
        if isinstance(change, Insert) and change.collection is PEOPLE:
            if change.doc["id"] not in people:
                if any(other["email"] == change.doc["email"] for other in people.values()):
                    return False
                people[change.doc["id"]] = change.doc
        elif isinstance(change, Insert):
            notes.setdefault(change.doc["id"], {**change.doc, str(change.stamp): seq})
        elif isinstance(change, Put):
            notes[change.doc["id"]] = change.doc
        elif isinstance(change, Delete):
            notes.pop(change.id, None)
        elif change.id in notes:
            old = notes[change.id]
            added = {name: (old.get(name) or 0) + step for name, step in change.inc.items()}
            notes[change.id] = {**old, **change.set, **added, str(change.stamp): seq}
        return True

    def trim(self, keep: int) -> int:
        """How many events go."""
        dropped = 0
        for log in self.logs.values():
            upto = max(log.trimmed, len(log.events) - max(keep, 1))
            dropped += upto - log.trimmed
            log.trimmed = upto
        return dropped

    async def check(self, engine: Engine) -> None:
        """The engine's state is the model's."""
        heads = await engine.heads(ORG, STREAMS)
        assert heads.keys() == self.logs.keys()
        for stream, log in self.logs.items():
            assert heads[stream][1:] == (len(log.events), log.trimmed)
            events = await engine.read(ORG, stream, 0, 10_000)
            assert [(event.seq, event.type, event.content()) for event in events] == [
                (seq, type, data)
                for seq, (type, data) in enumerate(log.events, 1)
                if seq > log.trimmed
            ]
            assert {event.epoch for event in events} == {heads[stream].epoch}
        for collection, expected in ((NOTES, self.notes), (PEOPLE, self.people)):
            found = {doc["id"]: doc for doc in await engine.find(ORG, collection, {})}
            assert found == expected
            assert await engine.get_many(ORG, collection, list(expected)) == expected
        for stream in STREAMS:
            inside = [doc for doc in self.notes.values() if doc["room"] == stream]
            assert await engine.count(ORG, NOTES, {"room": stream}) == len(inside)
        for tag in ("t0", "t1", "t2"):
            having = {id for id, doc in self.notes.items() if tag in (doc.get("tags") or ())}
            has = {"tags": Is("has", tag)}
            assert [doc["id"] for doc in await engine.find(ORG, NOTES, has)] == sorted(having)
            assert await engine.count(ORG, NOTES, has) == len(having)
        for number in range(3):
            hits = [id for id, doc in self.notes.items() if doc.get("body") == f"put {number}"]
            got = await engine.search(ORG, NOTES, f"put {number}", {}, limit=100)
            assert [doc["id"] for doc in got] == sorted(hits, reverse=True)


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Is):
        return wanted.value in (value or ())
    return bool(value == wanted)


def outcome(result: Any) -> Any:
    """What an engine's answer is in the model's terms."""
    if isinstance(result, BaseException):
        return type(result)
    return result.seq, len(result.events), result.replayed


@st.composite
def crowds(draw: st.DrawFn, most: int, *, keys: bool = True) -> list[Append]:
    """Appends of which no stream's has to do with another stream's."""
    return [
        append._replace(
            changes=[each for each in append.changes if each.collection is NOTES],
            redactions=append.redactions if draw(st.integers(0, 9)) == 0 else (),
            key=append.key if keys else None,
        )
        for append in draw(st.lists(appends(), min_size=1, max_size=most))
    ]


async def at_once(engine: Engine, model: Model, crowd: Sequence[Append]) -> None:
    """Append all of them at the same time: what happened, happened one after the other."""
    done = await gathered(*map(engine.append, crowd))
    assert all(isinstance(each, Appended | StoreError) for each in done), done
    happened = [
        (append, each)
        for append, each in zip(crowd, done, strict=True)
        if isinstance(each, Appended)
    ]
    for append, each in sorted(happened, key=lambda one: (one[1].replayed, one[1].seq)):
        assert outcome(each) == model.append(append)
    await model.check(engine)
