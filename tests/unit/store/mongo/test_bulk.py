"""Many changes at once: few commands, whatever each of them meets."""

import asyncio

import pytest

from fanout.repair import AT_ONCE
from store.engine import Delete, Put, Update
from tests.support.mongo_stores import MongoStores
from tests.support.mongo_wire import wire_proxy
from tests.support.stores import NOTES, ORG, ROOMS, appending, note, send

MANY = 500


async def test_many_documents_are_put_in_few_commands(mongo: MongoStores) -> None:
    async with wire_proxy(mongo.url) as (proxy, url):
        node = await mongo.node(url=url, sweep_every=600.0)
        for turn in range(2):  # new ones, then over those that are there
            proxy.arm(0, "before")
            puts = [Put(ROOMS, {"id": f"r{n}", "turn": turn}) for n in range(MANY)]
            await node.write(ORG, puts)
            assert len(proxy.commands) < MANY / 10
            found = await node.get_many(ORG, ROOMS, [f"r{n}" for n in range(MANY)])
            assert [doc["turn"] for doc in found.values()] == [turn] * MANY
        await mongo.stop(node)


async def test_what_others_change_while_documents_are_put_is_put_or_refused(
    mongo: MongoStores,
) -> None:
    other = await mongo.node()
    await other.write(ORG, [Put(NOTES, note(f"n{n}", body="old")) for n in range(10)])
    async with wire_proxy(mongo.url) as (proxy, url):
        node = await mongo.node(url=url, sweep_every=600.0)
        for refused in (False, True):
            proxy.arm(1, "hold", only="update")
            puts = [Put(NOTES, note(f"n{n}", body=f"put {refused}")) for n in range(10)]
            putting = asyncio.create_task(node.write(ORG, puts))
            await proxy.reached.wait()
            await other.delete(ORG, NOTES, {"id": "n1"})
            if refused:
                await other.append(appending(changes=[Update(NOTES, "n2", set={"body": "owned"})]))
            proxy.release()
            if refused:
                with pytest.raises(ValueError, match="n2 belongs"):
                    await putting
                assert await other.get(ORG, NOTES, "n2") == note("n2", body="owned")
            else:
                await putting
                found = await other.find(ORG, NOTES, {})
                assert found == [note(f"n{n}", body="put False") for n in range(10)]
        await mongo.stop(node)


async def test_the_check_of_heads_is_one_command(mongo: MongoStores) -> None:
    async with wire_proxy(mongo.url) as (proxy, url):
        node = await mongo.node(url=url, sweep_every=600.0)
        for number in range(20):
            await send(node, f"n{number}", stream=f"messages/{number}")
        names = [f"messages/{number}" for number in range(AT_ONCE)]
        proxy.arm(0, "before")
        heads = await node.heads(ORG, names, returned=True)
        assert len(heads) == 20
        assert len([each for each in proxy.commands if each != "update"]) == 1  # marks aside
        await mongo.stop(node)


async def test_what_belongs_to_a_stream_still_does_when_it_was_put_with_others(
    mongo: MongoStores,
) -> None:
    node = await mongo.node()
    await send(node, "n3")
    await send(node, "n6")
    await node.append(appending(changes=[Delete(NOTES, "n6")]))
    puts = [Put(NOTES, note(f"n{n}", body=f"put {n}")) for n in range(10) if n != 3]
    with pytest.raises(ValueError, match="n3 belongs"):
        await node.write(ORG, [*puts, Put(NOTES, note("n3", body="put"))])
    await node.write(ORG, [*puts, Put(NOTES, note("n1", body="again")), Delete(NOTES, "n2")])
    found = {doc["id"]: doc["body"] for doc in await node.find(ORG, NOTES, {})}
    expected = {f"n{n}": f"put {n}" for n in range(10) if n != 2}
    expected |= {"n1": "again", "n3": "hello"}
    assert found == expected
    rows = node._database.rows(node._database.kind(NOTES))
    owned = await rows.find({"_w": {"$ne": None}}, {"id": 1}).to_list()
    assert {row["id"] for row in owned} == {"n3", "n6"}
