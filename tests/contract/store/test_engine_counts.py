"""Counting, each with a bound."""

from typing import Any

import pytest

from store.engine import Engine, Filter, Insert, Is
from tests.support.stores import NOTES, ORG, OTHER, note


async def test_each_filter_is_counted_up_to_the_bound(engine: Engine) -> None:
    docs = [note(f"n{number}", body="x", room=f"r{number % 2}") for number in range(9)]
    await engine.write(ORG, [Insert(NOTES, doc) for doc in docs])
    await engine.insert(OTHER, NOTES, note("n1", body="x", room="r1"))
    wheres: list[Filter] = [
        {"room": "r0"},
        {"room": "r1"},
        {"room": "none"},
        {"room": Is("in", ["r0", "r1"])},
    ]
    assert await engine.count_each(ORG, NOTES, wheres, 100) == [5, 4, 0, 9]
    assert await engine.count_each(ORG, NOTES, wheres, 4) == [4, 4, 0, 4]
    assert await engine.count_each(ORG, NOTES, [], 4) == []


async def test_documents_are_counted_by_their_values(engine: Engine) -> None:
    values = [("x", 1), ("y", 1), ("x", 2), (None, 1), ("x", 1), ("y", "text")]
    docs = [
        note(f"n{place}", room="r", author=author, seq=seq)
        for place, (author, seq) in enumerate(values)
    ]
    await engine.write(ORG, [Insert(NOTES, doc) for doc in docs])
    await engine.insert(ORG, NOTES, note("elsewhere", room="r2", seq=1))
    await engine.insert(OTHER, NOTES, note("n1", room="r", author="x", seq=1))
    counted = await engine.count_by(ORG, NOTES, "author", {"room": "r"})
    assert list(counted.items()) == [(None, 1), ("x", 3), ("y", 2)]
    counted = await engine.count_by(ORG, NOTES, "seq", {"room": "r"})
    assert list(counted.items()) == [(1, 4), (2, 1), ("text", 1)]
    assert await engine.count_by(ORG, NOTES, "room", {}) == {"r": 6, "r2": 1}
    assert await engine.count_by(ORG, NOTES, "author", {"seq": (Is(">", 0), Is("<", 2))}) == {
        None: 2,
        "x": 2,
        "y": 1,
    }
    assert await engine.count_by(ORG, NOTES, "author", {"room": "none"}) == {}
    assert list((await engine.count_by(ORG, NOTES, "author", {}, at_most=2)).items()) == [
        (None, 2),
        ("x", 3),
    ]


async def test_documents_are_counted_by_the_values_of_two_fields(engine: Engine) -> None:
    docs = [
        note(f"n{n}", room=f"r{n % 2}", author="x" if n % 3 else None, pinned=n % 2 == 0)
        for n in range(12)
    ]
    await engine.write(ORG, [Insert(NOTES, doc) for doc in docs])
    assert list((await engine.count_groups(ORG, NOTES, ("room", "author"), {})).items()) == [
        (("r0", None), 2),
        (("r0", "x"), 4),
        (("r1", None), 2),
        (("r1", "x"), 4),
    ]
    first = await engine.count_groups(ORG, NOTES, ("room", "author"), {}, at_most=3)
    assert list(first) == [("r0", None), ("r0", "x"), ("r1", None)]
    assert await engine.count_by(ORG, NOTES, "pinned", {}) == {True: 6, False: 6}
    assert await engine.count_by(ORG, NOTES, "pinned", {}, at_most=0) == {}


@pytest.mark.parametrize("fields", [(), ("body",), ("room", "body")])
async def test_groups_are_of_declared_fields(engine: Engine, fields: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        await engine.count_groups(ORG, NOTES, fields, {})
