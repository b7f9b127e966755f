"""`Engine.start`, `Engine.stop`."""

import asyncio
from collections.abc import Awaitable

import pytest

from store.engine import Engine, Insert, StoreError, Update
from tests.support.stores import NOTES, ORG, ROOMS, Stores, send, seqs


async def test_data_of_a_newer_version_is_refused(stores: Stores, engine: Engine) -> None:
    await send(engine, "n1")
    await stores.stop(engine)
    stores.inside.make_newer()
    before = stores.inside.records()
    with pytest.raises(StoreError, match="run the newer program"):
        await stores.start()
    assert stores.inside.records() == before


async def test_start_may_be_repeated_on_the_same_data(stores: Stores, engine: Engine) -> None:
    await send(engine, "n1")
    for _ in range(2):
        engine = await stores.restart(engine)
    assert await seqs(engine) == [1]
    assert await engine.get(ORG, NOTES, "n1") is not None


async def test_stop_finishes_appends_that_were_accepted(stores: Stores, engine: Engine) -> None:
    accepted = asyncio.gather(*(send(engine, f"n{n:03}") for n in range(100)))
    await asyncio.sleep(0)
    await stores.stop(engine)
    assert sorted(each.seq for each in await accepted) == list(range(1, 101))
    engine = await stores.start()
    assert await seqs(engine) == list(range(1, 101))
    assert await engine.count(ORG, NOTES, {}) == 100


async def test_stop_finishes_plain_writes_and_reads_that_were_accepted(
    stores: Stores, engine: Engine
) -> None:
    await engine.insert(ORG, ROOMS, {"id": "r", "n": 0})
    calls: list[Awaitable[object]] = []
    for n in range(10):
        calls += [
            engine.insert(ORG, ROOMS, {"id": f"i{n}"}),
            engine.insert_or_get(ORG, ROOMS, {"id": f"g{n}"}),
            engine.update(ORG, ROOMS, "r", inc={"n": 1}),
            engine.write(ORG, [Insert(ROOMS, {"id": f"w{n}"}), Update(ROOMS, "r", inc={"n": 1})]),
            engine.find(ORG, ROOMS, {}),
        ]
    accepted = asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    await stores.stop(engine)
    assert [each for each in await accepted if isinstance(each, Exception)] == []
    engine = await stores.start()
    assert await engine.get(ORG, ROOMS, "r") == {"id": "r", "n": 20}
    assert await engine.count(ORG, ROOMS, {}) == 31


async def test_stop_may_be_repeated(engine: Engine) -> None:
    await engine.stop()
    await engine.stop()
    await engine.start()
    await engine.ping()


async def test_its_size_and_its_queue_can_be_watched(engine: Engine) -> None:
    await send(engine, "n1")
    assert await engine.size() > 0
    assert engine.queued == 0
    waiting = [asyncio.ensure_future(send(engine, f"n{n}")) for n in range(2, 12)]
    await asyncio.sleep(0)
    assert engine.queued == 10
    await asyncio.gather(*waiting)
    assert engine.queued == 0
