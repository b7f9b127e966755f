"""A store that is out of reach: every method of an engine says `Unavailable`, has done nothing, and
works again by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from domain.errors import Unavailable
from store.engine import Engine, Insert, Key, Put
from tests.support.stores import (
    NOTES,
    ORG,
    PEOPLE,
    ROOMS,
    Fragile,
    Stores,
    appending,
    gathered,
    send,
)

STREAM = "messages/r1"

Call = Callable[[Engine], Awaitable[Any]]


async def payloads(engine: Engine) -> list[bytes]:
    """Of a stream's events."""
    return [event.payload for event in await engine.read(ORG, STREAM, 0, 10)]


READS: dict[str, Call] = {
    "head": lambda engine: engine.head(ORG, STREAM),
    "heads": lambda engine: engine.heads(ORG, [STREAM]),
    "read": payloads,
    "get": lambda engine: engine.get(ORG, ROOMS, "r"),
    "get_many": lambda engine: engine.get_many(ORG, ROOMS, ["r"]),
    "find": lambda engine: engine.find(ORG, PEOPLE, {"age": 1}),
    "count": lambda engine: engine.count(ORG, PEOPLE, {}),
    "count_each": lambda engine: engine.count_each(ORG, PEOPLE, [{"age": 1}, {"age": 9}], 5),
    "count_groups": lambda engine: engine.count_groups(ORG, PEOPLE, ["age"], {}),
    "sum": lambda engine: engine.sum(ORG, PEOPLE, "age", {}),
    "find_any_org": lambda engine: engine.find_any_org(PEOPLE, {"age": 1}),
    "search": lambda engine: engine.search(ORG, NOTES, "hello", {}, limit=10),
}

WRITES: dict[str, Call] = {
    "ping": lambda engine: engine.ping(),
    "append": lambda engine: engine.append(
        appending(STREAM, key=Key("k", "d"), changes=[Insert(ROOMS, {"id": "appended"})])
    ),
    "insert": lambda engine: engine.insert(ORG, ROOMS, {"id": "inserted"}),
    "insert_or_get": lambda engine: engine.insert_or_get(ORG, ROOMS, {"id": "got"}),
    "update": lambda engine: engine.update(ORG, ROOMS, "r", inc={"n": 1}),
    "write": lambda engine: engine.write(
        ORG, [Put(ROOMS, {"id": "put"}), Insert(PEOPLE, {"id": "written", "email": "w@x"})]
    ),
    "delete": lambda engine: engine.delete(ORG, PEOPLE, {"age": 1}),
    "delete_any_org": lambda engine: engine.delete_any_org(PEOPLE, {"age": 2}),
    "trim": lambda engine: engine.trim(keep=1, before="2020-01-01T00:00:00.000Z"),
    "trim_stream": lambda engine: engine.trim_stream(ORG, STREAM),
    "new_epoch": lambda engine: engine.new_epoch(),
}


def test_every_method_is_asked() -> None:
    others = {"start", "stop", "size", "queued"}
    assert READS.keys() | WRITES.keys() | others == Engine.__abstractmethods__


async def test_a_size_is_told_or_unavailable(fragile: Fragile) -> None:
    """SQLite can ask the file system even while its database is locked."""
    engine = await filled(fragile.stores)
    assert await engine.size() > 0
    async with fragile.away():
        for _ in range(2):
            (size,) = await gathered(engine.size())
            assert isinstance(size, Unavailable) or size > 0
    assert await until_it_works(engine.size) > 0
    await fragile.stores.stop(engine)
    assert engine.queued == 0


async def filled(stores: Stores) -> Engine:
    engine = await stores.start()
    await engine.insert(ORG, ROOMS, {"id": "r", "n": 1})
    await engine.write(ORG, [Insert(PEOPLE, {"id": f"p{age}", "age": age}) for age in (1, 2, 3)])
    for id in ("n1", "n2"):
        await send(engine, id, stream=STREAM)
    return engine


async def seen(engine: Engine) -> list[Any]:
    """All there is."""
    shown = [await READS[name](engine) for name in READS]
    return [*shown, *[await engine.find(ORG, each, {}) for each in (ROOMS, PEOPLE, NOTES)]]


async def until_it_works(call: Callable[[], Awaitable[Any]]) -> Any:
    """What it returns once it is not `Unavailable` any more: nobody does anything about it."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_every_method_is_unavailable_writes_nothing_and_heals(fragile: Fragile) -> None:
    engine = await filled(fragile.stores)
    before = await seen(engine)
    known = {} if fragile.reads_too else dict(zip(READS, before, strict=False))
    calls = WRITES | READS
    async with fragile.away():
        # As it goes away, and when it is known to be.
        for _ in range(2):
            done = await gathered(*(call(engine) for call in calls.values()))
            for name, each in zip(calls, done, strict=True):
                away = isinstance(each, Unavailable)
                assert away or (name in known and each == known[name]), (name, each)
    assert await until_it_works(lambda: seen(engine)) == before
    for name, call in WRITES.items():
        assert not isinstance(await call(engine), Exception), name
    assert await engine.get(ORG, ROOMS, "r") == {"id": "r", "n": 2}
    assert [doc["id"] for doc in await engine.find(ORG, ROOMS, {})] == [
        *("appended", "got", "inserted", "put", "r")
    ]
    assert [doc["id"] for doc in await engine.find(ORG, PEOPLE, {})] == ["p3", "written"]
    assert [event.seq for event in await engine.read(ORG, STREAM, 0, 10)] == [3]


async def test_every_method_of_a_stopped_engine_is_unavailable(stores: Stores) -> None:
    engine = await filled(stores)
    await stores.stop(engine)
    calls = READS | WRITES
    done = await gathered(*(call(engine) for call in calls.values()))
    assert {name: type(each) for name, each in zip(calls, done, strict=True)} == dict.fromkeys(
        calls, Unavailable
    )


async def test_start_is_unavailable_while_the_store_is(fragile: Fragile) -> None:
    engine = await filled(fragile.stores)
    before = await seen(engine)
    await fragile.stores.stop(engine)
    async with fragile.away():
        with pytest.raises(Unavailable):
            await fragile.stores.start()
    assert await seen(await until_it_works(fragile.stores.start)) == before
