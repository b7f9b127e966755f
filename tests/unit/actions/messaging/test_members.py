"""Coming into conversations and going out of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actions.messaging import members
from actions.streams.streams import Position, Rules
from domain.errors import Forbidden, Invalid, NotFound, TooLarge
from domain.messaging.conversations import Kind
from domain.principals import Principal, Role
from domain.streams import StreamName
from tests.support.messaging import MessagingWorld, messaging_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MessagingWorld]:
    async with messaging_world(tmp_path) as found:
        yield found


async def roles(world: MessagingWorld, who: Principal, conversation: str) -> dict[str, str]:
    page = await world.views.members(who, conversation, cursor=None, limit=200)
    return {each["user"]: each["role"] for each in page["items"]}


async def test_who_joins_a_channel_follows_it_from_there(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    channel = await world.open(ann, kind=Kind.CHANNEL)
    before = await world.send(ann, channel["id"], "before")
    _, at_ann = await world.connect(ann)
    _, at_bob = await world.connect(bob)
    with pytest.raises(NotFound):
        await world.page(bob, channel["id"])
    with pytest.raises(NotFound):
        await world.send(bob, channel["id"], "not yet")
    joined = await world.members.join(bob, channel["id"])
    assert joined["last_message"] == before
    await world.members.join(bob, channel["id"])
    after = await world.send(ann, channel["id"], "after")
    world.hub.flush()
    told = [{"conversation": channel["id"], "user": "bob", "role": "member"}]
    assert at_ann.data("member.added") == at_bob.data("member.added") == told
    assert at_bob.data("message.created") == [after]
    # All who may read a stream may read all of it.
    assert (await world.page(bob, channel["id"]))["items"] == [before, after]


async def test_guests_and_groups(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    guest = world.user("guest", Role.GUEST)
    channel, group = await world.open(ann, kind=Kind.CHANNEL), await world.open(ann, bob)
    with pytest.raises(NotFound):
        await world.members.join(guest, channel["id"])
    with pytest.raises(NotFound):
        await world.members.join(guest, group["id"])
    with pytest.raises(Invalid):
        await world.members.join(bob, group["id"])
    await world.members.add(ann, channel["id"], "guest")
    await world.send(guest, channel["id"], "hello")
    await world.members.join(guest, channel["id"])


async def test_owners_put_others_in_and_out(world: MessagingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    eve = world.user("eve", Role.ADMIN)
    group = await world.open(ann, bob)
    _, at_cy = await world.connect(cy)
    with pytest.raises(Forbidden):
        await world.members.add(bob, group["id"], "cy")
    with pytest.raises(Forbidden):
        await world.members.remove(bob, group["id"], "ann")
    for attempt in (
        world.members.add(eve, group["id"], "eve"),
        world.members.remove(eve, group["id"], "bob"),
        world.members.add(ann, group["id"], "nobody"),
        world.members.remove(ann, group["id"], "cy"),
    ):
        with pytest.raises(NotFound):
            await attempt
    added = await world.members.add(ann, group["id"], "cy")
    assert [each["user"] for each in added["members"]] == ["ann", "bob", "cy"]
    assert await world.members.add(ann, group["id"], "cy") == added
    await world.send(bob, group["id"], "hi cy")
    left = await world.members.remove(ann, group["id"], "cy")
    assert [each["user"] for each in left["members"]] == ["ann", "bob"]
    await world.send(bob, group["id"], "cy is gone")
    world.hub.flush()
    change = {"conversation": group["id"], "user": "cy", "role": "member"}
    assert [(name, each["data"]) for name, each in at_cy.received[1:]] == [
        ("member.added", change),
        ("message.created", at_cy.data("message.created")[0]),
        ("member.removed", change),
    ]
    assert at_cy.data("message.created")[0]["body"] == "hi cy"
    with pytest.raises(NotFound):
        await world.page(cy, group["id"])
    assert await world.mine(cy) == []
    direct = await world.open(ann, bob, kind=Kind.DIRECT)
    with pytest.raises(Invalid):
        await world.members.add(ann, direct["id"], "cy")
    with pytest.raises(Invalid):
        await world.members.remove(ann, direct["id"], "bob")


async def test_admins_manage_channels(world: MessagingWorld) -> None:
    ann, bob, chief = world.user("ann"), world.user("bob"), world.user("chief", Role.ADMIN)
    channel = await world.open(ann, kind=Kind.CHANNEL)
    with pytest.raises(Forbidden):
        await world.members.add(bob, channel["id"], "bob")
    await world.members.add(chief, channel["id"], "bob")
    await world.members.remove(chief, channel["id"], "ann")
    assert await roles(world, chief, channel["id"]) == {"bob": "owner"}
    with pytest.raises(NotFound):
        await world.members.remove(chief, channel["id"], "ann")


async def test_the_last_owner_hands_over_to_the_oldest_member(world: MessagingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    group = await world.open(ann)
    for who in (cy, bob):
        world.clock.turn(1)
        await world.members.add(ann, group["id"], who.user)
    _, at_bob = await world.connect(bob)
    await world.members.leave(ann, group["id"])
    world.hub.flush()
    assert at_bob.data("member.updated") == [
        {"conversation": group["id"], "user": "cy", "role": "owner"}
    ]
    assert await roles(world, bob, group["id"]) == {"cy": "owner", "bob": "member"}
    await world.conversations.update(cy, group["id"], {"title": "mine now"})
    with pytest.raises(NotFound):
        await world.members.leave(ann, group["id"])
    direct = await world.open(ann, bob, kind=Kind.DIRECT)
    with pytest.raises(Invalid):
        await world.members.leave(ann, direct["id"])


async def test_who_comes_first_into_an_empty_channel_owns_it(world: MessagingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    channel = await world.open(ann, kind=Kind.CHANNEL)
    await world.members.leave(ann, channel["id"])
    await asyncio.gather(
        world.members.join(bob, channel["id"]), world.members.join(cy, channel["id"])
    )
    found = await roles(world, bob, channel["id"])
    assert sorted(found.values()) == ["member", "owner"]


async def test_however_many_come_and_go_at_once_one_owns_it_and_the_size_is_right(
    world: MessagingWorld,
) -> None:
    users = [world.user(f"u{number}") for number in range(12)]
    channel = await world.open(users[0], *users[1:6], kind=Kind.CHANNEL)
    await asyncio.gather(
        *(world.members.leave(each, channel["id"]) for each in users[:6]),
        *(world.members.join(each, channel["id"]) for each in users[6:]),
    )
    found = await roles(world, users[6], channel["id"])
    assert set(found) == {each.user for each in users[6:]}
    assert sorted(found.values()).count("owner") == 1
    doc = await world.conversation_store.get("org", channel["id"])
    assert doc is not None
    assert doc["size"] == 6
    assert doc["owners"] == 1


async def test_members_come_by_page(world: MessagingWorld) -> None:
    users = [world.user(f"u{number}") for number in range(7)]
    channel = await world.open(*users, kind=Kind.CHANNEL)
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await world.views.members(users[0], channel["id"], cursor=cursor, limit=3)
        found += [each["user"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == [each.user for each in users]
    with pytest.raises(Invalid):
        await world.views.members(users[0], channel["id"], cursor="bm90IG1pbmU", limit=3)


async def test_a_connection_joins_what_its_user_is_in_at_that_moment(
    world: MessagingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    streams = []
    for _ in range(3):
        group = await world.open(ann, bob)
        streams.append(f"messages/{group['id']}")
        _, outlet = await world.connect(bob)
        assert dict(outlet.received)["ready"].keys() == {*streams, "messages/bob"}
    await world.members.leave(bob, streams.pop(0).removeprefix("messages/"))
    _, outlet = await world.connect(bob)
    assert dict(outlet.received)["ready"].keys() == {*streams, "messages/bob"}


@pytest.mark.parametrize("at_connect", [True, False])
async def test_who_is_put_out_while_coming_in_does_not_follow(
    world: MessagingWorld, at_connect: bool
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group, other = await world.open(ann, bob), await world.open(ann, bob)
    wanted = [f"messages/{each['id']}" for each in (group, other)]
    client, outlet = (None, None) if at_connect else await world.connect(bob)
    rule, asked = world.memberships.may_read, []

    async def slow(principal: Principal, name: StreamName) -> bool:
        allowed = await rule(principal, name)
        asked.append(name.id)
        if len(asked) == 1:
            await world.members.remove(ann, group["id"], "bob")
        return allowed

    rules = Rules()

    async def nothing(principal: Principal) -> list[str]:
        return []

    rules.declare("messages", slow, nothing)
    world.streams._rules = rules
    if client is None:
        client, outlet = await world.connect(bob, dict.fromkeys(wanted, Position("", 0)))
        assert client.streams == {wanted[1]}
    else:
        with pytest.raises(NotFound):
            await world.streams.subscribe(client, dict.fromkeys(wanted))
        assert wanted[0] not in client.streams
    assert outlet is not None
    await world.send(ann, group["id"], "among ourselves")
    await world.send(ann, other["id"], "all")
    world.hub.flush()
    assert [each["body"] for each in outlet.data("message.created")] == ["all"]


class Turn:
    """In place of a semaphore: while one waits for it, something happens."""

    def __init__(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._meanwhile = meanwhile

    async def __aenter__(self) -> None:
        await self._meanwhile()

    async def __aexit__(self, *_: object) -> None:
        return None


@pytest.mark.parametrize("lane", ["that of small gaps", "that of large ones"])
@pytest.mark.parametrize("how", ["connect", "subscribe", "sync"])
async def test_who_is_put_out_while_waiting_for_a_turn_does_not_follow(
    world: MessagingWorld, how: str, lane: str
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group, other = await world.open(ann, bob), await world.open(ann, bob)
    wanted = {f"messages/{each['id']}": Position("", 0) for each in (group, other)}
    lost, kept = wanted
    client, outlet = (None, None) if how == "connect" else await world.connect(bob)
    if client is not None:
        await world.streams.unsubscribe(client, list(wanted))

    async def put_out() -> None:
        await world.members.remove(ann, group["id"], "bob")

    streams: Any = world.streams
    (free, small), (_, large) = streams._lanes
    turn = Turn(put_out)
    streams._lanes = (
        ((turn, small), (free, large))
        if lane == "that of small gaps"
        else ((free, 0), (turn, large))
    )
    if how == "sync":
        assert (await world.streams.sync(bob, wanted)).keys() == {kept}
        return
    if client is None:
        client, outlet = await world.connect(bob, wanted)
        assert client.streams == {kept}
    else:
        with pytest.raises(NotFound):
            await world.streams.subscribe(client, wanted)
        assert not client.streams
    assert outlet is not None
    await world.send(ann, group["id"], "among ourselves")
    world.hub.flush()
    assert outlet.data("message.created") == []
    assert lost not in client.streams


async def test_a_group_and_a_channel_have_room_for_so_many(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_GROUP_MEMBERS", 2)
    monkeypatch.setattr(members, "MAX_CHANNEL_MEMBERS", 2)
    ann, bob, eve = world.user("ann"), world.user("bob"), world.user("eve")
    group, channel = await world.open(ann, bob), await world.open(ann, bob, kind=Kind.CHANNEL)
    with pytest.raises(TooLarge):
        await world.members.add(ann, group["id"], "eve")
    with pytest.raises(TooLarge):
        await world.members.join(eve, channel["id"])
    assert (await world.members.add(ann, group["id"], "bob"))["id"] == group["id"]
    assert (await world.members.join(bob, channel["id"]))["id"] == channel["id"]


async def test_who_may_not_add_anybody_is_told_nothing_else(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_GROUP_MEMBERS", 2)
    monkeypatch.setattr(members, "MAX_CHANNEL_MEMBERS", 2)
    ann, bob = world.user("ann"), world.user("bob")
    stranger, cy = world.user("eve"), world.user("cy")
    group, channel = await world.open(ann, bob), await world.open(ann, bob, kind=Kind.CHANNEL)
    full = (group["id"], channel["id"])
    monkeypatch.setattr("domain.messaging.conversations.MAX_CONVERSATIONS", 0)
    for conversation in full:
        for user in (cy.user, ann.user, "nobody"):
            with pytest.raises(Forbidden):
                await world.members.add(bob, conversation, user)
    with pytest.raises(NotFound, match="conversation"):
        await world.members.add(stranger, group["id"], "nobody")


async def test_a_user_is_in_so_many_conversations(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.messaging.conversations.MAX_CONVERSATIONS", 2)
    ann, bob = world.user("ann"), world.user("bob")
    direct = await world.open(bob, ann, kind=Kind.DIRECT)
    first = await world.conversations.create(
        bob, kind=Kind.GROUP, members=[], title=None, client_id="k"
    )
    channel = await world.open(ann, kind=Kind.CHANNEL)
    for refused in (
        world.open(bob),
        world.members.join(bob, channel["id"]),
        world.members.add(ann, channel["id"], "bob"),
    ):
        with pytest.raises(TooLarge):
            await refused
    # What is there already is answered.
    again = await world.conversations.create(
        bob, kind=Kind.GROUP, members=[], title=None, client_id="k"
    )
    assert again["id"] == first["id"]
    assert (await world.open(bob, ann, kind=Kind.DIRECT))["id"] == direct["id"]
    assert (await world.members.add(bob, first["id"], "bob"))["id"] == first["id"]
    await world.members.leave(bob, first["id"])
    await world.members.join(bob, channel["id"])
    with pytest.raises(TooLarge):
        await world.open(world.user("eve"), bob)
