"""A conversation that is deleted is gone for everybody at once, and what it was made of soon after,
whatever crashes or goes on meanwhile.
"""

import asyncio
from typing import Any

import pytest

from actions.messaging.messages import Draft
from actions.messaging.reactions import Reactions
from actions.messaging.search import Query
from actions.streams.streams import Position
from domain.errors import Forbidden, Invalid, NotFound, ParleyError, Unavailable
from domain.messaging.conversations import Kind, stream_of
from domain.principals import Principal, Role
from fanout.redis.sender import end
from store.messaging import deletions
from store.messaging.conversations import CONVERSATIONS, CREATIONS
from store.messaging.deletions import DELETIONS, DeletionRepository
from store.messaging.messages import MESSAGES
from store.messaging.reactions import ReactionRepository
from store.uploads.uploads import LINKS, UPLOADS
from tests.support.counting import CountingWorld
from tests.support.local import TurnedClock
from tests.support.messaging import COLLECTIONS
from tests.support.stores import Stores

LISTS = [Kind.GROUP, Kind.CHANNEL]


@pytest.fixture
async def world(stores: Stores) -> CountingWorld:
    return CountingWorld(await stores.start(COLLECTIONS), TurnedClock())


async def left(world: CountingWorld, *ids: str) -> dict[str, list[dict[str, Any]]]:
    """All documents that speak of one of these ids, by collection."""
    found: dict[str, list[dict[str, Any]]] = {}
    for collection in COLLECTIONS:
        docs = await world.engine.find("org", collection, {}, order=("id",), limit=None)
        if speaking := [doc for doc in docs if any(id in str(doc) for id in ids)]:
            found[collection.name] = speaking
    return found


async def settle(world: CountingWorld) -> None:
    await world.deletions.finish()
    world.clock.turn(61)
    assert await world.deletions.finish() == 1
    assert await world.deletions.finish() == 0


async def fill(world: CountingWorld, ann: Principal, bob: Principal, id: str) -> list[str]:
    """Say and do everything there is in a conversation; the ids of its messages."""
    upload = {"id": "u1", "owner": "ann", "name": "a.png", "content_type": "image/png", "size": 7}
    more = {"state": "ready", "kept": False, "created_at": "", "touched_at": ""}
    await world.engine.insert("org", UPLOADS, {**upload, **more})
    first = await world.send(ann, id, "peculiar", attachments=["u1"], mentions=["bob"])
    reply = await world.send(bob, id, "in the thread", thread=first["id"], reply_to=first["id"])
    edited = await world.messages.edit(bob, reply["id"], "edited", 1)
    await world.pins.add(bob, first["id"])
    gone = await world.send(bob, id, "deleted", mentions=["ann"])
    await world.messages.delete(bob, gone["id"])
    reactions = Reactions(
        ReactionRepository(world.engine),
        world.messages,
        world.memberships,
        world.ledger,
        world.clock,
    )
    await reactions.add(bob, first["id"], "👍")
    await world.messages.hide(bob, first["id"])
    await world.moves.move(bob, id, "read", first["seq"])
    await world.conversations.update(bob, id, {"muted": True})
    return [first["id"], edited["id"], gone["id"]]


@pytest.mark.parametrize("kind", LISTS)
async def test_nothing_is_left_of_it(
    world: CountingWorld, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "STEP", 2)
    monkeypatch.setattr(deletions, "ROWS", 1)
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob, kind=kind, title="secret")
    other = await world.open(ann, bob, title="stays")
    kept = await world.send(ann, other["id"], "peculiar too")
    messages = await fill(world, ann, bob, group["id"])
    assert len(await left(world, group["id"], *messages)) > 10
    await world.deletions.delete(ann, group["id"])
    await settle(world)
    found = await left(world, group["id"], *messages)
    [tomb] = found.pop(CONVERSATIONS.name)
    assert {k: tomb[k] for k in ("kind", "title", "topic", "size", "owners")} == {
        "kind": "deleted",
        "title": None,
        "topic": None,
        "size": 0,
        "owners": 0,
    }
    assert list(found) == [CREATIONS.name]
    # Its file stays with who uploaded it; nobody else has a right to it any more.
    assert (await world.uploads.get("org", "u1") or {})["kept"]
    assert await world.engine.find("org", LINKS, {"upload": "u1"}, order=("id",), limit=None) == []
    log = await world.engine.read("org", stream_of(group["id"]), 0, 100)
    assert [event.type for event in log] == ["conversation.deleted"]
    assert len(await world.engine.read("org", f"reactions/{group['id']}", 0, 100)) == 1
    # The other one is as it was.
    assert [each["id"] for each in await world.mine(bob)] == [other["id"]]
    page = await world.search.messages(bob, Query("peculiar"), cursor=None, limit=10)
    assert [each["id"] for each in page["items"]] == [kept["id"]]


@pytest.mark.parametrize("kind", LISTS)
async def test_all_are_told_and_know_of_it_no_more(world: CountingWorld, kind: Kind) -> None:
    ann, bob, eve = world.user("ann"), world.user("bob"), world.user("eve")
    id = (await world.open(ann, bob, kind=kind))["id"]
    message = await world.send(ann, id, "peculiar")
    client, outlet = await world.connect(bob)
    sent = Draft(id, "k", "of bob's")
    assert await world.messages.send(bob, sent)
    await world.deletions.delete(ann, id)
    world.hub.flush()
    last = [told for name, told in outlet.received if name == "conversation.deleted"]
    assert [(each["stream"], each["data"]) for each in last] == [(stream_of(id), {"id": id})]
    assert last[0]["actor"]["id"] == "ann"
    assert client.streams == set()
    assert (await world.totals.get("org", "bob"))["total"] == 0

    stream = stream_of(id)
    for who in (ann, bob, eve):
        for refused in (
            world.views.get(who, id),
            world.page(who, id),
            world.messages.send(who, Draft(id, "other", "hi")),
            world.messages.send(who, sent),
            world.messages.edit(who, message["id"], "hi", 1),
            world.messages.delete(who, message["id"]),
            world.messages.hide(who, message["id"]),
            world.pins.add(who, message["id"]),
            world.members.join(who, id),
            world.members.leave(who, id),
            world.members.add(who, id, "eve"),
            world.members.remove(who, id, "bob"),
            world.roles.update(who, id, "bob", "owner"),
            world.conversations.update(who, id, {"title": "again"}),
            world.conversations.update(who, id, {"muted": True}),
            world.moves.move(who, id, "read", 1),
            world.streams.subscribe(client, {stream: None}),
        ):
            with pytest.raises(NotFound):
                await refused
        assert await world.mine(who) == []
        page = await world.search.messages(who, Query("peculiar"), cursor=None, limit=10)
        assert page["items"] == []
        assert await world.streams.sync(who, {stream: Position("", 0)}) == {}
    joinable = await world.views.joinable(eve, cursor=None, limit=10)
    assert joinable["items"] == []


async def test_who_may(world: CountingWorld) -> None:
    ann, bob, eve = world.user("ann"), world.user("bob"), world.user("eve")
    chief = world.user("chief", Role.ADMIN)
    group, channel = [(await world.open(ann, bob, kind=kind))["id"] for kind in LISTS]
    direct = (await world.open(ann, bob, kind=Kind.DIRECT))["id"]
    for id, who, error in (
        (group, bob, Forbidden),
        (group, eve, NotFound),
        (group, chief, NotFound),
        (channel, bob, Forbidden),
        (channel, eve, Forbidden),
        (direct, ann, Invalid),
        (direct, eve, NotFound),
        ("nothing", ann, NotFound),
    ):
        with pytest.raises(error):
            await world.deletions.delete(who, id)
    await world.roles.update(ann, group, "bob", "owner")
    await world.deletions.delete(bob, group)
    await world.deletions.delete(chief, channel)


async def test_sent_again(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")

    async def create() -> Any:
        return await world.conversations.create(
            ann, kind=Kind.GROUP, members=["bob"], title="a", client_id="k"
        )

    first = await create()
    await world.roles.update(ann, first["id"], "bob", "owner")
    for _ in range(2):
        await world.deletions.delete(ann, first["id"])
        # Who opened it and is not answered is answered yet, and it is not there again.
        assert await create() == first
        with pytest.raises(NotFound):
            await world.deletions.delete(bob, first["id"])
        assert await world.mine(ann) == []
    await settle(world)
    await world.deletions.delete(ann, first["id"])
    assert await create() == first


async def test_what_a_crash_left_goes_with_the_job(
    world: CountingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob, cy = (world.user(each) for each in ("ann", "bob", "cy"))
    id = (await world.open(ann, bob, cy, kind=Kind.CHANNEL))["id"]
    messages = await fill(world, ann, bob, id)
    _, outlet = await world.connect(cy)

    async def crashes(self: Any, org: str, conversation: str) -> list[str]:
        raise Unavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(DeletionRepository, "remove_members", crashes)
        with pytest.raises(Unavailable):
            await world.deletions.delete(ann, id)
    # Nobody has been put out, and yet nobody can do anything.
    assert await world.conversation_store.of_user("org", "bob") == [id]
    for refused in (
        world.messages.send(bob, Draft(id, "k", "hi")),
        world.messages.delete(bob, messages[1]),
        world.messages.edit(bob, messages[1], "more", 2),
        world.pins.add(bob, messages[1]),
        world.members.leave(bob, id),
        world.members.join(world.user("eve"), id),
        world.roles.update(ann, id, "bob", "owner"),
        world.conversations.update(ann, id, {"title": "again"}),
        world.deletions.delete(world.user("chief", Role.ADMIN), id),
    ):
        with pytest.raises(NotFound):
            await refused
    assert await world.mine(bob) == []
    await world.owners.hand_over_all("org", "ann")
    # And again in the middle of the messages.
    real = deletions.DeletionRepository._remove

    async def crashes_later(self: Any, org: str, collection: Any, ids: Any) -> None:
        if collection is MESSAGES:
            raise Unavailable("gone")
        await real(self, org, collection, ids)

    with monkeypatch.context() as patch:
        patch.setattr(DeletionRepository, "_remove", crashes_later)
        with pytest.raises(Unavailable):
            await world.deletions.finish()
    await settle(world)
    assert set(await left(world, id, *messages)) == {CONVERSATIONS.name, CREATIONS.name}
    world.hub.flush()
    assert outlet.data("conversation.deleted") == [{"id": id}]


@pytest.mark.parametrize("kind", LISTS)
async def test_whatever_is_done_at_the_same_moment(stores: Stores, kind: Kind) -> None:
    engine = await stores.start(COLLECTIONS)
    clock = TurnedClock()
    one = CountingWorld(engine, clock)
    two = CountingWorld(await stores.start(COLLECTIONS), clock) if engine.shared else one
    two.people.users = one.people.users
    ann, bob, cy, dan = (one.user(each) for each in ("ann", "bob", "cy", "dan"))

    async def does(what: Any) -> str:
        try:
            await what
        except ParleyError as error:
            return error.code
        return "ok"

    for round in range(5):
        id = (await one.open(ann, bob, cy, kind=kind))["id"]
        await one.roles.update(ann, id, "bob", "owner")
        said = await one.send(cy, id, "hello")
        codes = await asyncio.gather(
            does(one.deletions.delete(ann, id)),
            does(two.deletions.delete(bob, id)),
            does(two.messages.send(cy, Draft(id, f"k{round}", "hi", mentions=["ann"]))),
            does(two.messages.edit(cy, said["id"], "edited", 1)),
            does(one.members.leave(cy, id)),
            does(two.members.add(bob, id, "dan")),
            does(two.conversations.update(dan, id, {"archived": True})),
            does(two.conversations.update(ann, id, {"title": "x"})),
            does(two.moves.move(ann, id, "read", said["seq"])),
            does(one.deletions.finish()),
        )
        assert set(codes) <= {"ok", "not_found", "forbidden", "unavailable"}
        clock.turn(61)
        await two.deletions.finish()
        assert await one.engine.find("org", DELETIONS, {}, order=("id",), limit=1) == []
        assert set(await left(one, id)) <= {CONVERSATIONS.name, CREATIONS.name}
        log = await one.engine.read("org", stream_of(id), 0, 100)
        assert [event.type for event in log] == ["conversation.deleted"]
    for node in {one, two}:
        await node.close()


async def test_it_is_cleared_away_without_waiting_for_the_job(world: CountingWorld) -> None:
    ann = world.user("ann")
    running = asyncio.create_task(world.deletions.run())
    gone: list[str] = []
    for _ in range(3):
        id = (await world.open(ann))["id"]
        gone.append((await world.send(ann, id, "hello"))["id"])
        await world.deletions.delete(ann, id)
    while await world.engine.get_many("org", MESSAGES, gone):
        await asyncio.sleep(0)
    assert not running.done()
    await end(running)
