"""Finding documents: filters, sorting, paging, numbers."""

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.engine import Collection, Document, Engine, Index, Insert, Is
from tests.support.stores import NOTES, ORG, OTHER, PEOPLE, ROOMS, Stores

FIRST = [
    {"id": "a", "room": "r1", "seq": 1, "author": "x", "kind": "k", "pinned": True},
    {"id": "b", "room": "r1", "seq": 2, "author": "y", "kind": None, "pinned": False},
    {"id": "c", "room": "r1", "seq": 3, "author": "x", "pinned": None},
    {"id": "d", "room": "r2", "seq": 4, "author": "yx", "kind": "kk"},
]


async def ids(engine: Engine, where: dict[str, Any], org: str = ORG, **more: Any) -> str:
    return "".join(doc["id"] for doc in await engine.find(org, NOTES, where, **more))


@pytest.fixture
async def notes(engine: Engine) -> Engine:
    await engine.write(ORG, [Insert(NOTES, doc) for doc in FIRST])
    await engine.insert(OTHER, NOTES, {"id": "z", "room": "r1", "seq": 1})
    return engine


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "abcd"),
        ({"id": "b"}, "b"),
        ({"id": Is("in", ["b", "d", "zz"])}, "bd"),
        ({"id": Is(">", "b")}, "cd"),
        ({"room": "r1"}, "abc"),
        ({"room": "r1", "author": "x"}, "ac"),
        ({"room": "r1", "seq": Is("<", 3)}, "ab"),
        ({"seq": Is("<=", 2)}, "ab"),
        ({"seq": Is(">", 2)}, "cd"),
        ({"seq": Is(">=", 2), "room": Is("!=", "r2")}, "bc"),
        ({"kind": None}, "bc"),
        ({"kind": "k"}, "a"),
        ({"kind": Is("!=", "k")}, "bcd"),
        ({"kind": Is("!=", None)}, "ad"),
        ({"kind": Is("<", "zzz")}, "ad"),
        ({"kind": Is("in", ["k", "nope"])}, "a"),
        ({"kind": Is("in", ["k", None])}, "abc"),
        ({"kind": Is("in", [])}, ""),
        ({"kind": Is("in", [None])}, "bc"),
        ({"author": Is("prefix", "y")}, "bd"),
        ({"author": Is("prefix", "")}, "abcd"),
        ({"kind": Is("prefix", "")}, "ad"),
        ({"author": Is("prefix", "yxz")}, ""),
        ({"pinned": True}, "a"),
        ({"pinned": False}, "b"),
        ({"pinned": None}, "cd"),
        ({"seq": Is("in", [1, 4, 4])}, "ad"),
        ({"seq": (Is(">", 1), Is("<", 4))}, "bc"),
        ({"seq": (Is(">", 1), Is(">=", 3))}, "cd"),
        ({"seq": (Is(">", 1), Is(">", 2), Is("!=", 4), Is("!=", 9))}, "c"),
        ({"seq": (2, Is(">", 1)), "room": "r1"}, "b"),
        ({"seq": (2, 3)}, ""),
        ({"seq": ()}, "abcd"),
        ({"kind": (Is("!=", "k"), Is("!=", "kk"))}, "bc"),
        ({"kind": (Is("!=", None), Is("!=", "k"))}, "d"),
        ({"kind": (None, Is("!=", "k"))}, "bc"),
        ({"author": (Is("prefix", "y"), Is("prefix", "yx"))}, "d"),
        ({"author": (Is("in", ["x", "y"]), Is("in", ["y", "yx"]))}, "b"),
        ({"id": (Is("in", ["a", "b", "c"]), Is(">", "a"), Is("in", ["b", "d"]))}, "b"),
        ({"id": (Is(">", "a"), "c")}, "c"),
    ],
)
async def test_filters(notes: Engine, where: dict[str, Any], expected: str) -> None:
    assert await ids(notes, where) == expected
    assert await notes.count(ORG, NOTES, where) == len(expected)


async def test_conditions_on_one_field_hold_in_every_call(notes: Engine) -> None:
    between = {"seq": (Is(">", 1), Is("<", 4))}
    assert {doc["id"] for doc in await notes.find_any_org(NOTES, between, limit=9)} == {"b", "c"}
    assert await notes.count_each(ORG, NOTES, [between, {}], 9) == [2, 4]
    assert await notes.sum(ORG, NOTES, "seq", between) == 5
    page = await notes.find(ORG, NOTES, between, order=("-seq",), after=(3, "c"), limit=1)
    assert [doc["id"] for doc in page] == ["b"]
    await notes.update(ORG, NOTES, "a", set={"body": "word"})
    await notes.update(ORG, NOTES, "c", set={"body": "word"})
    found = await notes.search(ORG, NOTES, "word", {"seq": (3, Is("!=", 1))}, limit=9)
    assert [doc["id"] for doc in found] == ["c"]
    assert await notes.delete(ORG, NOTES, between) == 2
    assert await ids(notes, {}) == "ad"
    assert await notes.delete_any_org(NOTES, {"seq": (Is(">", 3), Is("<", 5))}) == 1
    assert await ids(notes, {}) == "a"


async def test_only_declared_fields_can_be_asked_for(notes: Engine) -> None:
    for call in (
        notes.find(ORG, NOTES, {"body": "x"}),
        notes.find(ORG, NOTES, {}, order=("body",)),
        notes.find(ORG, ROOMS, {"n": 1}),
        notes.count(ORG, NOTES, {"_org": "acme"}),
        notes.sum(ORG, NOTES, "body", {}),
        notes.delete(ORG, NOTES, {"body": "x"}),
        notes.find_any_org(NOTES, {"nope": 1}),
        notes.search(ORG, NOTES, "x", {"body": 1}, limit=1),
        notes.find(ORG, NOTES, {}, order=("seq", "-id")),
        notes.find(ORG, NOTES, {"seq": Is("~", 1)}),
        notes.find(ORG, NOTES, {}, order=("seq",), after=(1,)),
    ):
        with pytest.raises(ValueError, match=r".+"):
            await call


async def test_sorting_and_limits(notes: Engine) -> None:
    assert await ids(notes, {}, order=("author",)) == "acbd"
    assert await ids(notes, {}, order=("-author",)) == "dbca"
    assert await ids(notes, {}, order=("-id",)) == "dcba"
    assert await ids(notes, {}, order=("kind",)) == "bcad"
    assert await ids(notes, {}, order=("-kind",)) == "dacb"
    assert await ids(notes, {}, order=("author", "seq"), limit=2) == "ac"
    assert await ids(notes, {}, limit=0) == ""
    assert await ids(notes, {}, limit=None) == "abcd"


async def test_no_more_than_a_thousand_unless_asked(engine: Engine) -> None:
    await engine.write(ORG, [Insert(ROOMS, {"id": f"r{n:04}"}) for n in range(1100)])
    assert len(await engine.find(ORG, ROOMS, {})) == 1000
    assert len(await engine.find(ORG, ROOMS, {}, limit=None)) == 1100


async def test_strings_sort_by_code_point(engine: Engine) -> None:
    texts = ["", "A", "Z", "a", "z", "é", "日", "\ud7ff", "\ue000", "😀", "\U0010ffff"]
    await engine.write(
        ORG, [Insert(PEOPLE, {"id": f"{n}", "email": text}) for n, text in enumerate(texts)]
    )
    found = await engine.find(ORG, PEOPLE, {}, order=("email",))
    assert [doc["email"] for doc in found] == texts
    for text in texts[1:]:
        (doc,) = await engine.find(ORG, PEOPLE, {"email": Is("prefix", text)})
        assert doc["email"] == text


async def test_numbers(notes: Engine) -> None:
    assert await notes.count(ORG, NOTES, {}) == 4
    assert await notes.count(OTHER, NOTES, {}) == 1
    assert await notes.sum(ORG, NOTES, "seq", {}) == 10
    assert await notes.sum(ORG, NOTES, "seq", {"room": "r1"}) == 6
    assert await notes.sum(ORG, NOTES, "seq", {"room": "none"}) == 0
    assert await notes.sum(ORG, PEOPLE, "age", {}) == 0


async def test_finding_across_organizations(engine: Engine) -> None:
    for n, org in enumerate([ORG, OTHER, "third"]):
        await engine.insert(org, PEOPLE, {"id": f"p{n}", "email": "a@x"})
        await engine.insert(org, PEOPLE, {"id": "same", "email": f"{org}@x"})
    found = await engine.find_any_org(PEOPLE, {"email": "a@x"})
    assert {(doc["id"], doc["org"]) for doc in found} == {
        ("p0", ORG),
        ("p1", OTHER),
        ("p2", "third"),
    }
    assert len(await engine.find_any_org(PEOPLE, {}, limit=4)) == 4
    assert await engine.find_any_org(PEOPLE, {"email": "none"}) == []
    (one,) = await engine.find_any_org(PEOPLE, {"id": "same", "email": f"{OTHER}@x"})
    assert one == {"id": "same", "email": f"{OTHER}@x", "org": OTHER}


values = st.one_of(st.none(), st.integers(0, 2), st.sampled_from(["a", "b"]))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", [("author", "pinned", "at"), ("kind",), ("id",), ("at", "id")])
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(st.tuples(values, values, values, values), max_size=25), size=st.integers(1, 4)
)
async def test_pages_put_together_are_the_whole_in_order(
    engine: Engine, order: tuple[str, ...], descending: bool, rows: list[Any], size: int
) -> None:
    await engine.delete(ORG, NOTES, {})
    docs: list[Document] = [
        {"id": f"{n:02}", "author": row[0], "pinned": row[1], "at": row[2], "kind": row[3]}
        for n, row in enumerate(rows)
    ]
    await engine.write(ORG, [Insert(NOTES, doc) for doc in docs])
    fields = order if "id" in order else (*order, "id")

    def rank(doc: Document) -> list[tuple[int, Any]]:
        # Null, then numbers, then text.
        return [
            (0 if doc[f] is None else 1 if isinstance(doc[f], int) else 2, doc[f] or 0)
            if not isinstance(doc[f], str)
            else (2, doc[f])
            for f in fields
        ]

    expected = sorted(docs, key=rank, reverse=descending)
    asked = tuple(f"-{name}" for name in order) if descending else order
    got: list[Document] = []
    after = None
    for _ in itertools.count():
        page = await engine.find(ORG, NOTES, {}, order=asked, after=after, limit=size)
        got += page
        if len(page) < size:
            break
        after = [page[-1][name] for name in fields]
    assert got == expected


async def test_a_later_version_may_declare_more(stores: Stores) -> None:
    before = Collection("notes", fields=("kind",))
    engine = await stores.start((before, ROOMS))
    docs = [{"id": f"n{n}", "kind": "k", "room": f"r{n % 2}", "seq": n} for n in range(10)]
    await engine.write(ORG, [Insert(before, doc) for doc in docs])
    await stores.stop(engine)
    engine = await stores.start()
    assert await ids(engine, {"room": "r1", "seq": Is(">", 4)}) == "n5n7n9"
    await engine.insert(ORG, PEOPLE, {"id": "p", "email": "x"})
    await stores.stop(engine)

    # Going back and forth loses nothing either.
    engine = await stores.start((before, ROOMS))
    await engine.insert(ORG, before, {"id": "n99", "kind": "k", "room": "r1", "seq": 99})
    await stores.stop(engine)
    engine = await stores.start()
    assert await ids(engine, {"room": "r1", "seq": Is(">", 6)}) == "n7n9n99"
    assert await engine.get(ORG, PEOPLE, "p") == {"id": "p", "email": "x"}


async def test_a_declared_unique_index_holds_for_what_was_there(stores: Stores) -> None:
    loose = Collection("people", fields=("email",))
    engine = await stores.start((loose,))
    await engine.insert(ORG, loose, {"id": "a", "email": "x"})
    await stores.stop(engine)
    strict = Collection("people", indexes=(Index(("email",), unique=True),))
    engine = await stores.start((strict,))
    with pytest.raises(Exception, match="people"):
        await engine.insert(ORG, strict, {"id": "b", "email": "x"})
