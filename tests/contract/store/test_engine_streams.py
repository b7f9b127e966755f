"""Heads, reading, retention and epochs of streams."""

import asyncio

import pytest

from domain.streams import Head
from store.engine import Engine, Key, NewEvent, StoreError, Update
from tests.support.stores import NOTES, ORG, OTHER, Stores, appending, send, seqs

STREAM = "messages/r1"
LONG_AGO = "2000-01-01T00:00:00.000Z"


def at(day: int) -> str:
    return f"2026-01-{day:02}T00:00:00.000Z"


async def fill(engine: Engine, count: int, stream: str = STREAM, day: int = 1) -> None:
    for _ in range(count):
        await engine.append(appending(stream, at=at(day)))


# -- heads --------------------------------------------------------------------------------------


async def test_a_head_tells_where_a_stream_stands(stores: Stores, engine: Engine) -> None:
    assert await engine.head(ORG, STREAM) is None
    done = await engine.append(appending(STREAM, NewEvent("a", {}), NewEvent("b", {})))
    async for store in stores.before_and_after_restart(engine):
        assert await store.head(ORG, STREAM) == Head(done.epoch, 2, 0)
        assert await store.head(OTHER, STREAM) is None
        assert await store.head(ORG, "messages/none") is None


async def test_heads_of_many(stores: Stores, engine: Engine) -> None:
    await fill(engine, 1, "messages/a")
    await fill(engine, 2, "messages/b")
    await engine.append(appending("messages/c", org=OTHER))
    wanted = ["messages/b", "messages/c", "messages/none", "messages/a"]
    async for store in stores.before_and_after_restart(engine):
        heads = await store.heads(ORG, wanted)
        assert {stream: head.seq for stream, head in heads.items()} == {
            "messages/a": 1,
            "messages/b": 2,
        }
        assert list(await store.heads(OTHER, wanted)) == ["messages/c"]
    assert await engine.heads(ORG, []) == {}


async def test_heads_of_what_has_returned(stores: Stores, engine: Engine) -> None:
    names = [f"messages/{number}" for number in range(5)]

    async def fill_and_look(name: str, count: int) -> None:
        for number in range(1, count + 1):
            done = await engine.append(appending(name))
            heads = await engine.heads(ORG, names, returned=True)
            assert heads[name] == Head(done.epoch, number, 0)

    await asyncio.gather(*(fill_and_look(name, 5 + at) for at, name in enumerate(names)))
    await engine.trim(keep=2, before="2000-01-01T00:00:00.000Z")
    async for store in stores.before_and_after_restart(engine):
        asked = [*names, "messages/none"]
        assert await store.heads(ORG, asked, returned=True) == await store.heads(ORG, asked)
        assert await store.heads(OTHER, asked, returned=True) == {}
    assert await engine.heads(ORG, [], returned=True) == {}


async def test_a_head_is_never_ahead_of_what_can_be_read(engine: Engine) -> None:
    stop = False

    async def watch() -> int:
        looks = 0
        while not stop:
            head = await engine.head(ORG, STREAM)
            if head is not None:
                newest = await engine.read(ORG, STREAM, head.seq - 1, 1)
                assert newest[0].seq == head.seq
            looks += 1
            await asyncio.sleep(0)
        return looks

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(engine.append(appending(STREAM)) for _ in range(500)))
    head = await engine.head(ORG, STREAM)
    assert head is not None
    assert head.seq == 500
    stop = True
    assert await watching > 0


async def test_a_head_is_never_older_than_what_a_read_has_shown(engine: Engine) -> None:
    count = 150

    async def watch() -> None:
        shown = 0
        while shown < count:
            doc = await engine.get(ORG, NOTES, "last")
            shown = max(shown, doc["seq"] if doc is not None else 0)
            events = await engine.read(ORG, STREAM, shown, 100)
            shown = max(shown, *(event.seq for event in events), 0)
            newest = await engine.find(ORG, NOTES, {"room": STREAM}, order=("-seq",), limit=1)
            shown = max(shown, newest[0]["seq"] if newest else 0)
            head = (await engine.heads(ORG, [STREAM])).get(STREAM)
            assert (head.seq if head is not None else 0) >= shown
            head = await engine.head(ORG, STREAM)
            assert (head.seq if head is not None else 0) >= shown

    async def write() -> None:
        for n in range(count):
            await send(
                engine, f"n{n}", changes=[Update(NOTES, "last", set={"body": str(n)}, stamp="seq")]
            )

    await engine.insert(ORG, NOTES, {"id": "last", "seq": 0})
    await asyncio.gather(write(), watch(), watch(), watch())


# -- several nodes ------------------------------------------------------------------------------


async def test_several_nodes_have_the_data_open_if_the_engine_says_so(
    stores: Stores, engine: Engine
) -> None:
    await engine.append(appending(STREAM))
    if not engine.shared:
        with pytest.raises(StoreError):
            await stores.start()
        return
    other = await stores.start()
    await other.append(appending(STREAM))
    assert await seqs(engine) == await seqs(other) == [1, 2]


# -- reading ------------------------------------------------------------------------------------


async def test_reading_a_range(engine: Engine) -> None:
    await fill(engine, 10)
    assert [e.seq for e in await engine.read(ORG, STREAM, 0, 3)] == [1, 2, 3]
    assert [e.seq for e in await engine.read(ORG, STREAM, 7, 100)] == [8, 9, 10]
    assert await engine.read(ORG, STREAM, 10, 5) == []
    assert await engine.read(ORG, STREAM, 99, 5) == []
    assert await engine.read(ORG, STREAM, 0, 0) == []
    assert await engine.read(OTHER, STREAM, 0, 5) == []
    assert await engine.read(ORG, "messages/none", 0, 5) == []


async def test_reading_stops_before_too_many_bytes_but_gives_one(engine: Engine) -> None:
    for _ in range(5):
        await engine.append(appending(STREAM, NewEvent("a", {"text": "x" * 1000})))
    size = len((await engine.read(ORG, STREAM, 0, 1))[0].data)
    assert [e.seq for e in await engine.read(ORG, STREAM, 0, 9, max_bytes=3 * size)] == [1, 2, 3]
    assert [e.seq for e in await engine.read(ORG, STREAM, 0, 9, max_bytes=3 * size - 1)] == [1, 2]
    assert [e.seq for e in await engine.read(ORG, STREAM, 2, 9, max_bytes=1)] == [3]


# -- retention ----------------------------------------------------------------------------------


async def test_trim_keeps_the_newest(stores: Stores, engine: Engine) -> None:
    await fill(engine, 10)
    await fill(engine, 3, "messages/r2")
    assert await engine.trim(keep=4, before=LONG_AGO) == 6
    async for store in stores.before_and_after_restart(engine):
        assert await seqs(store) == [7, 8, 9, 10]
        head = await store.head(ORG, STREAM)
        assert head is not None
        assert (head.seq, head.trimmed) == (10, 6)
        assert await seqs(store, "messages/r2") == [1, 2, 3]
        assert [e.seq for e in await store.read(ORG, STREAM, 2, 1)] == [7]


async def test_trim_drops_what_is_old(engine: Engine) -> None:
    for day in (1, 2, 3, 4):
        await fill(engine, 2, day=day)
    assert await engine.trim(keep=1000, before=at(3)) == 4
    assert await seqs(engine) == [5, 6, 7, 8]
    assert await engine.trim(keep=1000, before=at(3)) == 0


async def test_trim_never_drops_the_newest_event(engine: Engine) -> None:
    await fill(engine, 5)
    assert await engine.trim(keep=0, before=at(31)) == 4
    assert await seqs(engine) == [5]
    assert (await engine.append(appending(STREAM))).seq == 6


async def test_a_clock_that_went_back_makes_no_hole(engine: Engine) -> None:
    for day in (1, 9, 2, 9, 9):
        await fill(engine, 1, day=day)
    await engine.trim(keep=1000, before=at(5))
    assert await seqs(engine) == [2, 3, 4, 5]


async def test_trim_of_one_stream(stores: Stores, engine: Engine) -> None:
    await engine.append(appending(STREAM, key=Key("k", "d")))
    await fill(engine, 4)
    await fill(engine, 3, "messages/r2")
    await engine.trim_stream(OTHER, STREAM)
    assert await seqs(engine) == [1, 2, 3, 4, 5]
    for _ in range(2):
        await engine.trim_stream(ORG, STREAM)
    await engine.trim_stream(ORG, "messages/none")
    async for store in stores.before_and_after_restart(engine):
        assert await seqs(store) == [5]
        head = await store.head(ORG, STREAM)
        assert head is not None
        assert (head.seq, head.trimmed) == (5, 4)
        assert (await store.append(appending(STREAM, key=Key("k", "d")))).replayed
        assert await seqs(store, "messages/r2") == [1, 2, 3]
        assert await store.head(ORG, "messages/none") is None


async def test_trim_of_more_than_one_step(engine: Engine) -> None:
    many = [NewEvent("a", {"n": n}) for n in range(700)]
    for stream in ("messages/a", "messages/b", "messages/c"):
        for _ in range(2):
            await engine.append(appending(stream, *many))
    assert await engine.trim(keep=10, before=LONG_AGO) == 3 * 1390
    for stream in ("messages/a", "messages/b", "messages/c"):
        assert await seqs(engine, stream) == list(range(1391, 1401))


async def test_trim_leaves_documents(engine: Engine) -> None:
    for n in range(5):
        await send(engine, f"n{n}")
    await engine.trim(keep=1, before=LONG_AGO)
    assert await engine.count(ORG, NOTES, {}) == 5


async def test_keys_go_with_their_age(engine: Engine) -> None:
    await engine.append(appending(STREAM, at=at(1), key=Key("old", "d")))
    await engine.append(appending(STREAM, at=at(3), key=Key("young", "d")))
    await fill(engine, 5, day=5)
    await engine.trim(keep=1, before=at(2))
    assert (await engine.append(appending(STREAM, key=Key("young", "d")))).replayed
    assert not (await engine.append(appending(STREAM, key=Key("old", "d")))).replayed


async def test_appends_go_on_while_trimming(engine: Engine) -> None:
    await asyncio.gather(*(engine.append(appending(f"messages/{n % 20}")) for n in range(2000)))
    trimming = asyncio.create_task(engine.trim(keep=3, before=LONG_AGO))
    done = await asyncio.gather(*(engine.append(appending(f"messages/{n}")) for n in range(20)))
    await trimming
    assert [each.seq for each in done] == [101] * 20
    for n in range(20):
        left = await seqs(engine, f"messages/{n}")
        assert left == list(range(left[0], 102))
        assert 3 <= len(left) <= 4


# -- epochs -------------------------------------------------------------------------------------


async def test_a_new_epoch_for_every_stream(stores: Stores, engine: Engine) -> None:
    await fill(engine, 2)
    await fill(engine, 1, "messages/r2")
    old = await engine.heads(ORG, [STREAM, "messages/r2"])
    await engine.new_epoch()
    async for store in stores.before_and_after_restart(engine):
        new = await store.heads(ORG, [STREAM, "messages/r2"])
        for stream, head in new.items():
            assert head.epoch != old[stream].epoch
            assert head[1:] == old[stream][1:]
            assert {e.epoch for e in await store.read(ORG, stream, 0, 10)} == {head.epoch}


async def test_an_append_after_a_new_epoch_bears_it(engine: Engine) -> None:
    first = await engine.append(appending(STREAM, key=Key("k", "d")))
    await engine.new_epoch()
    done = await engine.append(appending(STREAM))
    head = await engine.head(ORG, STREAM)
    assert head is not None
    assert done.epoch == head.epoch == done.events[0].epoch != first.epoch
    assert done.seq == 2
    again = await engine.append(appending(STREAM, key=Key("k", "d")))
    assert again.epoch == head.epoch
    assert [event.epoch for event in again.events] == [head.epoch]


@pytest.mark.parametrize("streams", [300])
async def test_more_streams_than_fit_in_one_step(engine: Engine, streams: int) -> None:
    names = [f"messages/{n}" for n in range(streams)]
    await asyncio.gather(*(engine.append(appending(name)) for name in names))
    assert len(await engine.heads(ORG, names)) == streams
