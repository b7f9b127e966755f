"""Several nodes on one database, and a server that goes away."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from pymongo import ReadPreference

from domain.clock import SystemClock
from domain.errors import Unavailable
from store.engine import (
    Collection,
    Delete,
    Guard,
    GuardFailed,
    Index,
    Insert,
    Is,
    Key,
    Put,
    StoreError,
    Update,
)
from store.mongo import MongoBlobs, MongoEngine, appender, copies, new_epoch, schema, sweeper
from store.mongo.database import Database
from tests.support.mongo_stores import MongoStores
from tests.support.mongod import Mongod, Scratch
from tests.support.stores import (
    NOTES,
    ORG,
    ROOMS,
    appending,
    gathered,
    note,
    send,
    seqs,
)

STREAM = "messages/r1"


async def test_what_one_node_acknowledged_every_node_sees(mongo: MongoStores) -> None:
    one, two = await mongo.node(), await mongo.node()
    for n in range(1, 30):
        done = await send(one, f"n{n}", body=f"word{n}")
        head = await two.head(ORG, STREAM)
        assert head is not None
        assert (head.seq, head.epoch) == (n, done.epoch)
        assert (await two.heads(ORG, [STREAM]))[STREAM] == head
        assert [event.payload for event in await two.read(ORG, STREAM, n - 1, 5)] == [
            done.events[0].payload
        ]
        assert await two.get(ORG, NOTES, f"n{n}") is not None
        assert len(await two.search(ORG, NOTES, f"word{n}", {}, limit=2)) == 1
        one, two = two, one


async def test_guards_hold_between_nodes(mongo: MongoStores) -> None:
    nodes = [await mongo.node(), await mongo.node()]
    for round in range(20):
        id, stream = f"r{round}", f"messages/{round}"
        await nodes[0].insert(ORG, ROOMS, {"id": id, "owner": None})

        def claim(who: int, id: str = id, stream: str = stream) -> object:
            return nodes[who % 2].append(
                appending(
                    stream,
                    guards=[Guard(ROOMS, id, {"owner": None})],
                    changes=[Update(ROOMS, id, set={"owner": who})],
                )
            )

        done = await gathered(*(claim(who) for who in range(6)))
        winners = [who for who, result in enumerate(done) if not isinstance(result, Exception)]
        assert len(winners) == 1
        assert sum(isinstance(result, GuardFailed) for result in done) == 5
        assert await nodes[1].get(ORG, ROOMS, id) == {"id": id, "owner": winners[0]}


async def test_one_key_on_two_nodes_happens_once(mongo: MongoStores) -> None:
    nodes = [await mongo.node(), await mongo.node()]
    for n in range(30):
        done = await asyncio.gather(
            *(
                send(node, f"n{n}-{place}", key=Key(f"k{n}", "d"))
                for place, node in enumerate(nodes)
            )
        )
        assert [each.seq for each in done] == [n + 1, n + 1]
        assert sum(each.replayed for each in done) == 1
    assert await nodes[0].count(ORG, NOTES, {}) == 30


async def test_who_loses_a_race_waits_longer_each_time_and_never_as_long_as_others(
    mongo: MongoStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, losses = await mongo.node(), 12
    await send(node, "n0")
    paused: list[float] = []
    left = 0
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        paused.append(seconds)
        await real(0)

    async def lost(self: object, row: object, bar: int) -> bool:
        nonlocal left
        left -= 1
        return left < 0 and await insert(self, row, bar)  # type: ignore[arg-type]

    insert = appender._Attempt._insert
    monkeypatch.setattr(appender._Attempt, "_insert", lost)
    monkeypatch.setattr(appender, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    rounds = []
    for n in range(20):
        paused.clear()
        left = losses
        assert (await send(node, f"n{n + 1}")).seq == n + 2
        rounds.append([*paused])
    assert {len(each) for each in rounds} == {losses}
    for turn, pauses in enumerate(zip(*rounds, strict=True)):
        longest = min(appender.LONGEST_PAUSE, appender.PAUSE * 2**turn)
        assert all(0 <= pause <= longest for pause in pauses)
        assert len(set(pauses)) == len(rounds), "none waits as long as another"
        assert max(pauses) > longest / 2 > min(pauses)


async def test_plain_updates_of_two_nodes_add_up(mongo: MongoStores) -> None:
    nodes = [await mongo.node(), await mongo.node()]
    await nodes[0].insert(ORG, ROOMS, {"id": "r", "n": 0})
    await asyncio.gather(
        *(nodes[n % 2].update(ORG, ROOMS, "r", inc={"n": 1}) for n in range(100)),
        *(nodes[n % 2].write(ORG, [Put(ROOMS, {"id": f"p{n // 2}"})]) for n in range(20)),
    )
    assert await nodes[1].get(ORG, ROOMS, "r") == {"id": "r", "n": 100}
    assert await nodes[1].count(ORG, ROOMS, {}) == 11


async def test_another_node_follows_to_a_new_epoch(mongo: MongoStores) -> None:
    one, two = await mongo.node(sweep_every=0.1), await mongo.node(sweep_every=0.1)
    await one.append(appending())
    old = await two.head(ORG, STREAM)
    await one.new_epoch()
    new = await one.head(ORG, STREAM)
    assert new != old
    async with asyncio.timeout(10):
        while await two.head(ORG, STREAM) != new:
            await asyncio.sleep(0.02)


async def test_a_sweep_that_fails_is_not_the_last(
    mongo: MongoStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await mongo.node(sweep_every=600.0), await mongo.node(sweep_every=0.1)
    await one.append(appending())
    failures = iter([RuntimeError("a mistake")])

    async def read(database: Database) -> str:
        for failure in failures:
            raise failure
        return await schema.read_generation(database)

    monkeypatch.setattr(sweeper, "read_generation", read)
    await one.new_epoch()
    new = await one.head(ORG, STREAM)
    async with asyncio.timeout(10):
        while await two.head(ORG, STREAM) != new:
            await asyncio.sleep(0.02)
    assert next(failures, None) is None


async def test_a_restored_database_gets_a_new_epoch_while_no_node_runs(
    mongo: MongoStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await mongo.node()
    await send(node, "n1")
    old = await node.head(ORG, STREAM)
    assert old is not None
    with pytest.raises(StoreError, match="stop all nodes"):
        await new_epoch(mongo.url, clock=SystemClock())
    await mongo.stop(node)
    with pytest.raises(StoreError, match="stop all nodes"):
        await new_epoch(mongo.url, clock=SystemClock())
    monkeypatch.setattr(copies, "QUIET", 0.0)
    await new_epoch(mongo.url, clock=SystemClock())

    node = await mongo.node()
    new = await node.head(ORG, STREAM)
    assert new is not None
    assert new.seq == old.seq
    assert new.epoch != old.epoch
    assert (await send(node, "n2")).seq == 2


async def test_nothing_gets_no_new_epoch(mongo: MongoStores) -> None:
    with pytest.raises(StoreError, match="no data"):
        await new_epoch(mongo.url, clock=SystemClock())


async def test_only_what_is_asked_across_organizations_has_an_index_for_it(
    mongo: MongoStores,
) -> None:
    indexes = (Index(("owner", "at")), Index(("ends",), any_org=True))
    in_order = Index(("state", "due"), any_org=True, ordered=True)
    by_id = Collection("others", indexes=(Index(("id",), any_org=True),))
    timers = Collection("timers", indexes=(in_order,))
    node = await mongo.start([Collection("things", indexes=indexes), by_id, timers])
    assert isinstance(node, MongoEngine)
    made = {
        name: set(await node._database.database[f"c_{name}"].index_information())
        - {"_id_", "_c", "_x", "id_"}
        for name in ("things", "others", "timers")
    }
    assert made == {
        "things": {"owner_at", "ends", "any_ends"},
        "others": {"any_id"},
        "timers": {"state_due", "ordered_state_due"},
    }
    keys = await node._database.database["c_timers"].index_information()
    assert keys["ordered_state_due"]["key"] == [("state", 1), ("due", 1), ("id", 1), ("_o", 1)]


async def test_no_url_weakens_what_is_read_and_written(mongo: MongoStores) -> None:
    await mongo.node()
    weak = f"{mongo.url}?readPreference=secondaryPreferred&w=0&journal=false&readConcernLevel=local"
    node = await mongo.node(url=weak)
    for rows in (node._database.log, node._database.meta, node._database.database["c_notes"]):
        assert rows.read_preference == ReadPreference.PRIMARY
        assert rows.write_concern.document["w"] == "majority"
        assert rows.write_concern.document["j"] is True
    await send(node, "n1")
    assert await seqs(node) == [1]


# -- starting -------------------------------------------------------------------------------------


async def test_nodes_may_start_at_once(mongo: MongoStores) -> None:
    nodes = await asyncio.gather(*(mongo.node() for _ in range(5)))
    for place, node in enumerate(nodes):
        await send(node, f"n{place}")
    assert await seqs(nodes[0]) == [1, 2, 3, 4, 5]


# -- outages --------------------------------------------------------------------------------------


async def test_a_server_that_goes_away_is_unavailable_and_comes_back(
    mongodb: str, tmp_path: Path
) -> None:
    mongod = Mongod(tmp_path / "mongod").start()
    database = Scratch(mongod.url)
    stores = MongoStores(database)
    engine = await stores.node(timeout=0.5)
    await engine.insert(ORG, ROOMS, {"id": "r", "n": 1})
    await send(engine, "n1", key=Key("k1", "d"))
    await asyncio.to_thread(mongod.kill)
    since = time.monotonic()
    done = await gathered(
        send(engine, "n2", key=Key("k2", "d")),
        engine.head(ORG, STREAM),
        engine.read(ORG, STREAM, 0, 10),
        engine.get(ORG, ROOMS, "r"),
        engine.insert(ORG, ROOMS, {"id": "half"}),
        engine.update(ORG, ROOMS, "r", set={"n": 2}),
        engine.delete(ORG, ROOMS, {}),
        engine.search(ORG, NOTES, "hello", {}, limit=1),
        engine.find(ORG, ROOMS, {}),
        engine.ping(),
    )
    assert [type(result) for result in done] == [Unavailable] * 10
    assert time.monotonic() - since < 10
    with pytest.raises(Unavailable):
        await stores.node(timeout=0.5)

    await asyncio.to_thread(mongod.start)
    async with asyncio.timeout(20):
        while True:
            try:
                await engine.ping()
                break
            except Unavailable:
                await asyncio.sleep(0.05)
    assert await seqs(engine) == [1]
    assert await engine.find(ORG, ROOMS, {}) == [{"id": "r", "n": 1}]
    done_again = await send(engine, "n2", key=Key("k2", "d"))
    assert (done_again.seq, done_again.replayed) == (2, False)
    assert (await send(engine, "n1", key=Key("k1", "d"))).replayed
    await stores.close()
    database.close()
    await asyncio.to_thread(mongod.stop)


async def test_a_closed_engine_is_unavailable(mongo: MongoStores) -> None:
    engine = await mongo.node()
    await mongo.stop(engine)
    done = await gathered(engine.append(appending()), engine.get(ORG, ROOMS, "r"), engine.ping())
    assert [type(result) for result in done] == [Unavailable] * 3


async def test_too_many_waiting_appends_are_refused(mongo: MongoStores) -> None:
    engine = await mongo.node(queue_limit=10)
    done = await gathered(*(engine.append(appending()) for _ in range(30)))
    refused = [result for result in done if isinstance(result, Unavailable)]
    assert len(refused) == 20
    assert await seqs(engine) == list(range(1, 11))


async def test_stopping_finishes_what_was_accepted(mongo: MongoStores) -> None:
    engine = await mongo.node()
    waiting = [asyncio.create_task(send(engine, f"n{n}")) for n in range(20)]
    await asyncio.sleep(0)
    await mongo.stop(engine)
    assert [each.seq for each in await asyncio.gather(*waiting)] == list(range(1, 21))
    assert await (await mongo.node()).count(ORG, NOTES, {}) == 20


# -- what documents leave behind ------------------------------------------------------------------


async def test_a_removed_document_can_be_stored_again(mongo: MongoStores) -> None:
    engine = await mongo.node()
    for how in ("append", "delete"):
        for again in ("append", "insert"):
            id = f"{how}-{again}"
            await send(engine, id)
            if how == "append":
                await engine.append(appending(changes=[Delete(NOTES, id)]))
            else:
                assert await engine.delete(ORG, NOTES, {"id": id}) == 1
            assert await engine.get(ORG, NOTES, id) is None
            assert await engine.find(ORG, NOTES, {"id": id}) == []
            assert await engine.find_any_org(NOTES, {"id": id}) == []
            assert await engine.delete(ORG, NOTES, {"id": id}) == 0
            assert await engine.update(ORG, NOTES, id, set={"kind": "x"}) is None
            if again == "append":
                await engine.append(appending(changes=[Insert(NOTES, note(id, n=2))]))
            else:
                await engine.insert(ORG, NOTES, note(id, n=2))
            assert await engine.get(ORG, NOTES, id) == note(id, n=2)
    assert await engine.count(ORG, NOTES, {}) == 4


class TurnedClock(SystemClock):
    """A clock that a test turns, in seconds."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


async def test_trim_takes_in_time_what_removing_left(mongo: MongoStores) -> None:
    clock = TurnedClock()
    engine = await mongo.node(clock=clock)
    long_ago = "2000-01-01T00:00:00.000Z"
    for n in range(5):
        await send(engine, f"n{n}", key=Key(f"k{n}", "d") if n == 1 else None)
    await engine.append(appending(changes=[Delete(NOTES, "n0")]))
    await engine.delete(ORG, NOTES, {"id": Is("in", ["n1", "n2"])})
    notes, log = engine._database.rows(engine._database.kind(NOTES)), engine._database.log

    async def rows() -> tuple[int, int]:
        return await notes.count_documents({}), await log.count_documents({})

    await engine.trim(keep=1, before=long_ago)
    assert await rows() == (5, 6)
    clock.ahead = 2 * 3600.0
    await engine.trim(keep=1, before=long_ago)
    assert await rows() == (2, 6)
    clock.ahead = 25 * 3600.0
    await engine.trim(keep=1, before=long_ago)
    assert await rows() == (2, 2), "the newest row, and one for its key"
    assert (await send(engine, "n1", key=Key("k1", "d"))).replayed
    assert (await send(engine, "n9")).seq == 7
    assert await engine.count(ORG, NOTES, {}) == 3


async def test_bytes_of_a_removed_blob_go_when_nobody_reads_them_any_more(
    mongo: MongoStores,
) -> None:
    clock = TurnedClock()
    blobs = MongoBlobs(mongo.url, clock=clock)
    await blobs.start()
    writer = await blobs.create("0123456789")
    await writer.write(b"x" * 600_000)
    await writer.commit()
    await blobs.delete("0123456789")
    for ahead, left in ((600.0, 3), (2 * 3600.0, 0)):
        clock.ahead = ahead
        assert await blobs.sweep(clock.now()) == 0
        assert await blobs.chunks.count_documents({}) == left
    assert await blobs.gone.count_documents({}) == 0
    await blobs.stop()


@pytest.mark.parametrize("url", ["mongodb://", "mongodb://a:b@c:x/", "mongodb://h/?w=nonsense=1"])
async def test_a_url_that_cannot_be_used_is_told(mongo: MongoStores, url: str) -> None:
    with pytest.raises(StoreError, match="MongoDB"):
        await mongo.node(url=url)
