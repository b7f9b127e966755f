"""What creates something, sent again after everything has changed, gives the first answer."""

import pytest

from actions.messages import Draft
from domain.conversations import Conversation, Kind
from domain.errors import Forbidden, Invalid, NotFound
from domain.messages import Message
from store.contacts import BLOCKS
from store.uploads import UPLOADS
from tests.support.local import TurnedClock
from tests.support.messaging import COLLECTIONS, MessagingWorld
from tests.support.stores import Stores

BLOCK = {"id": "bob:ann", "blocker": "bob", "blocked": "ann"}


@pytest.fixture
async def world(stores: Stores) -> MessagingWorld:
    return MessagingWorld(await stores.start(COLLECTIONS), TurnedClock())


@pytest.mark.parametrize("kind", [Kind.GROUP, Kind.CHANNEL])
async def test_conversation_create(world: MessagingWorld, kind: Kind) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")

    async def create() -> Conversation:
        return await world.conversations.create(
            ann, kind=kind, members=["bob"], title="a", client_id="k"
        )

    first = await create()
    await world.members.add(ann, first["id"], "cy")
    await world.conversations.update(ann, first["id"], {"title": "secret"})
    await world.send(bob, first["id"], "hello")
    await world.members.leave(ann, first["id"])
    await world.members.leave(bob, first["id"])
    await world.engine.insert("org", BLOCKS, BLOCK)
    world.people.users["org"].remove("bob")
    assert await create() == first
    assert await world.mine(ann) == []
    assert len(await world.mine(cy)) == 1


async def test_conversation_create_of_a_direct_one(world: MessagingWorld) -> None:
    ann, _ = world.user("ann"), world.user("bob")

    async def create(client_id: str = "k") -> Conversation:
        return await world.conversations.create(
            ann, kind=Kind.DIRECT, members=["bob"], title=None, client_id=client_id
        )

    first = await create()
    await world.engine.insert("org", BLOCKS, BLOCK)
    assert await create() == first
    # What was refused is refused again.
    for _ in range(2):
        with pytest.raises(Forbidden):
            await create("other")
    world.people.users["org"].remove("bob")
    assert await create() == first


async def test_message_send(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    upload = {
        "id": "u1",
        "owner": "ann",
        "name": "a.png",
        "content_type": "image/png",
        "size": 7,
        "state": "ready",
        "created_at": "",
        "touched_at": "",
    }
    await world.engine.insert("org", UPLOADS, upload)

    async def send(client_id: str = "k") -> Message:
        return await world.messages.send(
            ann, Draft(group["id"], client_id, "hi", ["u1"], mentions=["bob"])
        )

    first = await send()
    await world.engine.delete("org", UPLOADS, {"id": "u1"})
    assert await send() == first
    with pytest.raises(Invalid):
        await send("other")
    await world.members.leave(bob, group["id"])
    await world.members.leave(ann, group["id"])
    assert await send() == first
    with pytest.raises(NotFound):
        await send("other")
