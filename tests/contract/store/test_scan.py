"""Walking through what is found, page by page."""

import pytest

from store.engine import Collection, Delete, Document, Engine, Index, Insert, Is
from store.scan import pages, pages_any_org, scan
from tests.support.stores import NOTES, ORG, OTHER, Stores, note

DOCS = [note(f"n{n:02}", room="r", seq=n // 2 if n else None, tags=["x"]) for n in range(11)]


@pytest.fixture
async def filled(engine: Engine) -> Engine:
    await engine.write(ORG, [Insert(NOTES, doc) for doc in DOCS])
    await engine.insert(OTHER, NOTES, note("o", room="r"))
    await engine.insert(ORG, NOTES, note("elsewhere", room="r2"))
    return engine


@pytest.mark.parametrize("size", [1, 2, 5, 11, 12])
@pytest.mark.parametrize("order", [("id",), ("-id",), ("seq",), ("-seq", "-id")])
async def test_all_of_it_comes_once_in_order(
    filled: Engine, order: tuple[str, ...], size: int
) -> None:
    where = {"room": "r"}
    whole = await filled.find(ORG, NOTES, where, order=order)
    found = [page async for page in pages(filled, ORG, NOTES, where, order=order, size=size)]
    assert [doc for page in found for doc in page] == whole
    assert all(0 < len(page) <= size for page in found)
    assert [doc async for doc in scan(filled, ORG, NOTES, where, order=order, size=size)] == whole


async def test_it_goes_on_behind_a_document(filled: Engine) -> None:
    where = {"tags": Is("has", "x")}
    found = [page async for page in pages(filled, ORG, NOTES, where, after=("n08",), size=2)]
    assert [[doc["id"] for doc in page] for page in found] == [["n09", "n10"]]
    assert [page async for page in pages(filled, ORG, NOTES, {"room": "none"})] == []


async def test_what_is_walked_through_may_be_removed_meanwhile(filled: Engine) -> None:
    met: list[str] = []
    async for page in pages(filled, ORG, NOTES, {"room": "r"}, size=3):
        met += [doc["id"] for doc in page]
        await filled.write(ORG, [Delete(NOTES, doc["id"]) for doc in page])
    assert met == [doc["id"] for doc in DOCS]
    assert await filled.count(ORG, NOTES, {"room": "r"}) == 0


async def test_all_organizations_are_walked_through(stores: Stores) -> None:
    timers = Collection("timers", indexes=(Index(("due",), any_org=True, ordered=True),))
    engine = await stores.start((timers,))
    for n in range(10):
        for org in (ORG, OTHER):
            await engine.insert(org, timers, {"id": f"t{n % 5}{n}", "due": n // 3})
    met: list[Document] = []
    where = {"due": Is("<", 3)}
    async for page in pages_any_org(engine, timers, where, order=("due",), size=4):
        assert 0 < len(page) <= 4
        met += page
    rank = [(doc["due"], doc["id"], doc["org"]) for doc in met]
    assert rank == sorted(rank)
    assert len(set(rank)) == 18
