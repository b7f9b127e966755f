"""Trimming the log of MongoDB: by several nodes, by one that dies, in few queries."""

import asyncio

import pytest

from domain.errors import Unavailable
from store.mongo import trim
from tests.support.mongo_stores import MongoStores
from tests.support.mongo_wire import wire_proxy
from tests.support.stores import appending, send, seqs

STREAM = "messages/r1"


async def test_nodes_that_trim_at_once_count_each_event_once(mongo: MongoStores) -> None:
    nodes = [await mongo.node(), await mongo.node()]
    for n in range(40):
        await nodes[n % 2].append(appending(f"messages/{n % 2}"))
    dropped = await asyncio.gather(
        *(node.trim(keep=5, before="2000-01-01T00:00:00.000Z") for node in nodes)
    )
    assert sum(dropped) == 30
    for stream in ("messages/0", "messages/1"):
        assert await seqs(nodes[0], stream) == [16, 17, 18, 19, 20]
        # A node that has not heard of it takes no place that was taken.
        assert (await nodes[1].append(appending(stream))).seq == 21


async def test_what_a_node_that_died_was_trimming_goes_with_the_next_trim(
    mongo: MongoStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await mongo.node()
    for n in range(5):
        await send(node, f"n{n}")

    async def dies(*_: object) -> None:
        raise Unavailable("dead")

    with monkeypatch.context() as patch:
        patch.setattr(trim, "_drop", dies)
        with pytest.raises(Unavailable):
            await node.trim(keep=1, before="2000-01-01T00:00:00.000Z")
    assert await seqs(node) == [5]
    log = node._database.log
    assert await log.count_documents({"stream": STREAM}) == 5
    other = await mongo.node()
    assert await other.trim(keep=1, before="2000-01-01T00:00:00.000Z") == 0
    assert await log.count_documents({"stream": STREAM}) == 1
    row = await node._database.streams.find_one({"_id": STREAM})
    assert row is not None
    assert "dropping" not in row


async def test_trim_asks_for_many_streams_at_once(mongo: MongoStores) -> None:
    node = await mongo.node()
    streams = [f"messages/{n}" for n in range(20)]
    for stream in streams * 3:
        await node.append(appending(stream))
    async with wire_proxy(mongo.url) as (proxy, url):
        through = await mongo.node(url=url, sweep_every=600.0)
        proxy.arm(0, "before")
        assert await through.trim(keep=3, before="2000-01-01T00:00:00.000Z") == 0
        asked = [name for name in proxy.commands if name == "find"]
        assert len(asked) < len(streams)
        await mongo.stop(through)
