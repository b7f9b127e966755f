"""What a user has not read is right, on all devices, whatever happens in whatever order."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actions.streams.streams import Position
from domain.errors import Invalid
from domain.messaging.conversations import Kind, stream_of
from domain.messaging.unread import UNREAD_INTERVAL
from store.messaging.unread import UnreadRepository
from tests.support.counting import EVENTS, CountingWorld, counting_world, until
from tests.support.local import LocalOutlet, local_client


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CountingWorld]:
    async with counting_world(tmp_path) as found:
        yield found


def last(outlet: LocalOutlet, conversation: str) -> Any:
    told = [
        (data["unread"], data["mentions"], data["total"])
        for data in outlet.data("unread.updated")
        if data["conversation"] == conversation
    ]
    return told[-1] if told else None


async def test_messages_of_others_count_until_they_are_read(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    _, phone = await world.connect(bob)
    _, desk = await world.connect(bob)
    await world.send(ann, room, "one")
    await until(lambda: last(phone, room) == (1, 0, 1))
    second = await world.send(ann, room, "two", mentions=["bob"])
    await world.send(bob, room, "my own")
    await until(lambda: last(phone, room) == last(desk, room) == (2, 1, 2))
    assert await world.unread_of(bob, room) == (2, 1)
    assert await world.unread_of(ann, room) == (1, 0)
    await world.moves.move(bob, room, "read", second["seq"])
    await until(lambda: last(phone, room) == last(desk, room) == (0, 0, 0))


async def test_reading_to_the_middle_leaves_the_rest(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    sent = [await world.send(ann, room, f"m{n}") for n in range(5)]
    _, at_bob = await world.connect(bob)
    await world.moves.move(bob, room, "read", sent[1]["seq"])
    await until(lambda: last(at_bob, room) == (3, 0, 3))
    sent.append(await world.send(ann, room, "m5"))
    await world.moves.move(bob, room, "read", sent[4]["seq"])
    await until(lambda: last(at_bob, room) == (1, 0, 1))


async def test_the_total_is_over_all_conversations(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    one, two = [(await world.open(ann, bob))["id"] for _ in range(2)]
    for room in (one, one, two):
        await world.send(ann, room, "x")
    _, at_bob = await world.connect(bob)
    await world.send(ann, two, "y")
    await until(lambda: last(at_bob, two) == (2, 0, 4))
    await world.moves.move(bob, one, "read", 10**9)
    await until(lambda: last(at_bob, one) == (0, 0, 2))


def at_ready(outlet: LocalOutlet) -> Any:
    return next(told for name, told in outlet.received if name == "ready")["unread"]


async def test_ready_tells_what_is_unread_and_who_asks_is_told_the_same(
    world: CountingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    one, two = [(await world.open(ann, bob))["id"] for _ in range(2)]
    sent = await world.send(ann, one, "x", mentions=["bob"])
    await world.send(ann, two, "y")
    client, phone = await world.connect(bob)
    assert at_ready(phone) == {"total": 2, "mentions": 1, "more": False}
    assert await world.totals.get("org", "bob") == at_ready(phone)
    assert world.counts.kept == (0, 0)
    # From what is kept, too.
    await world.send(ann, two, "z")
    await until(lambda: last(phone, two) == (2, 0, 3))
    _, desk = await world.connect(bob)
    assert at_ready(desk) == {"total": 3, "mentions": 1, "more": False}
    await world.moves.move(bob, one, "read", sent["seq"])
    assert await world.totals.get("org", "bob") == {"total": 2, "mentions": 0, "more": False}
    await world.part(client)


async def test_what_comes_while_one_comes_is_told_after_ready(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    at_once = world.totals.at_ready

    async def late(client: Any) -> Any:
        found = await at_once(client)
        await world.send(ann, room, "x")
        return found

    world.totals.at_ready = late  # type: ignore[method-assign]
    _, at_bob = await world.connect(bob)
    assert at_ready(at_bob)["total"] == 0
    await until(lambda: last(at_bob, room) == (1, 0, 1))


@pytest.mark.parametrize("setting", ["muted", "archived"])
async def test_the_total_leaves_out_what_is_muted_or_archived(
    world: CountingWorld, setting: str
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    quiet, loud = [(await world.open(ann, bob))["id"] for _ in range(2)]
    for room in (quiet, loud):
        await world.send(ann, room, "x", mentions=["bob"])
    _, at_bob = await world.connect(bob)
    assert at_ready(at_bob)["total"] == 2
    await world.conversations.update(bob, quiet, {setting: True})
    await until(lambda: last(at_bob, quiet) == (1, 1, 1))
    await world.send(ann, quiet, "y")
    await until(lambda: last(at_bob, quiet) == (2, 1, 1))
    _, again = await world.connect(bob)
    assert at_ready(again) == {"total": 1, "mentions": 1, "more": False}
    assert await world.totals.get("org", "bob") == at_ready(again)
    await world.conversations.update(bob, quiet, {setting: False})
    await until(lambda: last(at_bob, quiet) == (2, 1, 3))


async def test_the_total_is_told_though_the_count_is_what_it_was(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    one, other = [(await world.open(ann, bob, kind=Kind.GROUP))["id"] for _ in range(2)]
    _, at_bob = await world.connect(bob)
    first = await world.send(ann, one, "first")
    await until(lambda: last(at_bob, one) == (1, 0, 1))
    # Within a second of that nothing more is told of this conversation.
    await world.messages.delete(ann, first["id"])
    await world.send(ann, other, "elsewhere")
    await until(lambda: last(at_bob, other) is not None)
    await world.send(ann, one, "second")
    await until(lambda: at_bob.data("unread.updated")[-1]["total"] == 2)
    assert (last(at_bob, one)[0], last(at_bob, other)[0]) == (1, 1)


@pytest.mark.parametrize("here", [True, False])
async def test_a_deleted_message_does_not_count(world: CountingWorld, here: bool) -> None:
    """Whether one was here when it was sent, and what it says is known, or has come since."""
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    if here:
        _, at_bob = await world.connect(bob)
    first = await world.send(ann, room, "one", mentions=["bob"])
    await world.send(ann, room, "two")
    if not here:
        client, at_bob = await world.connect(bob)
        world.counts.resend(client, [room])
    await until(lambda: last(at_bob, room) == (2, 1, 2))
    await world.messages.delete(ann, first["id"])
    await world.messages.delete(ann, first["id"])
    await until(lambda: last(at_bob, room) == (1, 0, 1))
    assert await world.unread_of(bob, room) == await world.recount(bob, room) == (1, 0)


async def test_what_one_deletes_for_oneself_counts_no_more(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    sent = [await world.send(ann, room, f"m{n}", mentions=["bob"]) for n in range(3)]
    await world.messages.hide(bob, sent[0]["id"])
    assert await world.unread_of(bob, room) == (2, 2)
    _, at_bob = await world.connect(bob)
    assert at_ready(at_bob) == {"total": 2, "mentions": 2, "more": False}
    await world.messages.hide(bob, sent[2]["id"])
    await until(lambda: last(at_bob, room) == (1, 1, 1))
    # What is kept in memory knows of it too.
    await world.messages.delete(ann, sent[2]["id"])
    newest = await world.send(ann, room, "m3")
    await until(lambda: last(at_bob, room) == (2, 1, 2))
    await world.moves.move(bob, room, "read", sent[0]["seq"])
    assert await world.unread_of(bob, room) == (2, 1)
    await world.moves.move(bob, room, "read", newest["seq"])
    assert await world.unread_of(bob, room) == (0, 0)


async def test_the_end_of_counting_leaves_out_what_one_has_deleted(
    world: CountingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.messaging.unread.COUNTED", 4)
    monkeypatch.setattr("store.messaging.unread.READ_EACH", 2)
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    sent = [await world.send(ann, room, f"m{n}", mentions=["bob"]) for n in range(6)]
    assert await world.unread_of(bob, room) == (4, 4)
    for message in sent[:3]:
        await world.messages.hide(bob, message["id"])
    assert await world.unread_of(bob, room) == (3, 3)
    assert await world.unread_of(ann, room) == (0, 0)


async def test_what_was_said_before_one_came_does_not_count(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, kind=Kind.CHANNEL))["id"]
    await world.send(ann, room, "before")
    _, at_bob = await world.connect(bob)
    await world.members.join(bob, room)
    assert await world.unread_of(bob, room) == (0, 0)
    await world.send(ann, room, "after")
    await until(lambda: last(at_bob, room) == (1, 0, 1))


async def test_who_leaves_a_conversation_owes_it_nothing(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room, other = [(await world.open(ann, bob))["id"] for _ in range(2)]
    _, at_bob = await world.connect(bob)
    await world.send(ann, room, "x")
    await world.send(ann, other, "x")
    await until(lambda: last(at_bob, room) and last(at_bob, other))
    await world.members.leave(bob, room)
    await until(lambda: last(at_bob, room) == (0, 0, 1))


async def test_who_comes_back_is_told_where_things_stand(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room, quiet = [(await world.open(ann, bob))["id"] for _ in range(2)]
    client, _ = await world.connect(bob)
    await world.part(client)
    await world.send(ann, room, "while away", mentions=["bob"])
    resume = {stream_of(each): Position("", 0) for each in (room, quiet)}
    _, at_bob = await world.connect(bob, resume)
    await until(lambda: last(at_bob, room) == (1, 1, 1))
    await until(lambda: last(at_bob, quiet) == (0, 0, 1))


async def test_nothing_is_kept_of_who_is_not_connected(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    client, at_bob = await world.connect(bob)
    assert world.counts.kept == (0, 0)
    await world.send(ann, room, "x")
    await until(lambda: last(at_bob, room))
    assert world.counts.kept == (1, 1)
    await world.part(client)
    assert world.counts.kept == (0, 0)
    await world.send(ann, room, "y")
    assert world.counts.kept == (0, 0)


async def test_what_was_counted_before_it_was_told_is_told(world: CountingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    busy = (await world.open(ann, bob, cy))["id"]
    room = (await world.open(ann, bob))["id"]
    _, at_cy = await world.connect(cy)
    await world.send(ann, busy, "x")
    await until(lambda: last(at_cy, busy))
    # The busy one rests now, and the other makes all of Bob's be counted, this message included.
    _, at_bob = await world.connect(bob)
    await world.send(ann, busy, "y")
    await world.send(ann, room, "z")
    await until(lambda: last(at_bob, room))
    await until(lambda: last(at_bob, busy) == (2, 0, 3))


async def test_what_is_read_while_counts_are_made_again_and_again_is_told(
    world: CountingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    _, at_bob = await world.connect(bob)
    message = await world.send(ann, room, "x")
    await until(lambda: last(at_bob, room) == (1, 0, 1))
    world.counts.recount_of("bob")
    await asyncio.sleep(0)
    world.counts.recount_of("bob")
    await world.moves.move(bob, room, "read", message["seq"])
    await until(lambda: last(at_bob, room) == (0, 0, 0))


async def test_a_device_is_told_nothing_before_it_is_ready(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    _, phone = await world.connect(bob)
    coming, tablet = local_client(bob, events=EVENTS)
    world.clients.add(coming)
    await world.send(ann, room, "x")
    await until(lambda: last(phone, room) == (1, 0, 1))
    assert last(tablet, room) is None


async def test_many_messages_make_few_events(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    _, at_bob = await world.connect(bob)
    started = time.monotonic()
    for number in range(100):
        await world.send(ann, room, f"m{number}")
    await until(lambda: last(at_bob, room) == (100, 0, 100))
    most = 2 + (time.monotonic() - started) / UNREAD_INTERVAL
    assert len(at_bob.data("unread.updated")) <= most


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_the_counts_are_those_of_the_store(
    world: CountingWorld, seed: int
) -> None:
    """Random sending, reading, deleting, coming and going, against a count of all messages."""
    chance = random.Random(seed)
    users = [world.user(name) for name in ("ann", "bob", "cy", "di")]
    rooms = [(await world.open(users[0], *users[1:]))["id"] for _ in range(3)]
    here: list[Any] = []
    sent: list[Any] = []

    async def act() -> None:
        who, room, step = chance.choice(users), chance.choice(rooms), chance.random()
        if step < 0.45:
            mentions = [each.user for each in users if chance.random() < 0.2]
            sent.append(await world.send(who, room, "x", mentions=mentions))
        elif step < 0.7 and sent:
            seq = max(chance.choice(sent)["seq"] + chance.randint(-1, 1), 0)
            await world.moves.move(who, room, chance.choice(("read", "delivered")), seq)
        elif step < 0.8 and sent:
            gone = sent.pop(chance.randrange(len(sent)))
            sender = next(each for each in users if each.user == gone["sender"])
            await world.messages.delete(sender, gone["id"])
        elif step < 0.9:
            here.append((who, *await world.connect(who)))
        elif here:
            await world.part(here.pop(chance.randrange(len(here)))[1])

    for _ in range(60):
        await asyncio.gather(*(act() for _ in range(chance.randint(1, 8))))
        who, room = chance.choice(users), chance.choice(rooms)
        assert await world.unread_of(who, room) == await world.recount(who, room)
    expected = {(who.user, room): await world.recount(who, room) for who in users for room in rooms}
    for who in users:
        for room in rooms:
            assert await world.unread_of(who, room) == expected[who.user, room]
    for who, _, outlet in here:
        for room in rooms:
            if last(outlet, room) is not None:
                await until(
                    lambda w=who, o=outlet, r=room: last(o, r)[:2] == expected[w.user, r]  # type: ignore[misc]
                )


async def test_a_count_ends_at_a_bound_and_is_right_again_below_it(
    world: CountingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.messaging.unread.MAX_UNREAD", 3)
    monkeypatch.setattr("store.messaging.unread.COUNTED", 4)
    monkeypatch.setattr("actions.messaging.unread_counts.COUNTED", 4)
    monkeypatch.setattr("store.messaging.unread.READ_EACH", 0)
    ann, bob = world.user("ann"), world.user("bob")
    one, two = [(await world.open(ann, bob))["id"] for _ in range(2)]
    sent = [await world.send(ann, one, f"m{n}") for n in range(6)]
    await world.send(ann, two, "x")
    _, at_bob = await world.connect(bob)

    def told() -> Any:
        found = [each for each in at_bob.data("unread.updated") if each["conversation"] == one]
        return (found[-1]["unread"], found[-1]["more"], found[-1]["total"]) if found else None

    sent.append(await world.send(ann, one, "m6"))
    await until(lambda: told() == (3, True, 4))
    counts = (await world.counts.counts("org", "bob", [one]))[one]
    assert (counts.shown, counts.more) == (3, True)
    for each in sent[:3]:
        await world.messages.delete(ann, each["id"])
    await until(lambda: told() == (3, True, 4))
    await world.messages.delete(ann, sent[3]["id"])
    await until(lambda: told() == (3, False, 4))
    await world.moves.move(bob, one, "read", sent[5]["seq"])
    await until(lambda: told() == (1, False, 2))


async def test_mentions_follow_edits(world: CountingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    world.user("dan")
    room = (await world.open(ann, bob, cy))["id"]
    old = await world.send(ann, room, "m", mentions=["bob"])
    assert await world.unread_of(cy, room) == (1, 0)
    (_, at_bob), (_, at_cy) = await world.connect(bob), await world.connect(cy)
    new = await world.send(ann, room, "n", mentions=["cy"])
    await until(lambda: last(at_bob, room) == (2, 1, 2) and last(at_cy, room) == (2, 1, 2))
    # One that is kept in memory, and one that is not.
    edited = await world.messages.edit(ann, new["id"], "n!", 1, ["bob", "ann"])
    assert edited["mentions"] == ["bob", "ann"]
    await until(lambda: last(at_bob, room) == (2, 2, 2) and last(at_cy, room) == (2, 0, 2))
    assert await world.messages.edit(ann, new["id"], "n!", 1, ["bob", "ann"]) == edited
    await world.messages.edit(ann, old["id"], "m!", 1, ["cy"])
    await until(lambda: last(at_bob, room) == (2, 1, 2) and last(at_cy, room) == (2, 1, 2))
    # Left out they stay; who is not there cannot be mentioned.
    assert (await world.messages.edit(ann, old["id"], "m?", 2))["mentions"] == ["cy"]
    with pytest.raises(Invalid) as refused:
        await world.messages.edit(ann, old["id"], "m?", 3, ["dan"])
    assert refused.value.errors[0]["field"] == "mentions"
    # Counted from the store as in memory, and where it stands now.
    for who, mentions in ((bob, 1), (cy, 1), (ann, 0)):
        unread = 0 if who is ann else 2
        assert await world.recount(who, room) == (unread, mentions)
        assert await world.unread_of(who, room) == (unread, mentions)
    await world.moves.move(cy, room, "read", old["seq"])
    await until(lambda: last(at_cy, room) == (1, 0, 1))
    await world.moves.move(bob, room, "read", old["seq"])
    await until(lambda: last(at_bob, room) == (1, 1, 1))


@pytest.mark.parametrize("kind", [Kind.GROUP, Kind.CHANNEL])
@pytest.mark.parametrize("how", ["leave", "delete"])
async def test_the_total_is_told_without_what_one_is_in_no_more(
    world: CountingWorld, how: str, kind: Kind
) -> None:
    """Also to who was told nothing but the total, with `ready`."""
    ann, bob = world.user("ann"), world.user("bob")
    gone, other = [(await world.open(ann, bob, kind=kind))["id"] for _ in range(2)]
    for id in (gone, gone, other):
        await world.send(ann, id, "hello")
    _, outlet = await world.connect(bob)
    if how == "leave":
        await world.members.leave(bob, gone)
    else:
        await world.deletions.delete(ann, gone)

    def told() -> list[Any]:
        world.hub.flush()
        return outlet.data("unread.updated")

    await until(lambda: told() and told()[-1]["total"] == 1)
    assert (told()[-1]["conversation"], told()[-1]["unread"]) == (gone, 0)
    # What is known by now is told at once.
    await world.send(ann, other, "more")
    await until(lambda: told()[-1]["total"] == 2)
    await world.members.leave(bob, other)
    assert (told()[-1]["conversation"], told()[-1]["total"]) == (other, 0)


async def test_the_total_is_told_to_who_was_put_out_while_it_was_counted(
    world: CountingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    gone, other = [(await world.open(ann, bob, kind=Kind.CHANNEL))["id"] for _ in range(2)]
    for id in (gone, gone, other):
        await world.send(ann, id, "hello")
    _, outlet = await world.connect(bob)
    count, counted, go_on = UnreadRepository.count, asyncio.Event(), asyncio.Event()

    async def slow(self: UnreadRepository, org: str, pairs: Any) -> Any:
        found = await count(self, org, pairs)
        counted.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(UnreadRepository, "count", slow)
    world.counts.recount("org", "bob", gone)
    await counted.wait()
    await world.deletions.delete(ann, gone)
    go_on.set()

    def told() -> Any:
        world.hub.flush()
        return last(outlet, gone)

    await until(lambda: told() == (0, 0, 1))
