"""Counting, each with a bound."""

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
