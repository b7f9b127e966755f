"""Set fields: lists of strings, and who has which."""

from typing import Any

import pytest

from store.engine import (
    SET_LENGTH,
    SET_SIZE,
    Collection,
    Delete,
    Engine,
    Guard,
    GuardFailed,
    Index,
    Insert,
    Is,
    Put,
    Update,
)
from tests.support.stores import NOTES, ORG, OTHER, ROOMS, Stores, appending, note

HAS_X = {"tags": Is("has", "x")}
NOTED = [
    note("a", room="r1", seq=1, tags=["x", "y"], body="word"),
    note("b", room="r2", seq=2, tags=["x", "x"], kind="k"),
    note("c", room="r1", seq=3, tags=["y"], body="word"),
    note("d", room="r1", seq=4, tags=None),
    note("e", room="r1", seq=5, tags=[]),
    note("f", room="r1", seq=6),
    note("g", room="r1", seq=0, tags=("z", "x"), body="word"),
]


async def ids(engine: Engine, where: dict[str, Any], org: str = ORG, **more: Any) -> str:
    return "".join(doc["id"] for doc in await engine.find(org, NOTES, where, **more))


@pytest.fixture
async def noted(engine: Engine) -> Engine:
    await engine.write(ORG, [Insert(NOTES, doc) for doc in NOTED])
    await engine.insert(OTHER, NOTES, note("o", room="r1", tags=["x"]))
    return engine


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (HAS_X, "abg"),
        ({"tags": Is("has", "y")}, "ac"),
        ({"tags": Is("has", "X")}, ""),
        ({"tags": Is("has", "")}, ""),
        ({"tags": (Is("has", "x"), Is("has", "y"))}, "a"),
        ({"tags": (Is("has", "x"), Is("has", "x"))}, "abg"),
        ({**HAS_X, "room": "r1"}, "ag"),
        ({**HAS_X, "room": "r1", "seq": Is(">", 0)}, "a"),
        ({**HAS_X, "kind": None}, "ag"),
        ({**HAS_X, "id": Is(">", "a")}, "bg"),
        ({**HAS_X, "id": "b"}, "b"),
    ],
)
async def test_what_has_a_string(noted: Engine, where: dict[str, Any], expected: str) -> None:
    assert await ids(noted, where) == expected
    assert await ids(noted, where, order=("-id",)) == expected[::-1]
    assert await noted.count(ORG, NOTES, where) == len(expected)
    assert await noted.count_each(ORG, NOTES, [where], 9) == [len(expected)]


async def test_every_call_knows_of_sets(noted: Engine) -> None:
    assert (await noted.get(ORG, NOTES, "b"))["tags"] == ["x", "x"]  # type: ignore[index]
    assert await ids(noted, HAS_X, org=OTHER) == "o"
    found = await noted.find_any_org(NOTES, HAS_X, 9)
    assert {(doc["org"], doc["id"]) for doc in found} == {
        *((ORG, id) for id in "abg"),
        (OTHER, "o"),
    }
    assert await noted.sum(ORG, NOTES, "seq", HAS_X) == 3
    assert await noted.count_by(ORG, NOTES, "room", HAS_X) == {"r1": 2, "r2": 1}
    hits = await noted.search(ORG, NOTES, "word", HAS_X, limit=9)
    assert [doc["id"] for doc in hits] == ["g", "a"]
    assert await noted.delete(ORG, NOTES, {**HAS_X, "room": "r1"}) == 2
    assert await ids(noted, HAS_X) == "b"
    assert await noted.delete_any_org(NOTES, HAS_X) == 2
    assert await ids(noted, HAS_X) == await ids(noted, HAS_X, org=OTHER) == ""
    assert await ids(noted, {}) == "cdef"


@pytest.mark.parametrize("order", ["seq", "-seq"])
async def test_what_has_a_string_comes_in_an_order_in_pages(noted: Engine, order: str) -> None:
    where = {**HAS_X, "room": "r1"}
    await noted.write(
        ORG, [Insert(NOTES, note(f"p{n}", room="r1", seq=n % 4, tags=["x"])) for n in range(9)]
    )
    whole = await noted.find(ORG, NOTES, where, order=(order,))
    rank = [(doc["seq"], doc["id"]) for doc in whole]
    assert rank == sorted(rank, reverse=order == "-seq")
    assert len(rank) == 11
    got, after = [], None
    while page := await noted.find(ORG, NOTES, where, order=(order,), after=after, limit=2):
        got += page
        after = (page[-1]["seq"], page[-1]["id"])
    assert got == whole


async def test_sets_change_by_plain_writes(noted: Engine) -> None:
    await noted.update(ORG, NOTES, "c", set={"tags": ["x"]})
    await noted.update(ORG, NOTES, "a", set={"kind": "new"})
    await noted.write(ORG, [Put(NOTES, note("b", tags=["w"])), Update(NOTES, "g", {"tags": None})])
    assert await ids(noted, HAS_X) == "ac"
    await noted.insert_or_get(ORG, NOTES, note("h", tags=["x"]))
    await noted.insert_or_get(ORG, NOTES, note("d", tags=["x"]))
    await noted.write(ORG, [Delete(NOTES, "a"), Delete(NOTES, "none")])
    assert await ids(noted, HAS_X) == "ch"
    assert await ids(noted, {"tags": Is("has", "w")}) == "b"
    await noted.insert(ORG, NOTES, note("a", tags=["w"]))
    assert await ids(noted, {"tags": Is("has", "w")}) == "ab"
    # What only moves within the index moves there.
    await noted.update(ORG, NOTES, "c", set={"seq": 9, "room": "r9"})
    assert await ids(noted, {**HAS_X, "room": "r9", "seq": 9}) == "c"
    where = {"tags": Is("has", "x")}
    assert await noted.update(ORG, NOTES, "c", set={"kind": "has"}, where=where) is not None
    assert await noted.update(ORG, NOTES, "d", set={"kind": "has"}, where=where) is None


async def test_sets_change_with_the_append(engine: Engine) -> None:
    def append(*changes: Any, guards: Any = ()) -> Any:
        return engine.append(appending(changes=changes, guards=guards))

    await append(Insert(NOTES, note("a", seq=None, tags=["x"]), stamp="seq"))
    await append(Insert(NOTES, note("a", tags=["y"])), Insert(NOTES, note("b", tags=["x"])))
    assert await ids(engine, HAS_X) == "ab"
    await append(Update(NOTES, "a", {"tags": ["y"]}), Update(NOTES, "b", {"kind": "k"}))
    assert await ids(engine, HAS_X) == "b"
    await append(Put(NOTES, note("a", tags=["x"])), Delete(NOTES, "b"))
    assert await ids(engine, HAS_X) == "a"
    has = [Guard(NOTES, "a", {"tags": (Is("has", "x"), Is("has", "y"))})]
    with pytest.raises(GuardFailed):
        await append(Update(NOTES, "a", {"tags": []}), guards=has)
    assert await ids(engine, HAS_X) == "a"
    await append(Update(NOTES, "a", {"tags": []}), guards=[Guard(NOTES, "a", HAS_X)])
    assert await ids(engine, HAS_X) == ""


@pytest.mark.parametrize(
    "value",
    [
        "x",
        1,
        {"x": 1},
        [1],
        [None],
        [["x"]],
        ["nul \0"],
        ["x" * (SET_LENGTH + 1)],
        ["x"] * (SET_SIZE + 1),
    ],
)
async def test_a_set_is_a_list_of_short_strings(noted: Engine, value: Any) -> None:
    doc = note("n", tags=value)
    for call in (
        lambda: noted.insert(ORG, NOTES, doc),
        lambda: noted.write(ORG, [Put(NOTES, doc)]),
        lambda: noted.update(ORG, NOTES, "a", set={"tags": value}),
        lambda: noted.append(appending(changes=[Insert(NOTES, doc)])),
        lambda: noted.append(appending(changes=[Update(NOTES, "a", {"tags": value})])),
    ):
        with pytest.raises(ValueError, match="tags"):
            await call()
    assert await ids(noted, HAS_X) == "abg"


async def test_the_largest_set(noted: Engine) -> None:
    most = [f"{n:03}" + "\U0001f600" * (SET_LENGTH - 3) for n in range(SET_SIZE)]
    await noted.insert(ORG, NOTES, note("n", tags=most))
    for each in (most[0], most[-1]):
        assert await ids(noted, {"tags": Is("has", each)}) == "n"


async def test_of_a_set_only_has_is_asked(noted: Engine) -> None:
    for call in (
        noted.find(ORG, NOTES, {"tags": "x"}),
        noted.find(ORG, NOTES, {"tags": None}),
        noted.find(ORG, NOTES, {"tags": Is("in", ["x"])}),
        noted.find(ORG, NOTES, {"tags": Is("has", None)}),
        noted.find(ORG, NOTES, {"tags": Is("has", ["x"])}),
        noted.find(ORG, NOTES, {"kind": Is("has", "k")}),
        noted.find(ORG, NOTES, HAS_X, order=("tags",)),
        noted.count_by(ORG, NOTES, "tags", {}),
        noted.sum(ORG, NOTES, "tags", {}),
        noted.find(ORG, ROOMS, HAS_X),
    ):
        with pytest.raises(ValueError, match=r".+"):
            await call


@pytest.mark.parametrize(
    "more",
    [
        {"indexes": (Index(("tags",), unique=True),)},
        {"indexes": (Index(("tags",), any_org=True),)},
        {"indexes": (Index(("tags", "marks")),)},
        {"text": "tags"},
    ],
)
def test_what_cannot_be_declared(more: Any) -> None:
    with pytest.raises(ValueError, match="things"):
        Collection("things", sets=("tags", "marks"), **more)


async def test_a_set_can_be_declared_later_and_no_more(stores: Stores) -> None:
    plain = Collection("notes", fields=("room",))
    some = Collection("notes", fields=("room",), sets=("tags",))
    engine = await stores.start((plain, ROOMS))
    await engine.write(ORG, [Insert(plain, doc) for doc in NOTED])
    await engine.append(appending(changes=[Insert(plain, note("q", tags=["x"]))]))
    await engine.insert(ORG, plain, note("bad", tags=[1, "x", {"y": 2}]))
    await stores.stop(engine)
    engine = await stores.start((some, ROOMS))
    found = await engine.find(ORG, some, HAS_X)
    assert [doc["id"] for doc in found] == ["a", "b", "bad", "g", "q"]
    await engine.update(ORG, some, "bad", set={"tags": ["z"]})
    assert await engine.count(ORG, some, HAS_X) == 4
    assert await engine.count(ORG, some, {"tags": Is("has", "z")}) == 2
    await stores.stop(engine)
    engine = await stores.start()
    assert await ids(engine, {**HAS_X, "room": "r1"}, order=("seq",)) == "ga"
    await stores.stop(engine)

    # A version that does not know of it writes, and one that does comes back.
    engine = await stores.start((plain, ROOMS))
    await engine.insert(ORG, plain, note("n", room="r1", seq=7, tags=["x"]))
    await engine.update(ORG, plain, "a", set={"tags": ["other"]})
    await engine.write(ORG, [Delete(plain, "g")])
    await stores.stop(engine)
    engine = await stores.start()
    assert await ids(engine, {**HAS_X, "room": "r1"}, order=("seq",)) == "n"
    assert await ids(engine, HAS_X) == "bnq"
