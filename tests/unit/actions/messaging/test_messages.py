"""Sending, editing and deleting messages."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from actions.streams.streams import Position
from domain.clock import timestamp
from domain.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from domain.messaging.conversations import Kind
from domain.principals import Role
from store.accounts.contacts import BLOCKS
from store.uploads.uploads import LINKS, UPLOADS
from tests.support.messaging import MessagingWorld, messaging_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MessagingWorld]:
    async with messaging_world(tmp_path) as found:
        yield found


async def test_a_message_reaches_every_connected_member_and_history(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    _, at_ann = await world.connect(ann)
    _, at_bob = await world.connect(bob)
    sent = await world.send(ann, group["id"], "hello", mentions=["bob"], client_id="k")
    world.hub.flush()
    assert at_ann.data("message.created") == [{**sent, "client_id": "k"}]
    assert at_bob.data("message.created") == [sent]
    assert (await world.page(bob, group["id"]))["items"] == [sent]
    name, envelope = at_bob.received[-1]
    assert name == "message.created"
    assert (envelope["stream"], envelope["seq"]) == (f"messages/{group['id']}", sent["seq"])
    assert envelope["at"] == sent["created_at"]
    assert sent["mentions"] == ["bob"]
    assert world.unread.told == [("created", group["id"], sent["seq"], "ann", ["bob"])]


async def test_sent_again_it_is_answered_with_the_first_and_told_once(
    world: MessagingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    _, at_bob = await world.connect(bob)
    first, second = await asyncio.gather(
        world.send(ann, group["id"], "once", client_id="k"),
        world.send(ann, group["id"], "once", client_id="k"),
    )
    third = await world.send(ann, group["id"], "once", client_id="k")
    world.hub.flush()
    assert first == second == third
    assert at_bob.data("message.created") == [first]
    assert len(world.unread.told) == 1
    with pytest.raises(Conflict):
        await world.send(ann, group["id"], "other", client_id="k")
    # Another sender's key is another key.
    assert (await world.send(bob, group["id"], "other", client_id="k"))["sender"] == "bob"


async def test_the_first_is_answered_though_its_event_left_the_log(world: MessagingWorld) -> None:
    ann = world.user("ann")
    group = await world.open(ann)
    first = await world.send(ann, group["id"], "once", client_id="k")
    await world.send(ann, group["id"], "later")
    await world.engine.trim(keep=1, before=timestamp(0))
    assert await world.send(ann, group["id"], "once", client_id="k") == first
    assert len((await world.page(ann, group["id"]))["items"]) == 2


async def test_who_is_not_in_it_learns_nothing(world: MessagingWorld) -> None:
    ann, eve = world.user("ann"), world.user("eve")
    foreign = world.user("ann", org="other")
    group = await world.open(ann)
    sent = await world.send(ann, group["id"], "secret")
    for who in (eve, foreign):
        for attempt in (
            world.send(who, group["id"], "let me in"),
            world.send(who, "no-such-conversation", "hello?"),
            world.page(who, group["id"]),
            world.history.get(who, sent["id"]),
            world.messages.edit(who, sent["id"], "mine", 1),
            world.messages.delete(who, sent["id"]),
            world.messages.hide(who, sent["id"]),
            world.pins.add(who, sent["id"]),
            world.pins.page(who, group["id"], cursor=None, limit=10),
        ):
            with pytest.raises(NotFound):
                await attempt


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", Invalid),
        ("bell \a", Invalid),
        ("nul \0", Invalid),
        ("\x7f", Invalid),
        ("x" * (16 * 1024 + 1), TooLarge),
        ("é" * (8 * 1024 + 1), TooLarge),
    ],
)
async def test_what_is_no_body(world: MessagingWorld, body: str, error: type[Exception]) -> None:
    ann = world.user("ann")
    group = await world.open(ann)
    with pytest.raises(error):
        await world.send(ann, group["id"], body)


async def test_a_body_is_kept_exactly_as_sent(world: MessagingWorld) -> None:
    ann = world.user("ann")
    group = await world.open(ann)
    for body in ("  spaces  ", "two\r\nlines\tand a tab", "👩‍👩‍👧 é e\u0301", "é" * (8 * 1024)):
        assert (await world.send(ann, group["id"], body))["body"] == body


async def test_mentions_are_members(world: MessagingWorld) -> None:
    ann, _ = world.user("ann"), world.user("eve")
    group = await world.open(ann)
    with pytest.raises(Invalid) as refused:
        await world.send(ann, group["id"], "@eve", mentions=["ann", "eve"])
    assert refused.value.errors[0]["field"] == "mentions"


async def test_replies_and_threads_stay_in_their_conversation(world: MessagingWorld) -> None:
    ann = world.user("ann")
    here, there = await world.open(ann), await world.open(ann)
    root = await world.send(ann, here["id"], "root")
    answer = await world.send(ann, here["id"], "re", reply_to=root["id"], thread=root["id"])
    assert (answer["reply_to"], answer["thread"]) == (root["id"], root["id"])
    for field, message in (
        ("reply_to", "nothing"),
        ("thread", "nothing"),
        ("thread", answer["id"]),  # a thread hangs on a message that is in none
    ):
        with pytest.raises(Invalid) as refused:
            await world.send(ann, here["id"], "x", **{field: message})
        assert refused.value.errors[0]["field"] == field
    for field in ("reply_to", "thread"):
        with pytest.raises(Invalid) as refused:
            await world.send(ann, there["id"], "x", **{field: root["id"]})
        assert refused.value.errors[0]["field"] == field


async def test_a_blocked_user_cannot_send_or_edit_in_a_direct_conversation(
    world: MessagingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    direct = await world.open(ann, bob, kind=Kind.DIRECT)
    group = await world.open(ann, bob)
    before = await world.send(ann, direct["id"], "hello")
    await world.engine.insert("org", BLOCKS, {"id": "bob:ann", "blocker": "bob", "blocked": "ann"})
    with pytest.raises(Forbidden):
        await world.send(ann, direct["id"], "hello?")
    with pytest.raises(Forbidden):
        await world.messages.edit(ann, before["id"], "hello?", 1)
    await world.send(bob, direct["id"], "you are blocked")
    await world.send(ann, group["id"], "a group is not concerned")


async def test_attachments_are_ones_own_uploads(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    known = {"content_type": "image/png", "size": 7, "sha256": "", "conversation": None}
    for id, owner, state in (
        ("u1", "ann", "ready"),
        ("u2", "bob", "ready"),
        ("u3", "ann", "receiving"),
    ):
        doc = {"id": id, "owner": owner, "name": "a.png", "state": state, "kept": False, **known}
        await world.engine.insert("org", UPLOADS, {**doc, "created_at": "", "touched_at": ""})
    sent = await world.send(ann, group["id"], "", attachments=["u1"])
    assert sent["attachments"] == [
        {
            "id": "u1",
            "name": "a.png",
            "content_type": "image/png",
            "size": 7,
            "url": "/api/v1/uploads/u1",
        }
    ]
    link = await world.engine.get("org", LINKS, f"u1:messages/{group['id']}:{sent['id']}")
    assert link is not None
    for id in ("u2", "u3", "nothing"):
        with pytest.raises(Invalid) as refused:
            await world.send(ann, group["id"], "", attachments=[id])
        assert refused.value.errors[0]["field"] == "attachments"


# -- editing ----------------------------------------------------------------------------------


async def test_an_edit_is_told_with_the_whole_message(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    _, at_bob = await world.connect(bob)
    sent = await world.send(ann, group["id"], "helo")
    world.clock.turn(5)
    edited = await world.messages.edit(ann, sent["id"], "hello", 1)
    world.hub.flush()
    assert edited["edited_at"] is not None
    assert edited["edited_at"] > sent["created_at"]
    assert edited == {**sent, "body": "hello", "version": 2, "edited_at": edited["edited_at"]}
    assert at_bob.data("message.edited") == [edited]
    assert (await world.page(bob, group["id"]))["items"] == [edited]


async def test_of_two_edits_of_one_version_one_wins(world: MessagingWorld) -> None:
    ann = world.user("ann")
    group = await world.open(ann)
    sent = await world.send(ann, group["id"], "a")
    results = await asyncio.gather(
        *(world.messages.edit(ann, sent["id"], text, 1) for text in "bcdef"),
        return_exceptions=True,
    )
    done = [each for each in results if not isinstance(each, BaseException)]
    lost = [each for each in results if isinstance(each, Conflict)]
    assert (len(done), len(lost)) == (1, 4)
    now = await world.history.get(ann, sent["id"])
    assert now == done[0]
    assert all(each.data == {"message": now} for each in lost)
    # The one that won may be sent again; so an answer that was lost does no harm.
    assert await world.messages.edit(ann, sent["id"], done[0]["body"], 1) == now


async def test_only_the_sender_edits(world: MessagingWorld) -> None:
    ann, bob = world.user("ann", Role.ADMIN), world.user("bob")
    group = await world.open(ann, bob)
    sent = await world.send(bob, group["id"], "mine")
    with pytest.raises(Forbidden):
        await world.messages.edit(ann, sent["id"], "yours", 1)
    with pytest.raises(Invalid):
        await world.messages.edit(bob, sent["id"], "", 1)


# -- deleting ---------------------------------------------------------------------------------


async def test_deleted_for_everyone_it_keeps_its_place_without_content(
    world: MessagingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    _, at_bob = await world.connect(bob)
    sent = await world.send(bob, group["id"], "oops", mentions=["ann"])
    after = await world.send(ann, group["id"], "what?", reply_to=sent["id"])
    await world.pins.add(ann, sent["id"])
    gone = await world.messages.delete(bob, sent["id"])
    world.hub.flush()
    assert at_bob.data("message.deleted") == [
        {"id": sent["id"], "conversation": group["id"], "seq": sent["seq"]}
    ]
    assert gone["deleted_at"] is not None
    assert gone == {**sent, "body": "", "mentions": [], "deleted_at": gone["deleted_at"]}
    assert (await world.page(ann, group["id"]))["items"] == [gone, after]
    assert world.unread.told[-1] == ("deleted", group["id"], sent["seq"])
    assert (await world.pins.page(ann, group["id"], cursor=None, limit=9))["items"] == []
    # Again is the same, and told once.
    assert await world.messages.delete(bob, sent["id"]) == gone
    with pytest.raises(Conflict) as refused:
        await world.messages.edit(bob, sent["id"], "back", 1)
    assert refused.value.data == {"message": gone}
    with pytest.raises(Invalid):
        await world.pins.add(ann, sent["id"])
    world.hub.flush()
    assert len(at_bob.data("message.deleted")) == 1


async def test_who_may_delete_for_everyone(world: MessagingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    chief = world.user("chief", Role.ADMIN)
    group = await world.open(ann, bob, cy, chief)
    direct = await world.open(ann, bob, kind=Kind.DIRECT)
    first, second, third = [await world.send(bob, group["id"], text) for text in "123"]
    with pytest.raises(Forbidden):
        await world.messages.delete(cy, first["id"])
    for who, message in ((bob, first), (ann, second), (chief, third)):
        assert (await world.messages.delete(who, message["id"]))["deleted_at"]
    # Nobody owns a direct conversation, not even who opened it.
    theirs = await world.send(bob, direct["id"], "mine")
    with pytest.raises(Forbidden):
        await world.messages.delete(ann, theirs["id"])


async def test_deleted_for_oneself_it_is_gone_on_all_ones_devices_only(
    world: MessagingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    _, phone = await world.connect(bob)
    _, laptop = await world.connect(bob)
    _, at_ann = await world.connect(ann)
    first = await world.send(ann, group["id"], "apples and pears")
    last = await world.send(ann, group["id"], "apples")
    await world.messages.hide(bob, last["id"])
    await world.messages.hide(bob, last["id"])
    world.hub.flush()
    told = [{"id": last["id"], "conversation": group["id"], "seq": last["seq"]}]
    assert phone.data("message.deleted") == laptop.data("message.deleted") == told
    assert at_ann.data("message.deleted") == []
    assert (await world.page(bob, group["id"]))["items"] == [first]
    assert (await world.page(ann, group["id"]))["items"] == [first, last]
    with pytest.raises(NotFound):
        await world.history.get(bob, last["id"])
    seen = await world.views.get(bob, group["id"])
    assert seen["last_message"] == first
    # A device that comes back later hears of it from the user's own stream.
    _, tablet = await world.connect(bob)
    ready = dict(tablet.received)["ready"]
    assert ready["messages/bob"]["seq"] == 1


async def test_only_the_senders_own_connections_are_told_the_client_id(
    world: MessagingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    stream = f"messages/{group['id']}"
    _, at_ann = await world.connect(ann)
    _, at_another = await world.connect(ann)
    _, at_bob = await world.connect(bob)
    before = await world.engine.head("org", stream)
    assert before is not None
    bodies = ["plain", 'with ,"client_id":"in it"', "last"]
    keys = ["k1", 'with "quotes" and \\', "käse"]
    sent = [
        await world.send(ann, group["id"], body, client_id=key)
        for body, key in zip(bodies, keys, strict=True)
    ]
    world.hub.flush()
    own = [{**each, "client_id": key} for each, key in zip(sent, keys, strict=True)]
    assert all("client_id" not in each for each in sent)
    assert at_ann.data("message.created") == at_another.data("message.created") == own
    assert at_bob.data("message.created") == sent
    # What was missed, by every way to it.
    position = Position(before.epoch, before.seq)
    for who, told in ((ann, own), (bob, sent)):
        client, back = await world.connect(who, {stream: position})
        assert back.data("message.created") == told
        world.disconnect(client)
        synced = await world.streams.sync(who, {stream: position})
        assert [orjson.loads(each)["data"] for each in _texts(synced[stream])] == told
    assert (await world.page(ann, group["id"]))["items"] == sent
    edited = await world.messages.edit(ann, sent[0]["id"], "changed", 1)
    assert "client_id" not in edited
    world.hub.flush()
    assert at_ann.data("message.edited") == at_bob.data("message.edited") == [edited]


def _texts(backlog: dict[str, Any]) -> list[bytes]:
    return [orjson.dumps(each) for each in backlog["events"]]
