"""A node that dies, or stands still, at any command of an append to MongoDB: what the other nodes
see. At each of them the append waits, so these are all the moments at which it can end.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from domain.errors import Unavailable
from store.engine import (
    Append,
    Appended,
    Delete,
    Duplicate,
    Engine,
    Insert,
    Key,
    NewEvent,
    Put,
    Redaction,
    Update,
)
from store.mongo import MongoEngine
from tests.support.mongo_stores import MongoStores
from tests.support.mongo_wire import Fault, WireProxy, wire_proxy
from tests.support.stores import NOTES, ORG, PEOPLE, ROOMS, appending, gathered, note, seqs

MOST = 60
"""Commands that an append may take before these tests give up."""

AT_ONCE = 20

ROUNDS = 10
"""How often each moment is tried in the full size."""

FAULTS: dict[Fault, str] = {
    "before": "dies before a command",
    "after": "dies before a command's answer",
    "hold": "stands still before a command",
}

IMPATIENT = 1.0
"""Seconds after which a node that is cut off believes it."""

State = dict[str, Any]

pytestmark = pytest.mark.timeout(600)


class Scene:
    """A stream with one event and some documents, and an append that does all there is to do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stream = f"messages/{name}"
        self.email = f"{name}@x"

    def id(self, what: str) -> str:
        return f"{self.name}:{what}"

    async def prepare(self, engine: Engine) -> None:
        await engine.insert(ORG, ROOMS, {"id": self.id("room"), "n": 0})
        await engine.append(
            appending(
                self.stream,
                changes=[
                    Insert(NOTES, note(self.id("old"), body="before", n=0)),
                    Insert(NOTES, note(self.id("gone"), body="before")),
                ],
            )
        )

    def append(self, key: str = "k") -> Append:
        new = note(self.id("new"), seq=None, body="after")
        return appending(
            self.stream,
            NewEvent("a", new, stamp="seq"),
            NewEvent("b", {}),
            changes=[
                Insert(NOTES, new, stamp="seq"),
                Update(NOTES, self.id("old"), set={"body": "after"}, inc={"n": 1}, stamp="last"),
                Update(ROOMS, self.id("room"), inc={"n": 1}),
                Delete(NOTES, self.id("gone")),
                Put(NOTES, note(self.id("put"), body="after")),
                Insert(PEOPLE, {"id": self.id("person"), "email": self.email}),
            ],
            key=Key(key, "d"),
            redactions=[Redaction([1], {"text": "redacted"})],
        )

    async def state(self, engine: Engine) -> State:
        """All documents, without their ids' common part, and what the first event says."""
        found: State = {}
        (first,) = await engine.read(ORG, self.stream, 0, 1)
        found["first"] = first.content()["text"]
        for kind in (NOTES, ROOMS, PEOPLE):
            ids = [self.id(what) for what in ("old", "gone", "room", "new", "put", "person")]
            for id, doc in (await engine.get_many(ORG, kind, ids)).items():
                found[id.removeprefix(self.name + ":")] = {
                    name: value for name, value in doc.items() if name != "id"
                }
        hits = await engine.search(ORG, NOTES, "after", {}, limit=1000)
        found["found"] = sorted(
            doc["id"].removeprefix(self.name + ":")
            for doc in hits
            if doc["id"].startswith(self.name + ":")
        )
        return found

    def expected(self, *, done: bool) -> State:
        if not done:
            return {
                "old": {"body": "before", "n": 0},
                "gone": {"body": "before"},
                "room": {"n": 0},
                "found": [],
                "first": "hello",
            }
        return {
            "first": "redacted",
            "old": {"body": "after", "n": 1, "last": 2},
            "room": {"n": 1},
            "new": {"seq": 2, "body": "after"},
            "put": {"body": "after"},
            "person": {"email": self.email},
            "found": ["new", "old", "put"],
        }


@pytest.fixture
async def other(mongo: MongoStores) -> MongoEngine:
    """The node that lives on. It does not sweep: what it sees is found by its own touch."""
    return await mongo.node(sweep_every=600.0)


async def started(mongo: MongoStores, url: str, **options: Any) -> MongoEngine:
    """A node, however busy the machine is: an impatient one may have to begin several times."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable):
                return await mongo.node(url=url, sweep_every=600.0, **options)


async def at_every_command(
    mongo: MongoStores,
    other: MongoEngine,
    fault: Fault,
    play: Callable[[Scene, MongoEngine, WireProxy], Awaitable[bool]],
    *,
    full: bool,
    **options: Any,
) -> None:
    """Play a scene for each command of the append, with a node that fails at this command. There
    must be scenes of which it is true that the append happened, and others.
    """
    happened = [
        each
        for number in range(ROUNDS if full else 1)
        for each in await _round(mongo, other, fault, play, number, options)
    ]
    print(
        f"\n{len(happened)} appends by a node that {FAULTS[fault]}, each at another command or in "
        f"another round: {sum(happened)} happened, {len(happened) - sum(happened)} did not; torn, "
        "lost after their acknowledgement or done twice 0"
    )


async def _round(
    mongo: MongoStores,
    other: MongoEngine,
    fault: Fault,
    play: Callable[[Scene, MongoEngine, WireProxy], Awaitable[bool]],
    number: int,
    options: dict[str, Any],
) -> list[bool]:
    """One scene for each command; whether the append happened, of those that failed."""
    outcomes: list[bool] = []
    for first in range(1, MOST, AT_ONCE):
        scenes = {at: Scene(f"{fault}{number}r{at}") for at in range(first, first + AT_ONCE)}
        await asyncio.gather(*(scene.prepare(other) for scene in scenes.values()))
        # This one does what is left to do. A node that found work of its own, and knew streams from
        # it, would send other commands than the rest: the same number is the same command in all.
        await mongo.stop(await mongo.node(sweep_every=600.0))
        played = await _batch(mongo, scenes, fault, play, options)
        outcomes += [happened for happened, reached in played if reached]
        if not all(reached for _, reached in played):
            assert set(outcomes) == {True, False}
            return outcomes
    raise AssertionError("an append takes too many commands")


async def _batch(
    mongo: MongoStores,
    scenes: dict[int, Scene],
    fault: Fault,
    play: Callable[[Scene, MongoEngine, WireProxy], Awaitable[bool]],
    options: dict[str, Any],
) -> list[tuple[bool, bool]]:
    """The scene of each command, all at once: whether the append happened, and whether the command
    was reached.
    """

    async def one(at: int, node: MongoEngine, proxy: WireProxy) -> tuple[bool, bool]:
        proxy.arm(at, fault)
        happened = await play(scenes[at], node, proxy)
        proxy.release()
        return happened, proxy.reached.is_set()

    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(wire_proxy(mongo.url)) for _ in scenes]
        # All of them, before the first of them leaves something behind.
        nodes = await asyncio.gather(*(started(mongo, url, **options) for _, url in proxies))
        played = await asyncio.gather(
            *(
                one(at, node, proxy)
                for at, node, (proxy, _) in zip(scenes, nodes, proxies, strict=True)
            )
        )
        await asyncio.gather(*map(mongo.stop, nodes))
    return played


async def appended(scene: Scene, node: MongoEngine, proxy: WireProxy) -> bool:
    """Append by an impatient node; whether it is acknowledged, not cut off. On a busy machine the node
    may have to try several times to come as far.
    """
    while True:
        try:
            await node.append(scene.append())
        except Unavailable:
            if proxy.reached.is_set():
                return False
        else:
            return True


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_crash_leaves_all_or_nothing(
    mongo: MongoStores, other: MongoEngine, fault: Fault, full: bool
) -> None:
    async def play(scene: Scene, node: MongoEngine, proxy: WireProxy) -> bool:
        acknowledged = await appended(scene, node, proxy)
        head = await other.head(ORG, scene.stream)
        assert head is not None
        done = head.seq == 3
        assert done or head.seq == 1
        assert done or not acknowledged
        assert await scene.state(other) == scene.expected(done=done)
        again = await other.append(scene.append())
        assert (again.seq, again.replayed) == (2, done)
        assert await scene.state(other) == scene.expected(done=True)
        assert await seqs(other, scene.stream) == [1, 2, 3]
        return done

    await at_every_command(mongo, other, fault, play, full=full, timeout=IMPATIENT)


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_what_a_dead_node_had_reserved_is_free_again(
    mongo: MongoStores, other: MongoEngine, fault: Fault, full: bool
) -> None:
    async def play(scene: Scene, node: MongoEngine, proxy: WireProxy) -> bool:
        await appended(scene, node, proxy)
        (done,) = await gathered(
            other.insert(ORG, PEOPLE, {"id": scene.id("second"), "email": scene.email})
        )
        found = await other.find(ORG, PEOPLE, {"email": scene.email})
        assert len(found) == 1
        head = await other.head(ORG, scene.stream)
        assert head is not None
        happened = head.seq == 3
        assert isinstance(done, Duplicate) == happened
        assert (found[0]["id"] == scene.id("person")) == happened
        if not happened:  # the loser's retry is told
            with pytest.raises(Duplicate):
                await other.append(scene.append())
            assert await scene.state(other) == scene.expected(done=False)
        return happened

    await at_every_command(mongo, other, fault, play, full=full, timeout=IMPATIENT)


async def until_held(append: "asyncio.Task[Appended]", proxy: WireProxy) -> None:
    """Wait until the append stands still, or is through."""
    reached = asyncio.create_task(proxy.reached.wait())
    await asyncio.wait({append, reached}, return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()


async def test_a_node_that_stands_still_undoes_nothing(
    mongo: MongoStores, other: MongoEngine, full: bool
) -> None:
    async def play(scene: Scene, node: MongoEngine, proxy: WireProxy) -> bool:
        slow = asyncio.create_task(node.append(scene.append()))
        await until_held(slow, proxy)
        quick = await other.append(
            appending(
                scene.stream,
                changes=[
                    Delete(NOTES, scene.id("new")),
                    Delete(NOTES, scene.id("put")),
                    Update(NOTES, scene.id("old"), set={"body": "later"}, inc={"n": 10}),
                ],
                redactions=[Redaction([1], {"text": "later"})],
            )
        )
        await other.append(appending(scene.stream))
        between = await scene.state(other)
        proxy.release()
        done = await slow
        state = await scene.state(other)
        assert await seqs(other, scene.stream) == [1, 2, 3, 4, 5]
        assert state["old"]["n"] == 11
        assert state["room"] == {"n": 1}
        assert "gone" not in state
        assert state["person"] == {"email": scene.email}
        if done.seq < quick.seq:
            assert state == between, "a late projection changes nothing"
            assert "new" not in state
            assert "put" not in state
            assert state["old"]["body"] == state["first"] == "later"
        else:
            assert state["first"] == "redacted"
            assert state["new"]["seq"] == done.seq
            assert state["old"]["body"] == "after"
        return done.seq < quick.seq

    await at_every_command(mongo, other, "hold", play, full=full)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("many", [True, False])
async def test_a_head_is_not_older_than_what_an_append_half_done_shows(
    mongo: MongoStores, other: MongoEngine, full: bool, *, begun: bool, many: bool
) -> None:
    reader = await mongo.node(sweep_every=600.0)

    async def play(scene: Scene, node: MongoEngine, proxy: WireProxy) -> bool:
        stream = scene.stream if begun else f"{scene.stream}-new"
        word = f"{scene.name}x"  # no other scene's begins with it
        doc = note(scene.id("shown"), seq=None, body=word)
        insert = Insert(NOTES, doc, stamp="seq")
        slow = asyncio.create_task(
            node.append(appending(stream, NewEvent("a", doc, stamp="seq"), changes=[insert]))
        )
        await until_held(slow, proxy)
        shown = await reader.get(ORG, NOTES, scene.id("shown"))
        found = await reader.search(ORG, NOTES, word, {}, limit=1)
        if many:
            head = (await other.heads(ORG, [stream, "messages/none"])).get(stream)
        else:
            head = await other.head(ORG, stream)
        known = head.seq if head is not None else 0
        if shown is not None or found:
            assert known == 1 + begun
        events = await reader.read(ORG, stream, 0, 10)
        assert known <= len(events)
        proxy.release()
        await slow
        return shown is not None

    await at_every_command(mongo, other, "hold", play, full=full)


async def test_one_of_two_who_want_a_value_gets_it(
    mongo: MongoStores, other: MongoEngine, full: bool
) -> None:
    async def play(scene: Scene, node: MongoEngine, proxy: WireProxy) -> bool:
        slow = asyncio.create_task(node.append(scene.append()))
        await until_held(slow, proxy)
        rival = f"messages/rival-{scene.name}"
        wanted = Insert(PEOPLE, {"id": scene.id("rival"), "email": scene.email})
        quick = asyncio.create_task(other.append(appending(rival, changes=[wanted])))
        await asyncio.wait({quick}, timeout=2)
        proxy.release()
        results = await gathered(slow, quick)
        assert sum(isinstance(result, Appended) for result in results) == 1, results
        assert sum(isinstance(result, Duplicate) for result in results) == 1, results
        found = await other.find(ORG, PEOPLE, {"email": scene.email})
        assert len(found) == 1
        won = isinstance(results[0], Appended)
        assert await scene.state(other) == scene.expected(done=won)
        assert len(await seqs(other, rival)) == (not won)
        return won

    await at_every_command(mongo, other, "hold", play, full=full)


async def test_a_sweep_applies_what_a_dead_node_left(mongo: MongoStores) -> None:
    other = await mongo.node(sweep_every=0.1)
    async with wire_proxy(mongo.url) as (proxy, url):
        node = await started(mongo, url, timeout=IMPATIENT)
        proxy.arm(1, "after", only="insert")  # into the log
        with pytest.raises(Unavailable):
            await node.append(appending(changes=[Insert(NOTES, note("left", body="behind"))]))
        await mongo.stop(node)
    async with asyncio.timeout(10):
        while await other.get(ORG, NOTES, "left") is None:
            await asyncio.sleep(0.02)
