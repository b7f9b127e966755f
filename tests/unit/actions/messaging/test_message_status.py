"""What a message's `status` waits for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actions.messaging import message_views
from domain.messaging.conversations import Kind
from tests.support.counting import CountingWorld, counting_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CountingWorld]:
    async with counting_world(tmp_path) as found:
        yield found


async def test_it_does_not_wait_for_who_is_disabled(world: CountingWorld) -> None:
    ann, bob, *others = [world.user(name) for name in ("ann", "bob", "c", "d", "e", "f")]
    assert len(others) > message_views.LOOKED_AT
    room = (await world.open(ann, bob, *others))["id"]
    old = await world.send(ann, room, "old")
    new = await world.send(ann, room, "new")

    async def status() -> list[str]:
        return [each["status"] for each in (await world.page(ann, room))["items"]]

    await world.moves.move(bob, room, "read", new["seq"])
    await world.moves.move(others[0], room, "read", old["seq"])
    await world.moves.move(others[0], room, "delivered", new["seq"])
    assert await status() == ["sent", "sent"]
    for each in others[1:]:
        world.people.users["org"].remove(each.user)
    assert await status() == ["read", "delivered"]
    [listed] = await world.mine(ann)
    assert listed["last_message"] is not None
    assert listed["last_message"]["status"] == "delivered"
    # Who comes back is waited for again.
    world.user("f")
    assert await status() == ["sent", "sent"]


async def test_it_stays_as_it_was_where_nobody_else_is_left(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob, kind=Kind.DIRECT))["id"]
    old = await world.send(ann, room, "old")
    await world.moves.move(bob, room, "read", old["seq"])
    await world.send(ann, room, "new")
    world.people.users["org"].remove("bob")
    page = await world.page(ann, room)
    assert [each["status"] for each in page["items"]] == ["read", "sent"]
