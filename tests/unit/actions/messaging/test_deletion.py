"""Deleted for everyone, a message's content is gone: from the log, from retries, from downloads."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from actions.streams.streams import Position
from actions.uploads.uploads import Limits, Uploads
from domain.clock import timestamp
from domain.errors import Conflict, NotFound
from domain.events import StoredEvent
from domain.ids import new_id
from domain.messaging.conversations import stream_of
from domain.messaging.messages import Message
from domain.principals import Principal
from store.messaging.messages import TOLD, MessageRepository, Told
from store.uploads.blobs import Blobs
from store.uploads.blobs_disk import DiskBlobs
from store.uploads.uploads import UPLOADS
from tests.support.messaging import MessagingWorld, messaging_world

SECRET = "hush-hush"
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MessagingWorld]:
    async with messaging_world(tmp_path) as found:
        yield found


async def log_of(world: MessagingWorld, conversation: str) -> list[StoredEvent]:
    return await world.engine.read("org", stream_of(conversation), 0, 1000)


def shape(event: StoredEvent) -> tuple[Any, ...]:
    return event.seq, event.type, event.at, event.actor, event.epoch


async def test_no_event_of_the_log_has_the_content_any_more(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    before = await world.send(ann, group["id"], "before")
    sent = await world.send(bob, group["id"], SECRET, mentions=["ann"])
    other = await world.send(ann, group["id"], "between", reply_to=sent["id"])
    await world.messages.edit(bob, sent["id"], f"{SECRET}!", 1)
    await world.pins.add(ann, sent["id"])
    await world.messages.edit(bob, sent["id"], f"{SECRET}?", 2)
    await world.pins.remove(ann, sent["id"])
    written = await log_of(world, group["id"])
    assert sum(SECRET in event.payload.decode() for event in written) == 5
    world.clock.turn(9)
    gone = await world.messages.delete(bob, sent["id"])
    log = await log_of(world, group["id"])
    assert [shape(event) for event in log[:-1]] == [shape(event) for event in written]
    assert log[-1].type == "message.deleted"
    for event, old in zip(log[:-1], written, strict=True):
        assert SECRET not in event.payload.decode()
        if event.type.startswith("message.") and event.content()["id"] == sent["id"]:
            message = _MESSAGE.validate_python(event.content(), strict=True)
            emptied = ("body", "attachments", "mentions", "reactions", "deleted_at")
            assert [message[each] for each in emptied] == ["", [], [], {}, gone["deleted_at"]]  # type: ignore[literal-required]
            assert message["pinned_at"] is None
            assert message["version"] == old.content()["version"]
        else:
            assert event.payload == old.payload
    # Others keep theirs.
    assert {before["body"], other["body"]} <= {event.content().get("body") for event in log}


async def test_who_comes_back_is_not_told_it(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    stream = stream_of(group["id"])
    client, _ = await world.connect(bob)
    head = await world.engine.head("org", stream)
    assert head is not None
    world.disconnect(client)
    sent = await world.send(ann, group["id"], SECRET)
    await world.messages.edit(ann, sent["id"], f"{SECRET}!", 1)
    position = Position(head.epoch, head.seq)
    # Who comes back in time is told, and others after the same gap are not told from memory.
    client, outlet = await world.connect(bob, {stream: position})
    assert SECRET in str(outlet.received)
    assert SECRET in str(orjson.dumps(await world.streams.sync(bob, {stream: position})))
    world.disconnect(client)
    await world.messages.delete(ann, sent["id"])
    client, outlet = await world.connect(bob, {stream: position})
    world.hub.flush()
    assert [name for name, _ in outlet.received] == [
        "message.created",
        "message.edited",
        "message.deleted",
        "ready",
    ]
    assert dict(outlet.received)["ready"][stream]["recovered"]
    synced = await world.streams.sync(bob, {stream: position})
    subscribed = await world.streams.subscribe(client, {stream: position})
    for answer in (synced, subscribed):
        told = orjson.loads(orjson.dumps(answer[stream]))
        assert [event["data"].get("body") for event in told["events"]] == ["", "", None]
    assert SECRET not in str(outlet.received)


async def test_a_change_at_the_same_moment_is_not_left_in_the_log(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinned and unpinned again between looking and deleting, it is as it was; the log is not."""
    ann = world.user("ann")
    group = await world.open(ann)
    sent = await world.send(ann, group["id"], SECRET)
    look = MessageRepository.told

    async def told(self: MessageRepository, org: str, message: str) -> Told:
        found = await look(self, org, message)
        monkeypatch.setattr(MessageRepository, "told", look)
        await world.pins.add(ann, sent["id"])
        await world.pins.remove(ann, sent["id"])
        return found

    monkeypatch.setattr(MessageRepository, "told", told)
    await world.messages.delete(ann, sent["id"])
    log = await log_of(world, group["id"])
    assert [event.type for event in log[-3:]] == [
        "message.pinned",
        "message.unpinned",
        "message.deleted",
    ]
    assert SECRET not in str([event.payload for event in log])


async def test_sent_or_edited_again_it_stays_deleted(world: MessagingWorld) -> None:
    ann = world.user("ann")
    group = await world.open(ann)
    sent = await world.send(ann, group["id"], SECRET, client_id="k")
    gone = await world.messages.delete(ann, sent["id"])
    assert await world.send(ann, group["id"], SECRET, client_id="k") == gone
    with pytest.raises(Conflict) as refused:
        await world.messages.edit(ann, sent["id"], SECRET, 1)
    assert refused.value.data == {"message": gone}
    await world.engine.trim(keep=1, before=timestamp(0))
    assert await world.send(ann, group["id"], SECRET, client_id="k") == gone
    assert (await world.page(ann, group["id"]))["items"] == [gone]
    assert (await world.views.get(ann, group["id"]))["last_message"] == gone


async def test_deleted_for_oneself_it_stays_in_the_log(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    sent = await world.send(ann, group["id"], "for bob, still")
    before = [event.payload for event in await log_of(world, group["id"])]
    await world.messages.hide(ann, sent["id"])
    assert [event.payload for event in await log_of(world, group["id"])] == before


async def test_what_is_noted_of_a_message_does_not_outgrow_the_log(world: MessagingWorld) -> None:
    ann = world.user("ann")
    group = await world.open(ann)
    sent = await world.send(ann, group["id"], SECRET)
    for version in range(1, 30):
        await world.messages.edit(ann, sent["id"], f"{SECRET} {version}", version)
        await world.engine.trim(keep=5, before=timestamp(0))
    noted = await world.engine.count("org", TOLD, {"message": sent["id"]})
    assert 5 <= noted <= 7
    await world.messages.delete(ann, sent["id"])
    assert SECRET not in str([event.payload for event in await log_of(world, group["id"])])
    assert await world.engine.count("org", TOLD, {}) == 0


# -- attachments ----------------------------------------------------------------------------------


class Files:
    """Uploads of the world's users, and whether they can be downloaded."""

    def __init__(self, world: MessagingWorld, blobs: Blobs) -> None:
        self.world = world
        self.uploads = Uploads(world.uploads, blobs, world.rules, world.clock, Limits(1, 1, 3600))

    async def put(self, owner: Principal, conversation: str | None = None) -> str:
        id = new_id()
        known = {"name": "a.png", "content_type": "image/png", "size": 7, "sha256": ""}
        at = timestamp(self.world.clock.now())
        await self.world.engine.insert(
            "org",
            UPLOADS,
            {
                "id": id,
                "owner": owner.user,
                "conversation": conversation,
                "state": "ready",
                "kept": False,
                "created_at": at,
                "touched_at": at,
                **known,
            },
        )
        return id

    async def may(self, id: str, *users: Principal) -> list[bool]:
        found = []
        for who in users:
            try:
                await self.uploads.get(who, id)
            except NotFound:
                found.append(False)
            else:
                found.append(True)
        return found


@pytest.fixture
async def files(world: MessagingWorld, tmp_path: Path) -> AsyncIterator[Files]:
    blobs = DiskBlobs(tmp_path / "uploads")
    await blobs.start()
    yield Files(world, blobs)
    await blobs.stop()


async def test_attachments_are_only_their_owners_again(world: MessagingWorld, files: Files) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    group, other = await world.open(ann, bob), await world.open(ann, cy)
    file = await files.put(ann)
    assert await files.may(file, ann, bob, cy) == [True, False, False]
    first = await world.send(ann, group["id"], "", attachments=[file])
    second = await world.send(ann, group["id"], "again", attachments=[file])
    third = await world.send(ann, other["id"], "for cy", attachments=[file])
    await world.messages.delete(ann, first["id"])
    assert await files.may(file, ann, bob, cy) == [True, True, True]
    await world.messages.delete(ann, second["id"])
    assert await files.may(file, ann, bob, cy) == [True, False, True]
    await world.messages.delete(ann, third["id"])
    assert await files.may(file, ann, bob, cy) == [True, False, False]
    # Deleted for oneself, it is still the others'.
    fourth = await world.send(ann, group["id"], "", attachments=[file])
    await world.messages.hide(ann, fourth["id"])
    assert await files.may(file, ann, bob, cy) == [True, True, False]


async def test_of_many_links_the_one_that_counts_is_found(
    world: MessagingWorld, files: Files
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    lonely = [await world.open(ann) for _ in range(3)]
    shared = await world.open(ann, bob)
    file = await files.put(ann)
    for group in lonely:
        for _ in range(60):
            await world.send(ann, group["id"], "", attachments=[file])
    assert await files.may(file, bob) == [False]
    sent = await world.send(ann, shared["id"], "", attachments=[file])
    assert await files.may(file, bob) == [True]
    await world.messages.delete(ann, sent["id"])
    assert await files.may(file, bob) == [False]


async def test_shared_before_a_message_carries_it_not_after_the_message_is_gone(
    world: MessagingWorld, files: Files
) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    group, other = await world.open(ann, bob), await world.open(ann, cy)
    file = await files.put(ann, conversation=group["id"])
    assert await files.may(file, bob, cy) == [True, False]
    elsewhere = await world.send(ann, other["id"], "", attachments=[file])
    await world.messages.delete(ann, elsewhere["id"])
    assert await files.may(file, bob, cy) == [True, False]
    sent = await world.send(ann, group["id"], "", attachments=[file])
    assert await files.may(file, bob, cy) == [True, False]
    await world.messages.delete(ann, sent["id"])
    assert await files.may(file, ann, bob, cy) == [True, False, False]


async def test_the_owner_keeps_a_file_whose_message_was_deleted(
    world: MessagingWorld, files: Files
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    file, unused = await files.put(ann), await files.put(ann)
    sent = await world.send(ann, group["id"], "", attachments=[file])
    await world.messages.delete(ann, sent["id"])
    world.clock.turn(7200)
    await files.uploads.sweep()
    assert await files.may(file, ann, bob) == [True, False]
    assert await files.may(unused, ann) == [False]
