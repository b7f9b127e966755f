"""A removal that is carried out together with other writes: nothing stale is believed after it."""

import asyncio

from store.engine import Collection
from tests.support.stores import Stores

THINGS = Collection("things", fields=("owner",))


async def test_what_was_removed_can_be_stored_anew_in_the_same_batch(stores: Stores) -> None:
    engine = await stores.start((THINGS,))
    for round in range(50):
        id = f"claim-{round}"
        await engine.insert_or_get("o", THINGS, {"id": id, "owner": "old"})

        async def take(who: str, id: str = id) -> bool:
            there = await engine.insert_or_get("o", THINGS, {"id": id, "owner": who})
            if there["owner"] == "old":
                await engine.delete("o", THINGS, {"id": id, "owner": "old"})
                there = await engine.insert_or_get("o", THINGS, {"id": id, "owner": who})
            return bool(there["owner"] == who)

        assert sum(await asyncio.gather(*(take(f"n{i}") for i in range(5)))) == 1


async def test_what_was_changed_before_a_removal_in_the_same_batch_is_read(stores: Stores) -> None:
    engine = await stores.start((THINGS,))
    for round in range(50):
        changed, removed = f"changed-{round}", f"removed-{round}"
        for id in (changed, removed):
            await engine.insert("o", THINGS, {"id": id, "owner": "old"})
            assert await engine.get("o", THINGS, id) is not None
        await asyncio.gather(
            engine.insert("o", THINGS, {"id": f"first-{round}", "owner": "x"}),
            engine.update("o", THINGS, changed, set={"owner": "new"}),
            engine.delete("o", THINGS, {"id": removed}),
        )
        found = await engine.get("o", THINGS, changed)
        assert found is not None
        assert found["owner"] == "new"
        assert await engine.get("o", THINGS, removed) is None
