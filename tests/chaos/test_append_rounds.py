"""Appends to MongoDB that go together, by a node that dies or stands still at any command of theirs."""

import asyncio

import pytest

from domain.errors import Unavailable
from store.engine import (
    Append,
    Appended,
    Change,
    Guard,
    GuardFailed,
    Insert,
    Key,
    KeyReused,
    NewEvent,
    Update,
)
from store.mongo import MongoEngine, lines
from tests.chaos.test_append_crash import IMPATIENT, Scene, at_every_command, until_held
from tests.support.mongo_stores import MongoStores
from tests.support.mongo_wire import Fault, WireProxy, wire_proxy
from tests.support.stores import NOTES, ORG, appending, gathered, note, seqs

EACH = 4
"""Appends to each stream."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def other(mongo: MongoStores) -> MongoEngine:
    """The node that lives on. It does not sweep: what it sees is found by its own touch."""
    return await mongo.node(sweep_every=600.0)


@pytest.fixture(autouse=True)
def _one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is asked for while the first append is under way goes together.
    monkeypatch.setattr(lines, "AT_ONCE", 1)


class Crowd:
    """Appends to three streams, each of which has one event already."""

    def __init__(self, scene: Scene) -> None:
        self.streams = [f"{scene.stream}-{place}" for place in range(3)]

    async def prepare(self, engine: MongoEngine) -> None:
        for stream in self.streams:
            await engine.append(
                appending(stream, changes=[Insert(NOTES, note(f"{stream}:all", n=0))])
            )

    def append(self, stream: str, name: str) -> Append:
        doc = note(f"{stream}:{name}", room=stream, seq=None)
        return appending(
            stream,
            NewEvent("a", doc, stamp="seq"),
            changes=[
                Insert(NOTES, doc, stamp="seq"),
                Update(NOTES, f"{stream}:all", inc={"n": 1}, stamp="last"),
            ],
            guards=[
                Guard(NOTES, f"{stream}:{name}", absent=True),
                Guard(NOTES, f"{stream}:all"),
            ],
            key=Key(name, "d"),
        )

    def everything(self) -> list[Append]:
        names = [f"n{number}" for number in range(EACH)]
        return [self.append(stream, name) for stream in self.streams for name in names]

    async def check(self, engine: MongoEngine) -> dict[str, list[str]]:
        """Events without a hole, and the documents that follow from them, no more and no less; which
        notes there are, by stream.
        """
        found = {}
        for stream in self.streams:
            events = await engine.read(ORG, stream, 0, 100)
            assert [event.seq for event in events] == [*range(1, len(events) + 1)]
            names = [event.content()["id"] for event in events[1:]]
            assert len(set(names)) == len(names), "none twice"
            notes = await engine.find(ORG, NOTES, {"room": stream}, order=["seq"])
            assert [(each["id"], each["seq"]) for each in notes] == [
                (name, seq) for seq, name in enumerate(names, 2)
            ]
            (total,) = (await engine.get_many(ORG, NOTES, [f"{stream}:all"])).values()
            assert total["n"] == len(names)
            assert total.get("last", 1) == len(events)
            found[stream] = names
        return found


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_each_of_a_crowd_happens_whole_or_not_at_all(
    mongo: MongoStores, other: MongoEngine, fault: Fault, full: bool
) -> None:
    async def play(scene: Scene, node: MongoEngine, proxy: WireProxy) -> bool:
        crowd = Crowd(scene)
        await crowd.prepare(other)
        asked = crowd.everything()
        done = await gathered(*map(node.append, asked))
        assert all(isinstance(each, Appended | Unavailable) for each in done), done
        found = await crowd.check(other)
        for append, each in zip(asked, done, strict=True):
            if isinstance(each, Appended):
                assert found[append.stream][each.seq - 2] == each.events[0].content()["id"]
        again = await gathered(*map(other.append, asked))
        for append, first, then in zip(asked, done, again, strict=True):
            assert isinstance(then, Appended)
            name = append.changes[0].doc["id"]  # type: ignore[union-attr]
            assert then.replayed == (name in found[append.stream])
            if isinstance(first, Appended):
                assert then.seq == first.seq
        whole = await crowd.check(other)
        assert all(len(names) == EACH for names in whole.values())
        return any(found.values())

    await at_every_command(mongo, other, fault, play, full=full, timeout=IMPATIENT)


async def test_a_crowd_that_stands_still_undoes_nothing(
    mongo: MongoStores, other: MongoEngine, full: bool
) -> None:
    async def play(scene: Scene, node: MongoEngine, proxy: WireProxy) -> bool:
        crowd = Crowd(scene)
        await crowd.prepare(other)
        slow = asyncio.ensure_future(gathered(*map(node.append, crowd.everything())))
        await until_held(slow, proxy)  # type: ignore[arg-type]
        before = await crowd.check(other)
        quick = [await other.append(crowd.append(stream, "quick")) for stream in crowd.streams]
        await crowd.check(other)
        proxy.release()
        done = await slow
        assert all(isinstance(each, Appended) for each in done), done
        whole = await crowd.check(other)
        for stream, each in zip(crowd.streams, quick, strict=True):
            assert len(whole[stream]) == EACH + 1
            assert whole[stream][each.seq - 2] == f"{stream}:quick"
        return any(before.values())

    await at_every_command(mongo, other, "hold", play, full=full)


async def test_in_a_crowd_each_has_its_own_answer(mongo: MongoStores) -> None:
    node = await mongo.node()
    stream = "messages/r1"
    await node.append(appending(stream, changes=[Insert(NOTES, note("open", n=0))]))

    def one(name: str, *, wanted: int | None = None, key: Key | None = None) -> Append:
        guards = [] if wanted is None else [Guard(NOTES, "open", {"n": wanted})]
        changes: list[Change] = [Update(NOTES, "open", inc={"n": 1}), Insert(NOTES, note(name))]
        return appending(
            stream, NewEvent("a", {"id": name}), changes=changes, guards=guards, key=key
        )

    async with asyncio.timeout(20):
        done = await gathered(
            node.append(one("a")),
            node.append(one("b", wanted=1)),  # as the one before it leaves it
            node.append(one("c", wanted=1)),
            node.append(one("d", key=Key("k", "1"))),
            node.append(one("d", key=Key("k", "1"))),
            node.append(one("e", key=Key("k", "2"))),
            node.append(appending(stream, org="globex")),
            node.append(appending("messages/new", NewEvent("a", {}))),
            node.append(one("f")),
        )
    a, b, c, d, again, e, foreign, new, f = done
    assert isinstance(a, Appended)
    assert isinstance(b, Appended)
    assert isinstance(c, GuardFailed)
    assert isinstance(d, Appended)
    assert isinstance(again, Appended)
    assert (again.seq, again.replayed) == (d.seq, True)
    assert isinstance(e, KeyReused)
    assert isinstance(foreign, Exception)
    assert isinstance(new, Appended)
    assert isinstance(f, Appended)
    assert await seqs(node, stream) == [1, 2, 3, 4, 5]
    assert (await node.get(ORG, NOTES, "open") or {})["n"] == 4
    assert await node.get(ORG, NOTES, "c") is None
    assert await node.get(ORG, NOTES, "e") is None


async def test_a_crowd_takes_as_many_commands_as_one(
    mongo: MongoStores, other: MongoEngine
) -> None:
    async with wire_proxy(mongo.url) as (proxy, url):
        node = await mongo.node(url=url, sweep_every=600.0)
        streams = [f"messages/r{number}" for number in range(5)]
        for stream in streams:
            await node.append(appending(stream))
        proxy.arm(0, "before")
        await asyncio.gather(
            *(
                node.append(appending(streams[n % 5], changes=[Insert(NOTES, note(f"n{n}"))]))
                for n in range(101)
            )
        )
        # The first went alone; and what was applied is marked now and then.
        assert len([name for name in proxy.commands if name != "update"]) < 12
        assert len(proxy.commands) < 20
        await mongo.stop(node)
    assert [len(await seqs(other, stream)) for stream in streams] == [22, 21, 21, 21, 21]
