"""Opening conversations, changing and listing them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actions.messaging.conversation_views import ConversationViews
from actions.messaging.conversations import CLIENT_IDS_KEPT
from actions.streams.streams import Position
from domain.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from domain.messaging.conversations import Kind
from domain.principals import Role
from store.accounts.contacts import BLOCKS
from store.engine import Append, Appended, Collection, Document, Filter
from store.messaging.conversations import MEMBERS
from tests.support.messaging import MessagingWorld, messaging_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MessagingWorld]:
    async with messaging_world(tmp_path) as found:
        yield found


# -- opening ----------------------------------------------------------------------------------


async def test_connected_members_hear_of_it_and_follow_it_from_the_start(
    world: MessagingWorld,
) -> None:
    ann, bob, eve = world.user("ann"), world.user("bob"), world.user("eve")
    _, at_ann = await world.connect(ann)
    _, at_bob = await world.connect(bob)
    _, at_eve = await world.connect(eve)
    group = await world.open(ann, bob, title="  Plans ")
    sent = await world.send(ann, group["id"], "first", client_id="k")
    world.hub.flush()
    assert group["title"] == "Plans"
    assert [(each["user"], each["role"]) for each in group["members"]] == [
        ("ann", "owner"),
        ("bob", "member"),
    ]
    for outlet, own in ((at_ann, {"client_id": "k"}), (at_bob, {})):
        assert outlet.data("conversation.created") == [group]
        assert outlet.data("message.created") == [sent | own]
    assert [name for name, _ in at_eve.received] == ["ready"]
    assert await world.views.get(bob, group["id"]) == {**group, "last_message": sent}


async def test_a_direct_conversation_opens_though_the_other_one_was_disabled(
    world: MessagingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    first = await world.open(ann, bob, kind=Kind.DIRECT)
    world.people.users["org"].discard("bob")
    assert await world.open(ann, bob, kind=Kind.DIRECT) == first
    # Also one that there is not yet; but nobody who is disabled is put into a group.
    cy = world.user("cy")
    new = await world.open(cy, bob, kind=Kind.DIRECT)
    sent = await world.send(cy, new["id"], "when you are back")
    assert (await world.page(cy, new["id"]))["items"] == [sent]
    with pytest.raises(NotFound):
        await world.open(cy, bob)
    with pytest.raises(NotFound):
        await world.conversations.create(
            cy, kind=Kind.DIRECT, members=["nobody"], title=None, client_id="n"
        )


async def test_of_two_people_there_is_one_direct_conversation(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    _, at_bob = await world.connect(bob)
    found = await asyncio.gather(
        *(world.open(who, other, kind=Kind.DIRECT) for who, other in [(ann, bob), (bob, ann)] * 3)
    )
    world.hub.flush()
    assert len({each["id"] for each in found}) == 1
    assert len(at_bob.data("conversation.created")) == 1
    assert {each["role"] for each in found[0]["members"]} == {"member"}
    # Another organization's people of the same names are other people.
    others = world.user("ann", org="other"), world.user("bob", org="other")
    assert (await world.open(*others, kind=Kind.DIRECT))["id"] != found[0]["id"]


async def test_a_direct_conversation_that_was_only_reserved_is_made(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    reserved = await world.conversation_store.reserve_direct("org", "bob", "ann")
    assert (await world.open(ann, bob, kind=Kind.DIRECT))["id"] == reserved


async def test_a_creation_sent_again_is_answered_with_the_first(world: MessagingWorld) -> None:
    ann, _ = world.user("ann"), world.user("bob")

    async def create(title: str) -> str:
        found = await world.conversations.create(
            ann, kind=Kind.GROUP, members=["bob"], title=title, client_id="k"
        )
        return found["id"]

    ids = await asyncio.gather(*(create("a") for _ in range(5)))
    assert len(set(ids)) == 1
    assert len(await world.mine(ann)) == 1
    with pytest.raises(Conflict):
        await create("b")


async def test_old_client_ids_are_forgotten(world: MessagingWorld) -> None:
    ann = world.user("ann")

    async def create() -> str:
        found = await world.conversations.create(
            ann, kind=Kind.GROUP, members=[], title=None, client_id="k"
        )
        return found["id"]

    first = await create()
    world.clock.turn(CLIENT_IDS_KEPT - 1)
    assert (await world.conversations.trim(), await create()) == (0, first)
    world.clock.turn(2)
    assert await world.conversations.trim() == 1
    assert await create() != first


async def test_what_cannot_be_opened(world: MessagingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    guest = world.user("guest", Role.GUEST)
    foreign = world.user("foreign", org="other")
    with pytest.raises(NotFound):
        await world.open(ann, foreign)
    for others in ((), (ann,), (bob, cy)):
        with pytest.raises(Invalid):
            await world.open(ann, *others, kind=Kind.DIRECT)
    with pytest.raises(Invalid):
        await world.open(ann, bob, kind=Kind.DIRECT, title="us")
    with pytest.raises(Invalid):
        await world.open(ann, bob, title="bell\a")
    with pytest.raises(Forbidden):
        await world.open(guest, kind=Kind.CHANNEL)
    await world.engine.insert("org", BLOCKS, {"id": "bob:ann", "blocker": "bob", "blocked": "ann"})
    with pytest.raises(Forbidden):
        await world.open(ann, bob, kind=Kind.DIRECT)


async def test_who_is_blocked_cannot_put_the_blocker_anywhere(world: MessagingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    group, channel = await world.open(ann, bob), await world.open(ann, kind=Kind.CHANNEL)
    both = await world.open(ann, bob, cy)
    await world.members.leave(bob, group["id"])
    await world.engine.insert("org", BLOCKS, {"id": "bob:ann", "blocker": "bob", "blocked": "ann"})
    for kind in (Kind.GROUP, Kind.CHANNEL):
        with pytest.raises(Forbidden):
            await world.open(ann, cy, bob, kind=kind)
    for each in (group, channel):
        with pytest.raises(Forbidden):
            await world.members.add(ann, each["id"], "bob")
    # Who is in it stays in it, comes in alone, and is put in by others; the other way is open too.
    assert await world.members.add(ann, both["id"], "bob") == await world.views.get(ann, both["id"])
    await world.members.join(bob, channel["id"])
    await world.open(cy, bob, ann)
    await world.open(bob, ann)


async def test_a_block_at_the_same_moment_holds_too(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, _ = world.user("ann"), world.user("bob")
    append = world.engine.append

    async def late(change: Append) -> Appended:
        await world.engine.insert_or_get(
            "org", BLOCKS, {"id": "bob:ann", "blocker": "bob", "blocked": "ann"}
        )
        return await append(change)

    monkeypatch.setattr(world.engine, "append", late)
    for kind in Kind:
        await world.engine.delete("org", BLOCKS, {"id": "bob:ann"})
        with pytest.raises(Forbidden):
            await world.open(ann, world.user("bob"), kind=kind)
    assert await world.mine(ann) == []


async def test_what_is_stored_is_told_whatever_fails_behind_it(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    _, at_bob = await world.connect(bob)

    @asynccontextmanager
    async def held(*_: object) -> AsyncIterator[None]:
        yield
        raise Unavailable

    monkeypatch.setattr(world.places, "held", held)
    with pytest.raises(Unavailable):
        await world.open(ann, bob, title="a")
    world.hub.flush()
    assert [event["title"] for event in at_bob.data("conversation.created")] == ["a"]


# -- changing ---------------------------------------------------------------------------------


async def test_title_and_topic_are_changed_by_the_owner_for_all(world: MessagingWorld) -> None:
    ann, bob, eve = world.user("ann"), world.user("bob"), world.user("eve")
    group = await world.open(ann, bob, title="a")
    _, at_bob = await world.connect(bob)
    changed = await world.conversations.update(ann, group["id"], {"title": "b", "topic": "t"})
    assert changed == {**group, "title": "b", "topic": "t"}
    assert await world.views.get(bob, group["id"]) == changed
    same = await world.conversations.update(ann, group["id"], {"title": "b"})
    assert same == changed
    cleared = await world.conversations.update(ann, group["id"], {"topic": None})
    assert cleared["topic"] is None
    world.hub.flush()
    told = at_bob.data("conversation.updated")
    assert [(each["title"], each["topic"]) for each in told] == [("b", "t"), ("b", None)]
    assert all(each["muted"] is None and each["unread"] is None for each in told)
    for again in ({"title": "c"}, {"title": "b"}):
        with pytest.raises(Forbidden):
            await world.conversations.update(bob, group["id"], again)
        with pytest.raises(NotFound):
            await world.conversations.update(eve, group["id"], again)
    direct = await world.open(ann, bob, kind=Kind.DIRECT)
    with pytest.raises(Invalid):
        await world.conversations.update(ann, direct["id"], {"title": "us"})


async def test_a_change_is_told_with_the_conversation_as_all_see_it(world: MessagingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    group = await world.open(ann, bob, title="a")
    channel = await world.open(ann, bob, kind=Kind.CHANNEL, title="a")
    _, at_bob = await world.connect(bob)
    sent = await world.send(ann, group["id"], "hello")
    await world.members.add(ann, group["id"], cy.user)
    nowhere = await world.receipts.get("org", group["id"], "bob")
    await world.receipts.move("org", nowhere, {**nowhere, "delivered_seq": sent["seq"]})
    changed = await world.views.get(ann, group["id"])
    for changes in ({"title": "b"}, {"topic": "t"}):
        changed = await world.conversations.update(ann, group["id"], changes)
        world.hub.flush()
        own = dict.fromkeys(("last_message", "unread", "more", "mentions", "muted", "archived"))
        assert at_bob.data("conversation.updated")[-1] == {**changed, **own}
    assert [each["user"] for each in changed["members"]] == ["ann", "bob", "cy"]
    assert changed["members"][1]["delivered_seq"] == sent["seq"]
    await world.conversations.update(ann, channel["id"], {"title": "b"})
    world.hub.flush()
    assert at_bob.data("conversation.updated")[-1]["members"] == []


async def test_who_comes_and_goes_at_the_same_moment_is_told_right(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log tells the members as of each change's place in it."""
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    group = await world.open(ann, bob, title="a")
    id = group["id"]
    look = ConversationViews.shared
    meanwhile: list[Callable[[], Awaitable[object]]] = [
        # As many as before, but others; then the same ones, one of them anew.
        lambda: world.members.remove(ann, id, "bob"),
        lambda: world.members.add(ann, id, "cy"),
        lambda: world.members.remove(ann, id, "cy"),
        lambda: world.members.add(ann, id, "cy"),
    ]
    together = [meanwhile[:2], meanwhile[2:]]

    async def shared(self: ConversationViews, org: str, doc: Document) -> Any:
        found = await look(self, org, doc)
        if together:
            world.clock.turn(1)
            for happen in together.pop(0):
                await happen()
        return found

    monkeypatch.setattr(ConversationViews, "shared", shared)
    await world.conversations.update(ann, id, {"title": "b"})
    assert not together
    events = await world.engine.read("org", f"messages/{id}", 0, 100)
    joined = events[-2]
    told = events[-1].content()
    assert (joined.type, events[-1].type) == ("member.added", "conversation.updated")
    assert [(each["user"], each["joined_at"]) for each in told["members"]] == [
        ("ann", group["created_at"]),
        ("cy", joined.at),
    ]
    assert told["members"] == (await world.views.get(cy, id))["members"]


async def test_changes_at_the_same_moment_lose_nothing(world: MessagingWorld) -> None:
    ann = world.user("ann")
    group = await world.open(ann, title="a")
    _, outlet = await world.connect(ann)
    await asyncio.gather(
        world.conversations.update(ann, group["id"], {"title": "b"}),
        world.conversations.update(ann, group["id"], {"topic": "t"}),
        world.conversations.update(ann, group["id"], {"muted": True}),
        world.conversations.update(ann, group["id"], {"archived": True}),
    )
    now = await world.views.get(ann, group["id"])
    assert (now["title"], now["topic"], now["muted"], now["archived"]) == ("b", "t", True, True)
    world.hub.flush()
    last = [each for each in outlet.data("conversation.updated") if each["muted"] is None][-1]
    assert (last["title"], last["topic"]) == ("b", "t")


async def test_admins_manage_channels_they_are_not_in(world: MessagingWorld) -> None:
    ann, chief = world.user("ann"), world.user("chief", Role.ADMIN)
    channel = await world.open(ann, kind=Kind.CHANNEL, title="a")
    group = await world.open(ann, title="a")
    changed = await world.conversations.update(chief, channel["id"], {"title": "b"})
    assert changed["title"] == "b"
    with pytest.raises(NotFound):
        await world.conversations.update(chief, group["id"], {"title": "b"})


async def test_muting_and_archiving_are_ones_own_on_all_devices(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    _, phone = await world.connect(bob)
    _, laptop = await world.connect(bob)
    _, at_ann = await world.connect(ann)
    changed = await world.conversations.update(bob, group["id"], {"muted": True})
    assert (changed["muted"], changed["archived"]) == (True, False)
    await world.conversations.update(bob, group["id"], {"archived": True})
    world.hub.flush()
    for outlet in (phone, laptop):
        told = outlet.data("conversation.updated")
        assert [(each["muted"], each["archived"]) for each in told] == [(True, None), (None, True)]
    assert at_ann.data("conversation.updated") == []
    assert (await world.views.get(ann, group["id"]))["muted"] is False
    assert [each["id"] for each in await world.mine(bob, archived=True)] == [group["id"]]
    assert await world.mine(bob, archived=False) == []
    # A device that was away is told what it missed.
    _, tablet = await world.connect(bob, {"messages/bob": Position("", 0)})
    assert len(tablet.data("conversation.updated")) == 2


# -- lists ------------------------------------------------------------------------------------


async def test_the_list_has_the_latest_message_first_and_pages(world: MessagingWorld) -> None:
    ann = world.user("ann")
    opened = []
    for number in range(7):
        world.clock.turn(1)
        opened.append((await world.open(ann, title=str(number)))["id"])
    assert [each["id"] for each in await world.mine(ann, limit=3)] == opened[::-1]
    for number in (2, 5, 0):
        world.clock.turn(1)
        await world.send(ann, opened[number], "up")
    expected = [opened[each] for each in (0, 5, 2, 6, 4, 3, 1)]
    for limit in (1, 3, 7, 50):
        assert [each["id"] for each in await world.mine(ann, limit=limit)] == expected
    listed = await world.mine(ann)
    assert listed[0]["last_message"] is not None
    assert listed[0]["last_message"]["body"] == "up"
    # What changes while pages are fetched makes none appear twice.
    first = await world.views.mine(ann, kind=None, archived=None, cursor=None, limit=3)
    world.clock.turn(1)
    await world.send(ann, expected[6], "up")
    second = await world.views.mine(ann, kind=None, archived=None, cursor=first["next"], limit=9)
    assert [each["id"] for each in second["items"]] == expected[3:6]


async def test_the_next_page_reads_no_list_of_conversations_again(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    opened = [(await world.open(ann, bob))["id"] for _ in range(3)]
    reads = 0
    find = world.engine.find

    async def counted(org: str, collection: Collection, where: Filter, **more: Any) -> Any:
        nonlocal reads
        reads += collection is MEMBERS and "conversation" not in where
        return await find(org, collection, where, **more)

    monkeypatch.setattr(world.engine, "find", counted)
    assert len(await world.mine(bob, limit=1)) == 3
    assert reads == 1
    # nor is anything older shown than what was answered before
    await world.members.leave(bob, opened[0])
    assert {each["id"] for each in await world.mine(bob)} == {*opened[1:]}
    await world.members.add(ann, opened[0], "bob")
    assert {each["id"] for each in await world.mine(bob)} == {*opened}
    await world.members.remove(ann, opened[1], "bob")
    assert {each["id"] for each in await world.mine(bob)} == {opened[0], opened[2]}
    other = await world.open(cy, bob)
    assert {each["id"] for each in await world.mine(bob)} == {opened[0], opened[2], other["id"]}
    assert reads == 5


async def test_the_list_shows_a_last_message_as_it_is_now(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    first = await world.send(ann, group["id"], "a")
    last = await world.send(ann, group["id"], "b")

    async def shown() -> object:
        return (await world.mine(bob))[0]["last_message"]

    assert await shown() == last
    edited = await world.messages.edit(ann, last["id"], "c", 1)
    assert await shown() == edited
    gone = await world.messages.delete(ann, last["id"])
    assert await shown() == gone
    await world.messages.hide(bob, last["id"])
    assert await shown() == first
    await world.messages.hide(bob, first["id"])
    assert await shown() is None


async def test_channels_can_be_found_by_those_who_may_join(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    guest, foreign = world.user("guest", Role.GUEST), world.user("foreign", org="other")
    channels = [
        (await world.open(ann, kind=Kind.CHANNEL, title=str(each)))["id"] for each in "abcde"
    ]
    await world.open(ann, title="a group")
    await world.members.join(bob, channels[1])
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await world.views.joinable(bob, cursor=cursor, limit=2)
        found += [each["id"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == [channels[0], *channels[2:]]
    for who in (guest, foreign):
        assert (await world.views.joinable(who, cursor=None, limit=9))["items"] == []
        with pytest.raises(NotFound):
            await world.views.get(who, channels[0])
    await world.send(ann, channels[0], "for members")
    seen = await world.views.get(bob, channels[0])
    assert (seen["title"], seen["last_message"], seen["members"]) == ("a", None, [])
    assert [each["id"] for each in await world.mine(bob, kind="channel")] == [channels[1]]
