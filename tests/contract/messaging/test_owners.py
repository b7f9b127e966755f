"""A group has an active owner for as long as anybody active is in it, whoever goes at once."""

import asyncio

import pytest

from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.events import Actor
from domain.messaging.conversations import CONVERSATION_CREATED, Kind
from domain.principals import Principal, Role
from store.engine import Append, Collection, Index, Insert, NewEvent
from store.messaging.conversations import CONVERSATIONS, add_member
from tests.support.local import TurnedClock
from tests.support.messaging import COLLECTIONS, MessagingWorld
from tests.support.stores import AT, Stores

OLD_MEMBERS = Collection(
    "members", indexes=(Index(("user", "conversation")), Index(("conversation", "joined_at")))
)
"""As they were declared when a conversation had one owner."""


@pytest.fixture
async def world(stores: Stores) -> MessagingWorld:
    return MessagingWorld(await stores.start(COLLECTIONS), TurnedClock())


async def roles(world: MessagingWorld, conversation: str) -> dict[str, str]:
    found = await world.conversation_store.members("org", conversation)
    return {each["user"]: each["role"] for each in found}


async def owners(world: MessagingWorld, conversation: str) -> list[str]:
    """Who they are; their number is right."""
    found = sorted(k for k, role in (await roles(world, conversation)).items() if role == "owner")
    doc = await world.conversation_store.get("org", conversation)
    assert doc is not None
    assert doc["owners"] == len(found)
    return found


async def disable(world: MessagingWorld, who: Principal) -> None:
    await world.handovers.begin("org", who.user)
    world.people.users["org"].remove(who.user)
    await world.handovers.finish()


async def test_several_owners(world: MessagingWorld) -> None:
    ann, bob, cy = (world.user(each) for each in ("ann", "bob", "cy"))
    id = (await world.open(ann, bob, cy))["id"]
    _, outlet = await world.connect(cy)
    for who in (bob, cy):
        with pytest.raises(Forbidden):
            await world.roles.update(who, id, "bob", "owner")
    answered = await world.roles.update(ann, id, "bob", "owner")
    assert {each["user"]: each["role"] for each in answered["members"]} == {
        "ann": "owner",
        "bob": "owner",
        "cy": "member",
    }
    assert await world.roles.update(ann, id, "bob", "owner") == answered
    world.hub.flush()
    assert outlet.data("member.updated") == [{"conversation": id, "user": "bob", "role": "owner"}]
    await world.conversations.update(bob, id, {"title": "ours"})
    # Who is not the last one leaves without an heir.
    await world.members.leave(ann, id)
    assert await owners(world, id) == ["bob"]
    with pytest.raises(Conflict):
        await world.roles.update(bob, id, "bob", "member")
    await world.roles.update(bob, id, "cy", "owner")
    await world.roles.update(cy, id, "bob", "member")
    assert await owners(world, id) == ["cy"]
    with pytest.raises(Forbidden):
        await world.roles.update(bob, id, "bob", "owner")
    for who, user in ((ann, "ann"), (cy, "ann"), (cy, "nobody"), (world.user("eve"), "cy")):
        with pytest.raises(NotFound):
            await world.roles.update(who, id, user, "owner")
    direct = await world.open(ann, bob, kind=Kind.DIRECT)
    with pytest.raises(Invalid):
        await world.roles.update(ann, direct["id"], "bob", "owner")


async def test_heirs_are_active(world: MessagingWorld) -> None:
    ann, bob, cy, dan = (world.user(each) for each in ("ann", "bob", "cy", "dan"))
    id = (await world.open(ann))["id"]
    for who in (bob, cy, dan):
        world.clock.turn(1)
        await world.members.add(ann, id, who.user)
    await disable(world, bob)
    with pytest.raises(Conflict):
        await world.roles.update(ann, id, "bob", "owner")
    await world.members.leave(ann, id)
    assert await owners(world, id) == ["cy"]
    # Only disabled ones are left: the one who has been in it longest has it when let in again.
    await disable(world, dan)
    await world.members.leave(cy, id)
    assert await owners(world, id) == ["bob"]


@pytest.mark.parametrize("kind", [Kind.GROUP, Kind.CHANNEL])
async def test_who_is_disabled_hands_over(world: MessagingWorld, kind: Kind) -> None:
    ann, bob, cy = (world.user(each) for each in ("ann", "bob", "cy"))
    id = (await world.open(ann, bob, kind=kind))["id"]
    both = (await world.open(ann, bob, cy, kind=kind))["id"]
    alone = (await world.open(ann, kind=kind))["id"]
    await world.roles.update(ann, both, "cy", "owner")
    _, outlet = await world.connect(bob)
    await disable(world, ann)
    world.hub.flush()
    told = [
        (each["conversation"], each["user"], each["role"]) for each in outlet.data("member.updated")
    ]
    assert sorted(told) == sorted(
        [(id, "bob", "owner"), (id, "ann", "member"), (both, "ann", "member")]
    )
    assert await owners(world, id) == ["bob"]
    assert await owners(world, both) == ["cy"]
    assert await owners(world, alone) == ["ann"]
    assert await world.handovers.finish() == 0


async def test_what_a_crash_left_is_handed_over_by_the_job(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    id = (await world.open(ann, bob))["id"]
    await world.handovers.begin("org", "ann")
    # Not disabled yet; it may come.
    assert await world.handovers.finish() == 0
    world.people.users["org"].remove("ann")
    assert await world.handovers.finish() == 1
    assert await owners(world, id) == ["bob"]
    await world.handovers.begin("org", "bob")
    world.clock.turn(61)
    assert await world.handovers.finish() == 0
    # It did not come, so it is forgotten.
    world.people.users["org"].remove("bob")
    world.people.users["org"].add("ann")
    assert await world.handovers.finish() == 0
    assert await owners(world, id) == ["bob"]


async def test_an_agents_end_is_foreseen(world: MessagingWorld) -> None:
    agent, bob = world.user("agent"), world.user("bob")
    id = (await world.open(agent, bob))["id"]
    await world.handovers.begin("org", "agent", world.clock.now() + 100)
    world.people.users["org"].remove("agent")
    world.clock.turn(99)
    assert await world.handovers.finish() == 0
    world.clock.turn(2)
    assert await world.handovers.finish() == 1
    assert await owners(world, id) == ["bob"]


async def test_administrators_take_over_orphans_only(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    chief, eve = world.user("chief", Role.ADMIN), world.user("eve")
    id = (await world.open(ann, bob))["id"]
    for user in ("chief", "bob"):
        with pytest.raises(NotFound):
            await world.roles.update(chief, id, user, "owner")
    await disable(world, bob)
    await disable(world, ann)
    for user in ("chief", "eve", "ann"):
        with pytest.raises(NotFound):
            await world.roles.update(eve, id, user, "owner")
    for user, role in (("eve", "owner"), ("chief", "member")):
        with pytest.raises(NotFound):
            await world.roles.update(chief, id, user, role)  # type: ignore[arg-type]
    _, outlet = await world.connect(chief)
    found = await world.roles.update(chief, id, "chief", "owner")
    assert [each["user"] for each in found["members"]] == ["ann", "bob", "chief"]
    await world.send(chief, id, "taken over")
    world.hub.flush()
    assert [name for name, _ in outlet.received[1:]] == ["member.added", "message.created"]
    assert await owners(world, id) == ["ann", "chief"]
    # It is no orphan any more.
    other = world.user("other", Role.ADMIN)
    with pytest.raises(NotFound):
        await world.roles.update(other, id, "other", "owner")


async def test_what_is_there_since_a_conversation_had_one_owner(stores: Stores) -> None:
    old = [OLD_MEMBERS if each.name == "members" else each for each in COLLECTIONS]
    engine = await stores.start(old)
    for id, owner in (("group", "ann"), ("orphan", "gone"), ("empty", None)):
        people = {"ann": "member", "bob": "member"} | ({owner: "owner"} if owner else {})
        doc = {
            "id": id,
            "kind": "channel" if owner is None else "group",
            "title": None,
            "topic": None,
            "created_at": AT,
            "created_by": "ann",
            "owner": owner,
            "size": len(people) if owner else 0,
        }
        members = [add_member(id, *each, AT) for each in people.items()] if owner else []
        await engine.append(
            Append(
                "org",
                f"messages/{id}",
                Actor("ann"),
                AT,
                [NewEvent(CONVERSATION_CREATED.name, {})],
                [
                    Insert(CONVERSATIONS, doc),
                    *(each._replace(collection=OLD_MEMBERS) for each in members),
                ],
            )
        )
    await engine.stop()
    world = MessagingWorld(await stores.start(COLLECTIONS), TurnedClock())
    ann, bob, chief = world.user("ann"), world.user("bob"), world.user("chief", Role.ADMIN)
    await world.conversations.update(ann, "group", {"title": "still mine"})
    with pytest.raises(Conflict):
        await world.roles.update(ann, "group", "ann", "member")
    await world.roles.update(ann, "group", "bob", "owner")
    assert await owners(world, "group") == ["ann", "bob"]
    await world.members.leave(ann, "group")
    assert await owners(world, "group") == ["bob"]
    await world.roles.update(chief, "orphan", "bob", "owner")
    assert await owners(world, "orphan") == ["bob", "gone"]
    await world.members.leave(bob, "orphan")
    # The disabled one stays an owner, and the active member becomes one.
    assert await owners(world, "orphan") == ["ann", "gone"]
    await world.members.join(bob, "empty")
    assert await owners(world, "empty") == ["bob"]


@pytest.mark.parametrize(
    "how", ["demote", "leave", "disable", "disable_both", "demote_each_other", "remove_each_other"]
)
async def test_two_owners_who_go_at_once_leave_one(stores: Stores, how: str) -> None:
    engine = await stores.start(COLLECTIONS)
    one = MessagingWorld(engine, TurnedClock())
    two = MessagingWorld(await stores.start(COLLECTIONS), TurnedClock()) if engine.shared else one
    two.people.users = one.people.users

    async def go(node: MessagingWorld, who: Principal, id: str, other: str) -> None:
        try:
            if how == "demote":
                await node.roles.update(who, id, who.user, "member")
            elif how == "demote_each_other":
                await node.roles.update(who, id, other, "member")
            elif how == "remove_each_other":
                await node.members.remove(who, id, other)
            elif how == "disable_both":
                await disable(node, who)
            elif how == "leave" or who.user.startswith("bob"):
                await node.members.leave(who, id)
            else:
                await disable(node, who)
        except (Conflict, Forbidden, NotFound):
            pass

    for number in range(10):
        ann, bob, cy = (one.user(f"{each}{number}") for each in ("ann", "bob", "cy"))
        id = (await one.open(ann, bob, cy))["id"]
        await one.roles.update(ann, id, bob.user, "owner")
        await asyncio.gather(go(one, ann, id, bob.user), go(two, bob, id, ann.user))
        left = await owners(one, id)
        assert set(left) & one.people.users["org"], left
