"""Strangers put somebody into conversations now and then, and never as many as there may be."""

import asyncio

import pytest

from actions.messaging.strangers import BUCKET
from domain.errors import ParleyError, RateLimited, TooLarge
from domain.messaging.conversations import Kind
from domain.principals import Role
from store.accounts.contacts import CONTACTS
from tests.support import messaging
from tests.support.local import TurnedClock
from tests.support.messaging import COLLECTIONS, MessagingWorld
from tests.support.stores import Stores

MOST = 3


@pytest.fixture
async def world(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> MessagingWorld:
    monkeypatch.setattr(messaging, "STRANGERS", (MOST, 3600.0))
    return MessagingWorld(await stores.start(COLLECTIONS), TurnedClock())


async def test_strangers_add_somebody_so_often_and_no_more(world: MessagingWorld) -> None:
    ann, bob, eve, mal = (world.user(each) for each in ("ann", "bob", "eve", "mal"))
    mine = (await world.open(eve))["id"]
    for _ in range(2):
        await world.open(eve, ann, bob)
    await world.members.add(eve, mine, "ann")
    # Who is in it already is not put in again, and what is refused does not count.
    await world.members.add(eve, mine, "ann")
    other = (await world.open(mal))["id"]
    for _ in range(3):
        # It is the same whichever stranger asks, and though one shares groups with ann by now.
        for attempt in (
            world.open(eve, bob, ann),
            world.open(mal, ann, kind=Kind.CHANNEL),
            world.members.add(mal, other, "ann"),
        ):
            with pytest.raises(RateLimited) as refused:
                await attempt
            assert 0 < refused.value.retry_after <= 3600
            assert "ann" in refused.value.message
    assert len(await world.mine(ann)) == 3
    await world.open(mal, bob)
    with pytest.raises(RateLimited):
        await world.open(mal, bob)
    # Directs, joining, and those who are known, are as before.
    await world.open(eve, ann, kind=Kind.DIRECT)
    channel = (await world.open(eve, kind=Kind.CHANNEL))["id"]
    await world.members.join(ann, channel)
    await world.members.add(world.user("chief", Role.ADMIN), channel, "bob")
    world.clock.turn(3600 / MOST)
    await world.open(eve, ann)
    with pytest.raises(RateLimited):
        await world.open(eve, ann)


async def test_whom_a_user_knows(world: MessagingWorld) -> None:
    ann, bob, cy, dan, eve = (world.user(each) for each in ("ann", "bob", "cy", "dan", "eve"))
    for _ in range(MOST):
        await world.open(eve, ann)
    for who in (bob, cy, dan):
        with pytest.raises(RateLimited):
            await world.open(who, ann)
    contact = {"id": "ann:bob", "owner": "ann", "user": "bob", "added_at": ""}
    await world.engine.insert("org", CONTACTS, contact)
    await world.open(ann, cy, kind=Kind.DIRECT)
    direct = (await world.open(dan, ann, kind=Kind.DIRECT))["id"]
    await world.send(dan, direct, "let me add you")
    with pytest.raises(RateLimited):
        await world.open(dan, ann)
    await world.send(ann, direct, "do")
    for who in (bob, cy, dan):
        for _ in range(MOST + 1):
            await world.open(who, ann)
    # To have somebody among one's own contacts is nothing that this one said.
    contact = {"id": "eve:ann", "owner": "eve", "user": "ann", "added_at": ""}
    await world.engine.insert("org", CONTACTS, contact)
    with pytest.raises(RateLimited):
        await world.open(eve, ann)


async def test_a_list_is_not_filled_by_strangers(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actions.messaging.strangers.MAX_BY_STRANGERS", 2)
    ann, bob, eve = (world.user(each) for each in ("ann", "bob", "eve"))
    await world.open(ann, bob, kind=Kind.DIRECT)
    await world.open(eve, ann)
    for _ in range(MOST + 1):
        with pytest.raises(TooLarge) as refused:
            await world.open(eve, ann)
        assert refused.value.data == {"limit": 2, "user": "ann"}
    await world.open(bob, ann)
    await world.open(ann, eve)


async def test_many_at_once_and_retries_count_once(world: MessagingWorld) -> None:
    ann, eve = world.user("ann"), world.user("eve")

    async def create(client_id: str) -> str:
        try:
            found = await world.conversations.create(
                eve, kind=Kind.GROUP, members=["ann"], title=None, client_id=client_id
            )
        except ParleyError as error:
            return error.code
        return found["id"]

    first = await create("0")
    assert set(await asyncio.gather(*(create("0") for _ in range(10)))) == {first}
    done = await asyncio.gather(*(create(str(number)) for number in range(10)))
    assert done.count("rate_limited") == 10 - MOST
    assert len(await world.mine(ann)) == MOST
    # What failed inside gives back what it took.
    with pytest.raises(ParleyError):
        async with world.strangers.adding(eve, ["bob"]):
            raise ParleyError
    assert [await world.limiter.take(BUCKET, "bob") for _ in range(MOST)] == [0.0] * MOST


async def test_many_are_left_at_once(world: MessagingWorld) -> None:
    ann, bob, eve = (world.user(each) for each in ("ann", "bob", "eve"))
    mine = [(await world.open(ann, kind=Kind.CHANNEL))["id"] for _ in range(15)]
    for id in mine:
        await world.members.join(bob, id)
    direct = (await world.open(ann, eve, kind=Kind.DIRECT))["id"]
    theirs = (await world.open(eve))["id"]
    kept = (await world.open(ann))["id"]
    asked = [mine[0], direct, theirs, "nothing", *mine]
    left = (await world.members.leave_many(ann, asked))["items"]
    assert [each["conversation"] for each in left] == list(dict.fromkeys(asked))
    codes = {each["conversation"]: each["error"]["code"] for each in left if each["error"]}
    assert codes == {
        direct: "invalid",
        theirs: "not_found",
        "nothing": "not_found",
    }
    assert all(each["ok"] == (each["error"] is None) for each in left)
    assert {each["id"] for each in await world.mine(ann)} == {direct, kept}
    # It was left to somebody, each time.
    for id in mine:
        assert [each["user"] for each in await world.conversation_store.owners("org", id)] == [
            "bob"
        ]
