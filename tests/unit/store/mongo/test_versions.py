"""Versions of the layout, and of the program, on one MongoDB."""

import asyncio

import pytest

from domain.errors import Unavailable
from store.engine import Collection, Index, StoreError
from store.mongo import schema
from store.words import WORDS
from tests.support.mongo_stores import MongoStores
from tests.support.stores import NOTES, ORG, appending, note


async def test_a_migration_runs_once_whoever_starts(
    mongo: MongoStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mongo.stop(await mongo.node())
    ran = []

    async def migrate(database: object) -> None:
        ran.append(database)
        await asyncio.sleep(0.2)

    monkeypatch.setattr(schema, "VERSION", 3)
    monkeypatch.setattr(schema, "MIGRATIONS", {2: migrate, 3: migrate})
    nodes = await asyncio.gather(*(mongo.node() for _ in range(4)))
    assert len(ran) == 2
    await nodes[3].append(appending())


async def test_a_migration_that_takes_long_is_left_to_who_began_it(
    mongo: MongoStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mongo.stop(await mongo.node())
    ran = []

    async def migrate(database: object) -> None:
        ran.append(database)
        await asyncio.sleep(5 * schema.LEASE / 1000)

    monkeypatch.setattr(schema, "LEASE", 300)
    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setattr(schema, "MIGRATIONS", {2: migrate})
    await asyncio.gather(*(mongo.node() for _ in range(3)))
    assert len(ran) == 1


async def test_a_migration_that_another_node_has_taken_over_is_given_up(
    mongo: MongoStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await mongo.node()
    ended = []

    async def migrate(_: object) -> None:
        other = {"$set": {"by": "another node", "until": 2**53}}
        await first._database.meta.update_one({"_id": "layout"}, other)
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    monkeypatch.setattr(schema, "LEASE", 300)
    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setattr(schema, "MIGRATIONS", {2: migrate})
    with pytest.raises(Unavailable, match="Another node"):
        await mongo.node()
    assert ended


async def test_what_breaks_a_new_unique_index_is_told_at_the_start(mongo: MongoStores) -> None:
    loose = Collection("people", fields=("email",))
    engine = await mongo.start((loose,))
    for id in ("a", "b"):
        await engine.insert(ORG, loose, {"id": id, "email": "x"})
    await mongo.stop(engine)
    strict = Collection("people", indexes=(Index(("email",), unique=True),))
    with pytest.raises(StoreError, match="people"):
        await mongo.start((strict,))


async def test_older_and_newer_programs_at_the_same_time(mongo: MongoStores) -> None:
    before = Collection("notes", fields=("kind",))
    mongo.options = {"sweep_every": 0.1}
    old = await mongo.start((before,))
    new = await mongo.start()
    await old.insert(ORG, before, {"id": "n1", "kind": "k", "room": "r", "seq": 1, "body": "late"})
    async with asyncio.timeout(10):
        while not await new.find(ORG, NOTES, {"room": "r"}):
            await asyncio.sleep(0.02)
    assert len(await new.search(ORG, NOTES, "late", {}, limit=5)) == 1
    again = await mongo.start((before,))  # takes nothing away
    assert len(await again.find(ORG, before, {"kind": "k"})) == 1
    assert len(await new.find(ORG, NOTES, {"room": "r"})) == 1


async def test_rows_with_words_of_an_older_version_are_found_by_the_new_ones(
    mongo: MongoStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.mongo.kinds.WORDS", WORDS - 1)
    monkeypatch.setattr("store.mongo.kinds.tokens", lambda text: str(text).split())
    engine = await mongo.node()
    await engine.insert(ORG, NOTES, note("n1", body="私は東京都に"))
    assert await engine.search(ORG, NOTES, "東京", {}, limit=9) == []
    await mongo.stop(engine)
    monkeypatch.undo()
    engine = await mongo.node()
    found = await engine.search(ORG, NOTES, "東京", {}, limit=9)
    assert [doc["id"] for doc in found] == ["n1"]
