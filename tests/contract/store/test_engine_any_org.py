"""What is found across organizations in an order, for sweeps and timers."""

from typing import Any

import pytest

from store.engine import Collection, Document, Engine, Index, Insert, Is
from tests.support.stores import ORG, OTHER, Stores

TIMERS = Collection(
    "timers",
    indexes=(
        Index(("due",), any_org=True, ordered=True),
        Index(("state", "touched"), any_org=True, ordered=True),
        Index(("kind",), any_org=True),
    ),
)
ORGS = (ORG, OTHER, "third")
DOCS = [
    (ORGS[n % 3], {"id": f"t{n % 4}", "due": (n * 5) % 7, "state": "ab"[n % 2], "touched": n % 5})
    for n in range(12)
]


async def filled(stores: Stores) -> Engine:
    engine = await stores.start((TIMERS,))
    for org in ORGS:
        await engine.write(org, [Insert(TIMERS, doc) for owner, doc in DOCS if owner == org])
    await engine.insert(ORG, TIMERS, {"id": "never", "due": None, "state": "c"})
    return engine


def expected(field: str, *, descending: bool = False, **where: Any) -> list[Document]:
    chosen = [
        {**doc, "org": org}
        for org, doc in DOCS
        if all(doc[name] == value for name, value in where.items())
    ]
    chosen.sort(key=lambda doc: (doc[field], doc["id"], doc["org"]), reverse=descending)
    return chosen


async def test_documents_of_all_organizations_come_in_order(stores: Stores) -> None:
    engine = await filled(stores)
    due = {"due": Is("<=", 6)}
    assert await engine.find_any_org(TIMERS, due, 99, order=("due",)) == expected("due")
    assert await engine.find_any_org(TIMERS, due, 5, order=("due", "id")) == expected("due")[:5]
    assert await engine.find_any_org(TIMERS, due, 99, order=("-due",)) == expected(
        "due", descending=True
    )
    assert await engine.find_any_org(TIMERS, {"due": Is("<", 0)}, order=("due",)) == []
    assert await engine.find_any_org(TIMERS, due, 0, order=("due",)) == []
    assert await engine.find_any_org(
        TIMERS, {"state": "a", "touched": Is("<", 9)}, 99, order=("touched",)
    ) == expected("touched", state="a")
    # Null is the first, as in `find`.
    (first, *_) = await engine.find_any_org(TIMERS, {}, order=("due",))
    assert first == {"id": "never", "due": None, "state": "c", "org": ORG}


@pytest.mark.parametrize("order", ["due", "-due"])
@pytest.mark.parametrize("where", [{}, {"due": Is("<=", 6)}])
async def test_pages_of_all_organizations_are_the_whole(
    stores: Stores, where: dict[str, Any], order: str
) -> None:
    engine = await filled(stores)
    whole = await engine.find_any_org(TIMERS, where, 99, order=(order,))
    got: list[Document] = []
    after = None
    while page := await engine.find_any_org(TIMERS, where, 2, order=(order,), after=after):
        got += page
        after = (page[-1]["due"], page[-1]["id"], page[-1]["org"])
    assert got == whole
    assert len(got) == len(DOCS) + (not where)


async def test_only_an_ordered_index_gives_an_order(stores: Stores) -> None:
    engine = await filled(stores)
    asked: list[tuple[dict[str, Any], Any, Any]] = [
        ({}, ("kind",), None),
        ({}, ("touched",), None),
        ({"state": Is("in", ["a"])}, ("touched",), None),
        ({}, ("id",), None),
        ({}, ("due", "-id"), None),
        ({}, ("org",), None),
        ({}, ("due",), (1, "t1")),
        ({}, None, (1, "t1", ORG)),
    ]
    for where, order, after in asked:
        with pytest.raises(ValueError, match=r".+"):
            await engine.find_any_org(TIMERS, where, order=order, after=after)
    with pytest.raises(ValueError, match="ordered"):
        Index(("due",), ordered=True)


async def test_an_order_can_be_declared_later(stores: Stores) -> None:
    before = Collection("timers", indexes=(Index(("due",), any_org=True),))
    engine = await stores.start((before,))
    for org, doc in DOCS:
        await engine.write(org, [Insert(before, doc)])
    await stores.stop(engine)
    engine = await stores.start((TIMERS,))
    found = await engine.find_any_org(TIMERS, {"due": Is("<", 9)}, 99, order=("due",))
    assert found == expected("due")
