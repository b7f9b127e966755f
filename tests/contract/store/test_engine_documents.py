"""Documents: getting, changing, removing them one by one or in bulk."""

import asyncio
from typing import Any

import pytest

from domain.errors import Unavailable
from store.engine import (
    Change,
    Collection,
    Delete,
    Duplicate,
    Engine,
    Insert,
    Is,
    Put,
    Update,
)
from tests.support.stores import (
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


async def test_what_was_inserted_is_there(stores: Stores, engine: Engine) -> None:
    doc = {"id": "é-1", "text": '"\\ 日本', "n": 1.25, "deep": {"a": [1, {"b": None}]}, "no": None}
    await engine.insert(ORG, ROOMS, doc)
    async for store in stores.before_and_after_restart(engine):
        assert await store.get(ORG, ROOMS, "é-1") == doc
        assert await store.get(OTHER, ROOMS, "é-1") is None
        assert await store.get(ORG, ROOMS, "e-1") is None
        assert await store.get(ORG, PEOPLE, "é-1") is None


async def test_what_is_given_out_is_the_callers_own(engine: Engine) -> None:
    doc = {"id": "a", "tags": ["x"]}
    await engine.insert(ORG, ROOMS, doc)
    doc["tags"].append("mine")  # type: ignore[attr-defined]
    for _ in range(3):
        got = await engine.get(ORG, ROOMS, "a")
        assert got == {"id": "a", "tags": ["x"]}
        got["tags"].append("other")
    updated = await engine.update(ORG, ROOMS, "a", set={"n": 1})
    assert updated is not None
    updated["tags"].append("other")
    assert await engine.get(ORG, ROOMS, "a") == {"id": "a", "tags": ["x"], "n": 1}


async def test_many_at_once(engine: Engine) -> None:
    for n in range(5):
        await engine.insert(ORG, ROOMS, {"id": f"r{n}"})
    await engine.insert(OTHER, ROOMS, {"id": "r9"})
    assert await engine.get(ORG, ROOMS, "r1") == {"id": "r1"}
    got = await engine.get_many(ORG, ROOMS, ["r3", "none", "r9", "r1", "r3"])
    assert got == {"r1": {"id": "r1"}, "r3": {"id": "r3"}}
    assert await engine.get_many(ORG, ROOMS, []) == {}
    ids = [f"r{n}" for n in range(5000)]
    assert len(await engine.get_many(ORG, ROOMS, ids)) == 5


async def test_ids_are_unique_within_an_organization(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "a", "n": 1})
    await engine.insert(OTHER, ROOMS, {"id": "a", "n": 2})
    with pytest.raises(Duplicate) as raised:
        await engine.insert(ORG, ROOMS, {"id": "a", "n": 3})
    assert raised.value.collection == "rooms"
    assert await engine.get(ORG, ROOMS, "a") == {"id": "a", "n": 1}
    assert await engine.get(OTHER, ROOMS, "a") == {"id": "a", "n": 2}


async def test_a_unique_index_is_per_organization_and_passes_over_nulls(engine: Engine) -> None:
    await engine.insert(ORG, PEOPLE, {"id": "a", "email": "x"})
    await engine.insert(OTHER, PEOPLE, {"id": "b", "email": "x"})
    await engine.insert(ORG, PEOPLE, {"id": "c", "email": None})
    await engine.insert(ORG, PEOPLE, {"id": "d"})
    with pytest.raises(Duplicate):
        await engine.insert(ORG, PEOPLE, {"id": "e", "email": "x"})
    await engine.insert(ORG, PEOPLE, {"id": "e", "email": "y"})
    with pytest.raises(Duplicate):
        await engine.update(ORG, PEOPLE, "e", set={"email": "x"})
    assert await engine.get(ORG, PEOPLE, "e") == {"id": "e", "email": "y"}
    with pytest.raises(Duplicate):
        await engine.write(ORG, [Put(PEOPLE, {"id": "e", "email": "x"})])
    await engine.delete(ORG, PEOPLE, {"id": "a"})
    assert await engine.update(ORG, PEOPLE, "e", set={"email": "x"}) == {"id": "e", "email": "x"}


async def test_concurrent_inserts_with_one_unique_value_store_one(engine: Engine) -> None:
    done = await gathered(
        *(engine.insert(ORG, PEOPLE, {"id": f"p{n}", "email": "x"}) for n in range(40))
    )
    assert sum(result is None for result in done) == 1
    assert sum(isinstance(result, Duplicate) for result in done) == 39
    assert await engine.count(ORG, PEOPLE, {"email": "x"}) == 1


async def test_insert_or_get(engine: Engine) -> None:
    done = await asyncio.gather(
        *(engine.insert_or_get(ORG, ROOMS, {"id": "a", "by": n}) for n in range(30))
    )
    assert all(doc == done[0] for doc in done)
    assert await engine.get(ORG, ROOMS, "a") == done[0]
    assert await engine.insert_or_get(OTHER, ROOMS, {"id": "a"}) == {"id": "a"}
    await engine.insert(ORG, PEOPLE, {"id": "p", "email": "x"})
    with pytest.raises(Duplicate):
        await engine.insert_or_get(ORG, PEOPLE, {"id": "q", "email": "x"})


# -- update -------------------------------------------------------------------------------------


async def test_update_sets_and_adds(engine: Engine) -> None:
    await engine.insert(ORG, NOTES, {"id": "a", "seq": 1, "kind": "x", "none": None})
    doc = await engine.update(
        ORG, NOTES, "a", set={"kind": "y", "deep": {"a": 1}}, inc={"seq": 4, "none": 1, "new": 2}
    )
    assert doc == {"id": "a", "seq": 5, "kind": "y", "deep": {"a": 1}, "none": 1, "new": 2}
    assert await engine.get(ORG, NOTES, "a") == doc
    assert await engine.find(ORG, NOTES, {"kind": "y"}) == [doc]
    assert await engine.find(ORG, NOTES, {"kind": "x"}) == []
    assert await engine.update(ORG, NOTES, "b", set={"kind": "y"}) is None
    assert await engine.update(OTHER, NOTES, "a", set={"kind": "z"}) is None


async def test_update_only_where_it_holds(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "a", "n": 3, "s": "abc", "none": None})
    holds: list[dict[str, Any]] = [
        {"n": 3},
        {"none": None},
        {"missing": None},
        {"n": Is("<", 4), "s": Is("prefix", "ab")},
        {"n": Is("<=", 3)},
        {"n": Is(">=", 3)},
        {"n": Is(">", 2)},
        {"none": Is("!=", 1)},
        {"n": Is("in", [1, 3])},
        {"none": Is("in", [None, 1])},
        {"n": (Is(">", 2), Is("<", 4))},
    ]
    fails: list[dict[str, Any]] = [
        {"n": 4},
        {"n": None},
        {"n": 3, "s": "x"},
        {"n": Is("<", 3)},
        {"n": Is(">", 3)},
        {"none": Is("<", 1)},
        {"none": Is(">=", 1)},
        {"none": Is("!=", None)},
        {"n": Is("!=", 3)},
        {"n": Is("in", [])},
        {"s": Is("prefix", "b")},
        {"none": Is("prefix", "")},
        {"n": (Is(">", 2), Is("<", 3))},
    ]
    for place, where in enumerate(holds):
        doc = await engine.update(ORG, ROOMS, "a", set={"place": place}, where=where)
        assert doc is not None, where
        assert doc["place"] == place
    for where in fails:
        assert await engine.update(ORG, ROOMS, "a", set={"place": -1}, where=where) is None, where
    got = await engine.get(ORG, ROOMS, "a")
    assert got is not None
    assert got["place"] == len(holds) - 1


async def test_concurrent_updates_are_atomic(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "a", "n": 0, "owner": None})
    await asyncio.gather(*(engine.update(ORG, ROOMS, "a", inc={"n": 1}) for _ in range(100)))
    done = await asyncio.gather(
        *(
            engine.update(ORG, ROOMS, "a", set={"owner": n}, where={"owner": None})
            for n in range(20)
        )
    )
    assert sum(doc is not None for doc in done) == 1
    got = await engine.get(ORG, ROOMS, "a")
    assert got is not None
    assert got["n"] == 100


async def test_an_id_does_not_change(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "a"})
    with pytest.raises(ValueError, match="id"):
        await engine.update(ORG, ROOMS, "a", set={"id": "b"})


# -- write --------------------------------------------------------------------------------------


async def test_plain_changes_in_order(stores: Stores, engine: Engine) -> None:
    await engine.write(
        ORG,
        [
            Insert(ROOMS, {"id": "a", "n": 1}),
            Update(ROOMS, "a", set={"x": 1}, inc={"n": 1}),
            Put(ROOMS, {"id": "b", "n": 1}),
            Put(ROOMS, {"id": "b", "m": 1}),
            Insert(ROOMS, {"id": "c"}),
            Delete(ROOMS, "c"),
            Delete(ROOMS, "never"),
            Update(ROOMS, "never", set={"n": 1}),
        ],
    )
    async for store in stores.before_and_after_restart(engine):
        assert await store.find(ORG, ROOMS, {}) == [
            {"id": "a", "n": 2, "x": 1},
            {"id": "b", "m": 1},
        ]


async def test_writing_what_is_there_is_a_duplicate(engine: Engine) -> None:
    await engine.insert(ORG, ROOMS, {"id": "a", "n": 1})
    with pytest.raises(Duplicate) as raised:
        await engine.write(ORG, [Insert(ROOMS, {"id": "a", "n": 2})])
    assert raised.value.collection == "rooms"
    assert await engine.get(ORG, ROOMS, "a") == {"id": "a", "n": 1}


async def test_writing_nothing(engine: Engine) -> None:
    await engine.write(ORG, [])


async def test_only_an_append_stamps(engine: Engine) -> None:
    with pytest.raises(ValueError, match="stamp"):
        await engine.write(ORG, [Insert(ROOMS, {"id": "a"}, stamp="seq")])


async def test_a_document_needs_an_id_and_plain_values(engine: Engine) -> None:
    with pytest.raises(ValueError, match="id"):
        await engine.insert(ORG, ROOMS, {"n": 1})
    with pytest.raises(ValueError, match="kind"):
        await engine.insert(ORG, NOTES, {"id": "a", "kind": ["list"]})


async def test_an_undeclared_collection_is_a_mistake(engine: Engine) -> None:
    with pytest.raises(ValueError, match="ghosts"):
        await engine.get(ORG, Collection("ghosts"), "a")
    with pytest.raises(ValueError, match="ghosts"):
        await engine.insert(ORG, Collection("ghosts"), {"id": "a"})


# -- life ---------------------------------------------------------------------------------------


async def test_ping_returns_while_the_store_works_and_not_after_its_end(
    stores: Stores, engine: Engine
) -> None:
    await engine.ping()
    await stores.stop(engine)
    with pytest.raises(Unavailable):
        await engine.ping()
    again = await stores.start()
    await again.ping()


# -- delete -------------------------------------------------------------------------------------


async def test_delete_what_matches(engine: Engine) -> None:
    for n in range(10):
        await engine.insert(ORG, NOTES, {"id": f"n{n}", "room": "r", "seq": n})
    await engine.insert(OTHER, NOTES, {"id": "n1", "room": "r", "seq": 1})
    assert await engine.get(ORG, NOTES, "n1") is not None
    assert await engine.delete(ORG, NOTES, {"room": "r", "seq": Is("<", 4)}) == 4
    assert await engine.delete(ORG, NOTES, {"room": "r", "seq": Is("<", 4)}) == 0
    assert [doc["id"] for doc in await engine.find(ORG, NOTES, {})] == [
        f"n{n}" for n in range(4, 10)
    ]
    assert await engine.get(ORG, NOTES, "n1") is None
    assert await engine.get(OTHER, NOTES, "n1") is not None
    await engine.insert(ORG, NOTES, {"id": "n1", "room": "r", "seq": 1})


async def test_a_document_of_a_stream_may_be_removed_by_plain_writes(
    stores: Stores, engine: Engine
) -> None:
    stream = "messages/r1"
    for id in ("one", "two", "three"):
        await send(engine, id, stream=stream, body="word")
    await engine.write(ORG, [Delete(NOTES, "one")])
    assert await engine.delete(ORG, NOTES, {"id": "two"}) == 1
    async for store in stores.before_and_after_restart(engine):
        assert [doc["id"] for doc in await store.find(ORG, NOTES, {})] == ["three"]
        found = await store.search(ORG, NOTES, "word", {}, limit=5)
        assert [doc["id"] for doc in found] == ["three"]
        assert await seqs(store, stream) == [1, 2, 3]
        engine = store
    await engine.append(appending(stream, changes=[Insert(NOTES, note("one", body="again"))]))
    await engine.insert(ORG, NOTES, note("two", body="again"))
    for id in ("one", "two"):
        assert await engine.get(ORG, NOTES, id) == note(id, body="again")
    # What a plain write stored in the place of a stream's document is no stream's.
    assert await engine.update(ORG, NOTES, "two", set={"seq": 1}) is not None
    await engine.write(ORG, [Update(NOTES, "two", inc={"seq": 1})])
    assert await engine.get(ORG, NOTES, "two") == note("two", body="again", seq=2)
    await engine.append(appending(stream, changes=[Update(NOTES, "two", inc={"seq": 1})]))
    with pytest.raises(ValueError, match="two belongs"):
        await engine.update(ORG, NOTES, "two", inc={"seq": 1})


async def test_a_document_of_a_stream_is_changed_by_its_appends_alone(
    stores: Stores, engine: Engine
) -> None:
    stream = "messages/r1"
    await engine.insert(ORG, NOTES, note("was plain", n=1))
    await send(engine, "stored", stream=stream)
    await engine.append(appending(stream, changes=[Update(NOTES, "was plain", inc={"n": 1})]))
    await engine.append(appending(stream, changes=[Put(NOTES, note("put"))]))
    mine = ("stored", "was plain", "put")
    async for store in stores.before_and_after_restart(engine):
        before = await store.get_many(ORG, NOTES, mine)
        assert before.keys() == set(mine)
        for id in mine:
            changes: list[Change] = [
                Update(NOTES, id, set={"body": "theirs"}),
                Put(NOTES, note(id, body="theirs")),
            ]
            for change in changes:
                with pytest.raises(ValueError, match=f"{id} belongs"):
                    await store.append(appending("messages/r2", changes=[change]))
                with pytest.raises(ValueError, match=f"{id} belongs"):
                    await store.write(ORG, [change])
            with pytest.raises(ValueError, match=f"{id} belongs"):
                await store.update(ORG, NOTES, id, set={"body": "theirs"})
            assert await store.update(ORG, NOTES, id, set={"body": ""}, where={"n": 99}) is None
            # One that is there is left as it is, whosever it is.
            await store.append(appending("messages/r3", changes=[Insert(NOTES, note(id))]))
            assert await store.insert_or_get(ORG, NOTES, note(id)) == before[id]
            with pytest.raises(Duplicate):
                await store.insert(ORG, NOTES, note(id))
        assert await store.get_many(ORG, NOTES, mine) == before
        assert await seqs(store, "messages/r2") == []
        for id in mine:
            await store.append(appending(stream, changes=[Update(NOTES, id, inc={"n": 1})]))
    await store.append(appending("messages/r2", changes=[Delete(NOTES, "put")]))
    assert await store.get(ORG, NOTES, "put") is None


async def test_an_append_leaves_unique_values_as_they_are(engine: Engine) -> None:
    stream = "messages/r1"
    ann = {"id": "a", "email": "ann@x", "age": 1}
    await engine.append(appending(stream, changes=[Insert(PEOPLE, ann)]))
    changes: list[Change] = [
        Update(PEOPLE, "a", set={"email": "eve@x"}),
        Update(PEOPLE, "a", set={"email": None}),
        Put(PEOPLE, {"id": "a", "age": 2}),
    ]
    for change in changes:
        with pytest.raises(ValueError, match="unique"):
            await engine.append(appending(stream, changes=[change]))
    assert await engine.get(ORG, PEOPLE, "a") == ann
    assert await seqs(engine, stream) == [1]
    await engine.append(appending(stream, changes=[Put(PEOPLE, {**ann, "age": 2})]))
    await engine.append(appending(stream, changes=[Update(PEOPLE, "a", inc={"age": 1})]))
    assert await engine.get(ORG, PEOPLE, "a") == {**ann, "age": 3}
    await engine.append(appending(stream, changes=[Delete(PEOPLE, "a")]))
    await engine.append(appending(stream, changes=[Insert(PEOPLE, {**ann, "email": "eve@x"})]))


async def test_delete_across_organizations(engine: Engine) -> None:
    for org in (ORG, OTHER, "third"):
        for n in range(3):
            await engine.insert(org, PEOPLE, {"id": f"p{n}", "age": n})
    assert await engine.delete_any_org(PEOPLE, {"age": Is("<", 2)}) == 6
    for org in (ORG, OTHER, "third"):
        assert await engine.find(org, PEOPLE, {}) == [{"id": "p2", "age": 2}]
        assert await engine.get(org, PEOPLE, "p0") is None


async def test_delete_of_more_than_one_step(engine: Engine) -> None:
    await engine.write(
        ORG, [Insert(NOTES, {"id": f"n{n:04}", "room": "r", "body": "word"}) for n in range(1200)]
    )
    assert len(await engine.search(ORG, NOTES, "word", {}, limit=2000)) == 1200
    assert await engine.delete(ORG, NOTES, {"room": "r"}) == 1200
    assert await engine.count(ORG, NOTES, {}) == 0
    assert await engine.search(ORG, NOTES, "word", {}, limit=2000) == []


# -- reads see writes ---------------------------------------------------------------------------


async def test_everything_that_returned_is_seen_by_every_read(engine: Engine) -> None:
    async def one(n: int) -> None:
        id = f"n{n}"
        await engine.insert(ORG, NOTES, {"id": id, "room": id, "seq": 0})
        for turn in range(1, 6):
            await engine.update(ORG, NOTES, id, inc={"seq": 1})
            got = await engine.get(ORG, NOTES, id)
            assert got is not None
            assert got["seq"] == turn
            (found,) = await engine.find(ORG, NOTES, {"room": id})
            assert found["seq"] == turn
            assert (await engine.get_many(ORG, NOTES, [id]))[id]["seq"] == turn
        await engine.write(ORG, [Delete(NOTES, id)])
        assert await engine.get(ORG, NOTES, id) is None
        assert await engine.find(ORG, NOTES, {"room": id}) == []

    await asyncio.gather(*(one(n) for n in range(40)))


async def test_reads_never_go_back(engine: Engine) -> None:
    """Once a value was seen by whatever read, no later read gives an older one."""
    await engine.insert(ORG, NOTES, {"id": "a", "room": "r", "seq": 0})
    writing = True

    async def watch() -> None:
        seen = 0
        while writing:
            for _ in range(2):
                got = await engine.get(ORG, NOTES, "a")
                assert got is not None
                assert got["seq"] >= seen
                seen = got["seq"]
            (found,) = await engine.find(ORG, NOTES, {"room": "r"})
            assert found["seq"] >= seen
            seen = found["seq"]

    watching = [asyncio.create_task(watch()) for _ in range(5)]
    for _ in range(150):
        await engine.update(ORG, NOTES, "a", inc={"seq": 1})
    writing = False
    await asyncio.gather(*watching)
