"""`Engine.append`: events and state in one step, guards, idempotency keys."""

import asyncio
from typing import Any

import orjson
import pytest

from domain.events import SYSTEM, Actor
from store.engine import (
    Delete,
    Duplicate,
    Engine,
    ForeignStream,
    Guard,
    GuardFailed,
    Insert,
    Is,
    Key,
    KeyReused,
    NewEvent,
    Put,
    Update,
)
from tests.support.stores import (
    ADA,
    AT,
    BOB,
    NOTES,
    ORG,
    OTHER,
    PEOPLE,
    ROOMS,
    Stores,
    appending,
    gathered,
    note,
    send,
    seqs,
)

STREAM = "messages/r1"


# -- seqs ---------------------------------------------------------------------------------------


async def test_events_get_the_next_seqs(engine: Engine) -> None:
    first = await engine.append(appending(STREAM))
    more = [NewEvent("a", {"n": n}) for n in range(3)]
    second = await engine.append(appending(STREAM, *more))
    assert (first.seq, [event.seq for event in first.events]) == (1, [1])
    assert (second.seq, [event.seq for event in second.events]) == (2, [2, 3, 4])
    assert await seqs(engine) == [1, 2, 3, 4]
    assert not first.replayed
    assert first.epoch == second.epoch != ""


async def test_what_is_returned_is_what_is_read_later(stores: Stores, engine: Engine) -> None:
    doc = {"text": 'é"\\\n 日本 👩‍👩‍👧', "n": 1.5, "deep": {"list": [1, None, True]}, "big": 2**53}
    done = await engine.append(
        appending(STREAM, NewEvent("x.happened", doc), actor=Actor("a1", "agent"))
    )
    async for store in stores.before_and_after_restart(engine):
        (read,) = await store.read(ORG, STREAM, 0, 10)
        (told,) = done.events
        assert read.payload == told.payload
        assert read.content() == doc
        assert (read.stream, read.seq, read.type, read.at) == (STREAM, 1, "x.happened", AT)
        assert read.actor == Actor("a1", "agent")
        assert read.epoch == done.epoch


async def test_streams_do_not_share_seqs_or_epochs(engine: Engine) -> None:
    one = await engine.append(appending("messages/r1"))
    two = await engine.append(appending("messages/r2"))
    assert (one.seq, two.seq) == (1, 1)
    assert one.epoch != two.epoch


async def test_concurrent_appends_leave_no_hole_and_no_double(engine: Engine) -> None:
    done = await asyncio.gather(
        *(engine.append(appending(f"messages/r{n % 7}")) for n in range(400))
    )
    for room in range(7):
        got = sorted(done[n].seq for n in range(400) if n % 7 == room)
        assert got == list(range(1, len(got) + 1))
        assert await seqs(engine, f"messages/r{room}") == got


async def test_appends_of_one_caller_are_decided_in_the_order_they_were_asked_for(
    engine: Engine,
) -> None:
    done = await asyncio.gather(*(engine.append(appending(STREAM)) for _ in range(100)))
    assert [each.seq for each in done] == list(range(1, 101))


async def test_an_append_needs_an_event(engine: Engine) -> None:
    append = appending(STREAM)
    with pytest.raises(ValueError, match="event"):
        await engine.append(type(append)(ORG, STREAM, ADA, AT, ()))


async def test_a_stream_belongs_to_one_organization(engine: Engine) -> None:
    await engine.append(appending(STREAM))
    with pytest.raises(ForeignStream):
        await engine.append(
            appending(STREAM, org=OTHER, changes=[Insert(ROOMS, note("x"))], key=Key("k", "d"))
        )
    assert await seqs(engine) == [1]
    assert await engine.read(OTHER, STREAM, 0, 10) == []
    assert await engine.get(OTHER, ROOMS, "x") is None


# -- state --------------------------------------------------------------------------------------


async def test_events_and_changes_are_stored_together(stores: Stores, engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "old", "n": 1})
    await engine.insert(ORG, ROOMS, {"id": "gone"})
    await engine.append(
        appending(
            STREAM,
            changes=[
                Insert(NOTES, note("n1", room="r1")),
                Update(ROOMS, "old", set={"title": "T", "none": None}, inc={"n": 2, "new": -1}),
                Put(ROOMS, {"id": "put", "a": 1}),
                Delete(ROOMS, "gone"),
            ],
        )
    )
    async for store in stores.before_and_after_restart(engine):
        assert await store.get(ORG, NOTES, "n1") == {"id": "n1", "room": "r1"}
        assert await store.get(ORG, ROOMS, "old") == {
            "id": "old",
            "n": 3,
            "title": "T",
            "none": None,
            "new": -1,
        }
        assert await store.get(ORG, ROOMS, "put") == {"id": "put", "a": 1}
        assert await store.get(ORG, ROOMS, "gone") is None


async def test_changes_of_one_append_are_made_in_order(engine: Engine) -> None:
    await engine.append(
        appending(
            STREAM,
            changes=[
                Insert(ROOMS, {"id": "a", "n": 1}),
                Update(ROOMS, "a", inc={"n": 1}),
                Put(ROOMS, {"id": "b", "n": 1}),
                Delete(ROOMS, "b"),
                Insert(ROOMS, {"id": "b", "n": 2}),
                Update(ROOMS, "b", set={"n": 9}),
                Update(ROOMS, "b", inc={"n": 1}),
            ],
        )
    )
    assert await engine.get(ORG, ROOMS, "a") == {"id": "a", "n": 2}
    assert await engine.get(ORG, ROOMS, "b") == {"id": "b", "n": 10}


async def test_an_insert_of_what_is_there_leaves_it_as_it_is(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "a", "n": 1})
    done = await engine.append(appending(STREAM, changes=[Insert(ROOMS, {"id": "a", "n": 2})]))
    assert done.seq == 1
    assert await engine.get(ORG, ROOMS, "a") == {"id": "a", "n": 1}
    await engine.append(
        appending(
            STREAM, changes=[Insert(ROOMS, {"id": "a", "n": 3}), Update(ROOMS, "a", inc={"n": 5})]
        )
    )
    assert await engine.get(ORG, ROOMS, "a") == {"id": "a", "n": 6}


async def test_concurrent_inserts_of_one_id_store_one(engine: Engine) -> None:
    await asyncio.gather(
        *(
            engine.append(
                appending(f"messages/r{n}", changes=[Insert(NOTES, note("a", n=n, body=f"w{n}"))])
            )
            for n in range(20)
        )
    )
    stored = await engine.get(ORG, NOTES, "a")
    assert stored is not None
    assert stored == note("a", n=stored["n"], body=f"w{stored['n']}")
    assert await engine.count(ORG, NOTES, {}) == 1
    for n in range(20):
        found = await engine.search(ORG, NOTES, f"w{n}", {}, limit=10)
        assert len([doc for doc in found if doc["body"] == f"w{n}"]) == (n == stored["n"])


async def test_an_update_of_what_is_not_there_does_nothing(engine: Engine) -> None:
    await engine.append(appending(STREAM, changes=[Update(ROOMS, "a", set={"n": 1})]))
    assert await engine.get(ORG, ROOMS, "a") is None
    assert await seqs(engine) == [1]


async def test_changes_touch_their_own_organization_only(engine: Engine) -> None:
    await engine.insert(OTHER, ROOMS, {"id": "a", "n": 1})
    await engine.append(
        appending(STREAM, changes=[Update(ROOMS, "a", set={"n": 2}), Delete(ROOMS, "a")])
    )
    assert await engine.get(OTHER, ROOMS, "a") == {"id": "a", "n": 1}
    assert await engine.get(ORG, ROOMS, "a") is None


async def test_stamps_take_the_seqs(engine: Engine) -> None:
    await engine.append(appending(STREAM))
    await engine.insert(ORG, ROOMS, {"id": "r", "last": 0})
    doc = {"id": "n1", "seq": None, "room": "r1"}
    plain = {"x": 1}
    done = await engine.append(
        appending(
            STREAM,
            NewEvent("a", doc, stamp="seq"),
            NewEvent("b", {"at_seq": 0}, stamp="at_seq"),
            NewEvent("c", doc, stamp="seq"),
            NewEvent("d", plain),
            NewEvent("e", {}, stamp="only"),
            changes=[
                Insert(NOTES, doc, stamp="seq"),
                Update(ROOMS, "r", set={"title": "T"}, stamp="last"),
            ],
        )
    )
    contents = [event.content() for event in done.events]
    assert contents == [
        {"id": "n1", "seq": 2, "room": "r1"},
        {"at_seq": 3},
        {"id": "n1", "seq": 4, "room": "r1"},
        {"x": 1},
        {"only": 6},
    ]
    assert [event.content() for event in await engine.read(ORG, STREAM, 1, 10)] == contents
    assert await engine.get(ORG, NOTES, "n1") == {"id": "n1", "seq": 2, "room": "r1"}
    assert await engine.find(ORG, NOTES, {"room": "r1", "seq": 2}) == [contents[0]]
    assert await engine.get(ORG, ROOMS, "r") == {"id": "r", "last": 2, "title": "T"}
    assert doc == {"id": "n1", "seq": None, "room": "r1"}, "the caller's object is its own"


async def test_fields_keep_their_order(stores: Stores, engine: Engine) -> None:
    doc = note("n", room="r", seq=None, body="b", author="a")
    await engine.append(
        appending(
            "messages/r1",
            NewEvent("a", doc, stamp="seq"),
            NewEvent("b", {"x": 1, "a": 2}, stamp="last"),
            NewEvent("c", {"first": 0, "x": 1}, stamp="first"),
            NewEvent("d", {}, stamp="only"),
            changes=[Insert(NOTES, doc, stamp="seq")],
        )
    )
    async for store in stores.before_and_after_restart(engine):
        found = await store.get(ORG, NOTES, "n")
        assert found is not None
        assert list(found.items()) == [
            ("id", "n"),
            ("room", "r"),
            ("seq", 1),
            ("body", "b"),
            ("author", "a"),
        ]
        assert [list(each) for each in await store.find(ORG, NOTES, {})] == [list(doc)]
        events = await store.read(ORG, "messages/r1", 0, 10)
        assert [list(event.content()) for event in events] == [
            list(doc),
            ["x", "a", "last"],
            ["first", "x"],
            ["only"],
        ]


async def test_a_duplicate_writes_nothing(engine: Engine) -> None:
    await engine.insert(ORG, PEOPLE, {"id": "p1", "email": "a@x"})
    with pytest.raises(Duplicate) as raised:
        await engine.append(
            appending(
                STREAM,
                changes=[Insert(ROOMS, {"id": "r"}), Insert(PEOPLE, {"id": "p2", "email": "a@x"})],
                key=Key("k", "d"),
            )
        )
    assert raised.value.collection == "people"
    assert await engine.head(ORG, STREAM) is None
    assert await engine.get(ORG, ROOMS, "r") is None
    assert await engine.get(ORG, PEOPLE, "p2") is None
    again = await engine.append(appending(STREAM, key=Key("k", "d")))
    assert (again.seq, again.replayed) == (1, False)


async def test_one_that_fails_does_not_disturb_those_beside_it(engine: Engine) -> None:
    await engine.insert(ORG, PEOPLE, {"id": "p0", "email": "taken@x"})

    async def one(n: int) -> object:
        email = "taken@x" if n % 10 == 3 else f"{n}@x"
        guards = [Guard(ROOMS, "nowhere")] if n % 10 == 5 else []
        return await engine.append(
            appending(
                STREAM, changes=[Insert(PEOPLE, {"id": f"q{n}", "email": email})], guards=guards
            )
        )

    done = await gathered(*(one(n) for n in range(60)))
    for n, result in enumerate(done):
        if n % 10 == 3:
            assert isinstance(result, Duplicate)
        elif n % 10 == 5:
            assert isinstance(result, GuardFailed)
        else:
            assert not isinstance(result, Exception), result
    assert await seqs(engine) == list(range(1, 49))
    assert await engine.count(ORG, PEOPLE, {}) == 49


async def test_what_cannot_be_stored_is_refused_and_disturbs_nobody(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "text", "n": "not a number"})
    done = await gathered(
        engine.append(appending(STREAM)),
        engine.append(appending(STREAM, NewEvent("x", {"set": {1, 2}}))),
        engine.append(appending(STREAM, changes=[Update(ROOMS, "text", inc={"n": 1})])),
        engine.append(appending(STREAM, changes=[Insert(NOTES, {"id": "big", "seq": 2**63})])),
        engine.append(appending(STREAM)),
    )
    assert [isinstance(result, Exception) for result in done] == [False, True, True, True, False]
    assert await seqs(engine) == [1, 2]


# -- guards -------------------------------------------------------------------------------------


async def test_guards_compare_fields_declared_or_not(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "r", "kind": "group", "n": 1, "closed": None})
    holds: list[dict[str, Any]] = [
        {},
        {"kind": "group"},
        {"n": 1, "closed": None},
        {"never": None},
        {"n": Is("<", 2), "kind": Is("in", ["group", "channel"])},
        {"n": (Is(">", 0), Is("<", 2), 1)},
    ]
    fails: list[dict[str, Any]] = [
        {"kind": "direct"},
        {"n": 1, "kind": None},
        {"never": 1},
        {"n": Is("<", 1)},
        {"never": Is("<", 1)},
        {"n": (Is(">", 0), Is("<", 1))},
    ]
    for where in holds:
        await engine.append(appending(STREAM, guards=[Guard(ROOMS, "r", where)]))
    for where in fails:
        with pytest.raises(GuardFailed):
            await engine.append(appending(STREAM, guards=[Guard(ROOMS, "r", where)]))
    with pytest.raises(GuardFailed):
        await engine.append(appending(STREAM, guards=[Guard(ROOMS, "other")]))
    assert await seqs(engine) == [1, 2, 3, 4, 5, 6]


async def test_an_absent_guard_holds_while_there_is_none(engine: Engine) -> None:
    guard = Guard(ROOMS, "r", absent=True)
    make = [Insert(ROOMS, {"id": "r"})]
    await engine.append(appending(STREAM, guards=[guard], changes=make))
    with pytest.raises(GuardFailed):
        await engine.append(appending(STREAM, guards=[guard], changes=make))
    await engine.append(appending(STREAM, changes=[Delete(ROOMS, "r")]))
    await engine.append(appending(STREAM, guards=[guard], changes=make))


async def test_the_first_guard_that_fails_is_told_and_nothing_is_written(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "r"})
    good, bad, worse = Guard(ROOMS, "r"), Guard(ROOMS, "x"), Guard(ROOMS, "r", absent=True)
    with pytest.raises(GuardFailed) as raised:
        await engine.append(
            appending(
                STREAM,
                guards=[good, bad, worse],
                changes=[Insert(NOTES, note("n"))],
                key=Key("k", "d"),
            )
        )
    assert raised.value.guard is bad
    assert await engine.head(ORG, STREAM) is None
    assert await engine.get(ORG, NOTES, "n") is None
    assert not (await engine.append(appending(STREAM, key=Key("k", "d")))).replayed


async def test_guards_do_not_see_another_organization(engine: Engine) -> None:
    await engine.insert(OTHER, ROOMS, {"id": "r"})
    with pytest.raises(GuardFailed):
        await engine.append(appending(STREAM, guards=[Guard(ROOMS, "r")]))
    await engine.append(appending(STREAM, guards=[Guard(ROOMS, "r", absent=True)]))


async def test_a_guard_judges_what_the_append_before_it_left(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "r", "owner": None})

    async def claim(who: str) -> object:
        return await engine.append(
            appending(
                STREAM,
                guards=[Guard(ROOMS, "r", {"owner": None})],
                changes=[Update(ROOMS, "r", set={"owner": who})],
            )
        )

    done = await gathered(*(claim(f"u{n}") for n in range(50)))
    winners = [n for n, result in enumerate(done) if not isinstance(result, GuardFailed)]
    assert len(winners) == 1
    assert await engine.get(ORG, ROOMS, "r") == {"id": "r", "owner": f"u{winners[0]}"}
    assert await seqs(engine) == [1]


async def test_a_guard_on_the_own_stream_holds_at_the_moment_of_writing(stores: Stores) -> None:
    nodes = [await stores.start()]
    if nodes[0].shared:
        nodes.append(await stores.start())
    await nodes[0].append(appending(STREAM, changes=[Put(ROOMS, {"id": "own", "left": 5})]))

    async def take(node: Engine, left: int) -> object:
        return await node.append(
            appending(
                STREAM,
                guards=[Guard(ROOMS, "own", {"left": left})],
                changes=[Update(ROOMS, "own", inc={"left": -1})],
            )
        )

    for left in range(5, 0, -1):
        done = await gathered(*(take(node, left) for node in nodes for _ in range(6)))
        assert sum(not isinstance(result, GuardFailed) for result in done) == 1
        assert await nodes[-1].get(ORG, ROOMS, "own") == {"id": "own", "left": left - 1}


async def test_a_guard_on_another_stream_sees_all_that_was_acknowledged_before(
    stores: Stores,
) -> None:
    one = await stores.start()
    two = await stores.start() if one.shared else one
    other = "messages/other"
    for n in range(10):
        await one.append(appending(other, changes=[Put(ROOMS, {"id": "foreign", "open": True})]))
        guard = Guard(ROOMS, "foreign", {"open": True})
        await two.append(appending(STREAM, guards=[guard]))
        await one.append(appending(other, changes=[Update(ROOMS, "foreign", set={"open": False})]))
        with pytest.raises(GuardFailed):
            await two.append(appending(STREAM, guards=[guard]))
        assert await seqs(two) == list(range(1, n + 2))


async def test_increments_of_concurrent_appends_add_up(engine: Engine) -> None:
    for room in range(3):
        await engine.insert(ORG, ROOMS, {"id": f"r{room}", "n": 0})
    await asyncio.gather(
        *(
            engine.append(
                appending(f"messages/{n % 3}", changes=[Update(ROOMS, f"r{n % 3}", inc={"n": 2})])
            )
            for n in range(150)
        )
    )
    assert await engine.find(ORG, ROOMS, {}) == [{"id": f"r{room}", "n": 100} for room in range(3)]


# -- idempotency --------------------------------------------------------------------------------


async def test_a_retry_returns_the_first_result(stores: Stores, engine: Engine) -> None:
    await engine.append(appending(STREAM))
    events = [NewEvent("a", {"n": 1}), NewEvent("b", {"seq": 0}, stamp="seq")]
    first = await engine.append(appending(STREAM, *events, key=Key("k", "d")))
    await engine.append(appending(STREAM))
    async for store in stores.before_and_after_restart(engine):
        again = await store.append(
            appending(
                STREAM,
                NewEvent("other", {}),
                at="2027-01-01T00:00:00.000Z",
                changes=[Insert(ROOMS, {"id": "r"})],
                guards=[Guard(ROOMS, "not there")],
                key=Key("k", "d"),
            )
        )
        assert again.replayed
        assert (again.seq, again.epoch) == (2, first.epoch)
        assert [e.payload for e in again.events] == [e.payload for e in first.events]
        assert await store.get(ORG, ROOMS, "r") is None
        assert await seqs(store) == [1, 2, 3, 4]


async def test_the_same_key_with_another_digest_is_a_conflict(engine: Engine) -> None:
    await engine.append(appending(STREAM, key=Key("k", "d1")))
    with pytest.raises(KeyReused):
        await engine.append(
            appending(STREAM, key=Key("k", "d2"), changes=[Insert(ROOMS, {"id": "r"})])
        )
    assert await seqs(engine) == [1]
    assert await engine.get(ORG, ROOMS, "r") is None


async def test_keys_are_per_stream_and_actor(engine: Engine) -> None:
    one = await engine.append(appending(STREAM, key=Key("k", "d")))
    other_stream = await engine.append(appending("messages/r2", key=Key("k", "x")))
    other_actor = await engine.append(appending(STREAM, actor=BOB, key=Key("k", "y")))
    other_kind = await engine.append(
        appending(STREAM, actor=Actor("ada", "agent"), key=Key("k", "z"))
    )
    system = await engine.append(appending(STREAM, actor=SYSTEM, key=Key("k", "s")))
    no_key = await engine.append(appending(STREAM))
    done = [one, other_stream, other_actor, other_kind, system, no_key]
    assert not any(each.replayed for each in done)


async def test_concurrent_retries_happen_once(engine: Engine) -> None:
    done = await asyncio.gather(
        *(send(engine, f"n{n}", key=Key(f"k{n % 5}", "d")) for n in range(60))
    )
    assert await seqs(engine) == [1, 2, 3, 4, 5]
    assert sum(not each.replayed for each in done) == 5
    for n, each in enumerate(done):
        assert each.seq == n % 5 + 1
        assert orjson.loads(each.events[0].data)["id"] == f"n{n % 5}"
    assert await engine.count(ORG, NOTES, {}) == 5


async def test_a_replay_of_what_was_trimmed_has_no_events(engine: Engine) -> None:
    first = await engine.append(appending(STREAM, key=Key("k", "d")))
    for _ in range(3):
        await engine.append(appending(STREAM))
    await engine.trim(keep=2, before="2020-01-01T00:00:00.000Z")
    again = await engine.append(appending(STREAM, key=Key("k", "d")))
    assert (again.replayed, again.seq, list(again.events)) == (True, first.seq, [])


async def test_a_cancelled_caller_disturbs_nobody(engine: Engine) -> None:
    tasks = [asyncio.create_task(send(engine, f"n{n}", key=Key(f"k{n}", "d"))) for n in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await gathered(*tasks)
    assert not any(isinstance(result, Exception) for result in done[1::2])
    assert all(isinstance(result, asyncio.CancelledError) for result in done[::2])
    # Whether the cancelled ones happened is open; a retry tells, and nothing is there twice.
    for n in range(50):
        await send(engine, f"n{n}", key=Key(f"k{n}", "d"))
    assert await seqs(engine) == list(range(1, 51))
    assert await engine.count(ORG, NOTES, {}) == 50
