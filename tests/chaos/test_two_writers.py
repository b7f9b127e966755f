"""Two nodes that append to one stream of MongoDB as fast as they can."""

import asyncio
import time

import pytest

from store.engine import Key, Update
from tests.support.mongo_stores import MongoStores
from tests.support.stores import NOTES, ORG, ROOMS, send, seqs

STREAM = "messages/r1"


@pytest.mark.timeout(600)
async def test_the_log_has_no_hole_and_no_double(mongo: MongoStores, full: bool) -> None:
    total = 10_000 if full else 400
    nodes = [await mongo.node(), await mongo.node()]
    await nodes[0].insert(ORG, ROOMS, {"id": "r", "n": 0})
    numbers = iter(range(total))

    async def caller(node: int) -> list[int]:
        got = []
        for n in numbers:
            done = await send(
                nodes[node],
                f"n{n:05}",
                changes=[Update(ROOMS, "r", inc={"n": 1})],
                key=Key(f"k{n}", "d"),
            )
            got.append(done.seq)
        return got

    since = time.monotonic()
    got = await asyncio.gather(*(caller(n % 2) for n in range(20)))
    took = time.monotonic() - since
    shares = [sum(len(each) for each in got[node::2]) for node in (0, 1)]
    print(f"{total} appends by two nodes in {took:.1f} s, {total / took:.0f}/s, shares {shares}")
    assert sorted(seq for each in got for seq in each) == list(range(1, total + 1))
    for node in nodes:
        assert await seqs(node) == list(range(1, total + 1))
        assert await node.get(ORG, ROOMS, "r") == {"id": "r", "n": total}
        stored = await node.find(ORG, NOTES, {"room": STREAM}, limit=None)
        assert sorted(doc["seq"] for doc in stored) == list(range(1, total + 1))
