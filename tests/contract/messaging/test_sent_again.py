"""What creates something, sent again after everything has changed, gives the first answer."""

import importlib
import pkgutil
import typing
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import handlers
import server.http
from actions.messaging.messages import Draft
from actions.uploads.uploads import Incoming, Limits, Uploads
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.messaging.conversations import Conversation, Kind
from domain.messaging.messages import Message
from domain.uploads.uploads import Upload
from handlers.command import CommandSet
from store.accounts.contacts import BLOCKS
from store.uploads.blobs_disk import DiskBlobs
from store.uploads.uploads import UPLOADS
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


async def test_message_send_in_what_was_deleted(world: MessagingWorld) -> None:
    """The message is gone for good, so it is not answered; nor is it there again."""
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    first = await world.send(bob, group["id"], "hi", client_id="k")
    await world.messages.delete(bob, first["id"])
    again = await world.send(bob, group["id"], "hi", client_id="k")
    assert (again["id"], again["body"]) == (first["id"], "")
    await world.deletions.delete(ann, group["id"])
    for _ in range(2):
        with pytest.raises(NotFound):
            await world.send(bob, group["id"], "hi", client_id="k")
        world.clock.turn(61)
        await world.deletions.finish()


async def test_message_send_after_everybody_was_disabled(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    direct = await world.open(ann, bob, kind=Kind.DIRECT)
    sent = [Draft(each["id"], "k", "hi", mentions=["bob"]) for each in (group, direct)]
    first = [await world.messages.send(ann, each) for each in sent]
    await world.handovers.begin("org", "bob")
    world.people.users["org"].clear()
    await world.handovers.finish()
    await world.members.remove(ann, group["id"], "bob")
    await world.engine.insert("org", BLOCKS, BLOCK)
    assert [await world.messages.send(ann, each) for each in sent] == first
    for each in sent:
        with pytest.raises((Forbidden, Invalid)):
            await world.messages.send(ann, each._replace(client_id="other"))


async def test_message_send_after_what_it_answers_went(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    id = (await world.open(ann, bob))["id"]
    root = await world.send(bob, id, "root")
    draft = Draft(id, "k", "hi", reply_to=root["id"], thread=root["id"])
    first = await world.messages.send(ann, draft)
    await world.messages.delete(bob, root["id"])
    await world.messages.edit(ann, first["id"], "edited", 1)
    # What is answered is what was answered then, also when the log has it no more.
    assert await world.messages.send(ann, draft) == first
    await world.engine.trim(keep=1, before="2000-01-01T00:00:00.000Z")
    again = await world.messages.send(ann, draft)
    assert (again["id"], again["seq"], again["body"]) == (first["id"], first["seq"], "edited")


async def test_upload_create(world: MessagingWorld, tmp_path: Path) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    id = (await world.open(bob, ann))["id"]
    blobs = DiskBlobs(tmp_path / "blobs")
    await blobs.start()

    def uploads(quota: int = 1000) -> Uploads:
        limits = Limits(size=100, quota=quota, unattached=3600.0)
        return Uploads(world.uploads, blobs, world.rules, world.clock, limits)

    async def create(body: bytes = b"hello", client_id: str = "k", quota: int = 1000) -> Upload:
        async def chunks() -> AsyncIterator[bytes]:
            yield body

        incoming = Incoming("a.txt", "text/plain", conversation=id, client_id=client_id)
        return await uploads(quota).receive(ann, incoming, chunks())

    first = await create()
    # Its conversation is left, and there is no room for another one.
    await world.members.leave(ann, id)
    assert await create(quota=5) == first
    with pytest.raises(Conflict):
        await create(b"other", quota=5)
    with pytest.raises(NotFound):
        await create(client_id="other")
    await world.deletions.delete(bob, id)
    assert await create() == first
    assert len((await uploads().list(ann, None, 10))["items"]) == 1


def declared() -> Iterator[str]:
    """What takes a `client_id`: commands, and what is REST alone."""
    for module in _modules(handlers):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, CommandSet):
                for method in vars(kind).values():
                    if found := getattr(method, "__command__", None):
                        request = typing.get_type_hints(method)["request"]
                        if "client_id" in request.model_fields:
                            yield found.name
    for module in _modules(server.http):
        for path in getattr(module, "OPENAPI", {}).values():
            for operation in path.values():
                if "client_id" in str(operation.get("requestBody")):
                    yield operation["operationId"]


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(each.name)


def test_everything_that_takes_a_client_id_has_a_case() -> None:
    names = set(declared())
    assert {"conversation.create", "message.send", "upload.create"} <= names
    missing = {name for name in names if f"test_{name.replace('.', '_')}" not in globals()}
    assert not missing, f"sent again after everything has changed: {missing}"
