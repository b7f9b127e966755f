"""Guards of an append to MongoDB whose node stands still between judging and writing: decision 0016."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from store.engine import Appended, Guard, GuardFailed, Put, Update
from store.mongo import MongoEngine
from tests.support.mongo_stores import MongoStores
from tests.support.mongo_wire import wire_proxy
from tests.support.stores import ORG, ROOMS, appending, seqs

STREAM = "messages/r1"
OTHER = "messages/other"
OPEN = {"open": True}


async def held_before_its_commit(
    mongo: MongoStores, meanwhile: Callable[[], Awaitable[object]]
) -> Appended:
    """An append that needs a room to be open, whose insert is held back until `meanwhile` is done."""
    async with wire_proxy(mongo.url) as (proxy, url):
        node = await mongo.node(url=url, sweep_every=600.0)
        proxy.arm(1, "hold", only="insert")
        append = asyncio.create_task(
            node.append(appending(STREAM, guards=[Guard(ROOMS, "room", OPEN)]))
        )
        await asyncio.wait_for(proxy.reached.wait(), 10)
        await meanwhile()
        proxy.release()
        try:
            return await append
        finally:
            await mongo.stop(node)


@pytest.fixture
async def other(mongo: MongoStores) -> MongoEngine:
    """The node that does something meanwhile."""
    return await mongo.node(sweep_every=600.0)


async def test_what_the_own_stream_changed_meanwhile_is_judged_again(
    mongo: MongoStores, other: MongoEngine
) -> None:
    await other.append(appending(STREAM, changes=[Put(ROOMS, {"id": "room", **OPEN})]))
    shut = appending(STREAM, changes=[Update(ROOMS, "room", set={"open": False})])
    with pytest.raises(GuardFailed):
        await held_before_its_commit(mongo, lambda: other.append(shut))
    assert await seqs(other) == [1, 2]


async def test_what_another_stream_changed_meanwhile_is_not(
    mongo: MongoStores, other: MongoEngine
) -> None:
    await other.append(appending(OTHER, changes=[Put(ROOMS, {"id": "room", **OPEN})]))
    shut = appending(OTHER, changes=[Update(ROOMS, "room", set={"open": False})])
    done = await held_before_its_commit(mongo, lambda: other.append(shut))
    assert done.seq == 1
    assert await other.get(ORG, ROOMS, "room") == {"id": "room", "open": False}
    with pytest.raises(GuardFailed):  # what was acknowledged before is seen
        await other.append(appending(STREAM, guards=[Guard(ROOMS, "room", OPEN)]))
