"""Positions only ever move forward, everybody hears of it, and a message's status is the first
move that covered it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from actions.messaging.receipts import INTERVAL
from actions.streams.retention import Retention
from actions.streams.streams import Position as StreamPosition
from domain.clock import timestamp
from domain.errors import Invalid, NotFound
from domain.messaging.conversations import Kind, stream_of
from domain.messaging.messages import Message
from domain.messaging.receipts import MemberStatus, ReceiptKind
from domain.principals import Principal
from store.messaging.receipts import RECEIPTS
from tests.support.counting import CountingWorld, counting_world, until
from tests.support.local import LocalOutlet

_STATUS: TypeAdapter[list[MemberStatus]] = TypeAdapter(list[MemberStatus])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CountingWorld]:
    async with counting_world(tmp_path) as found:
        yield found


async def status(world: CountingWorld, who: Principal, message: Message) -> dict[str, Any]:
    page = await world.moves.status(who, message["id"], cursor=None, limit=200)
    found = _STATUS.validate_python(page["items"], strict=True)
    return {each["user"]: (each["delivered_at"], each["read_at"]) for each in found}


def told(world: CountingWorld, outlet: LocalOutlet) -> list[tuple[str, int, int]]:
    world.hub.flush()
    return [
        (data["user"], data["delivered_seq"], data["read_seq"])
        for data in outlet.data("receipt.updated")
    ]


async def test_a_position_never_moves_back_nor_beyond_the_end(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    first, second = [await world.send(ann, room, text) for text in ("one", "two")]
    now = timestamp(world.clock.now())
    place = await world.moves.move(bob, room, "delivered", second["seq"])
    assert place == {
        "conversation": room,
        "user": "bob",
        "delivered_seq": second["seq"],
        "delivered_at": now,
        "read_seq": 0,
        "read_at": None,
    }
    world.clock.turn(5)
    assert await world.moves.move(bob, room, "delivered", first["seq"]) == place
    later = timestamp(world.clock.now())
    read = await world.moves.move(bob, room, "read", first["seq"])
    assert read == {**place, "read_seq": first["seq"], "read_at": later}
    beyond = await world.moves.move(bob, room, "read", 10**9)
    assert beyond["read_seq"] == beyond["delivered_seq"] == second["seq"]
    assert beyond["delivered_at"] == now


async def test_reading_delivers(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    sent = await world.send(ann, room, "one")
    place = await world.moves.move(bob, room, "read", sent["seq"])
    assert place["delivered_seq"] == place["read_seq"] == sent["seq"]
    now = timestamp(world.clock.now())
    assert await status(world, ann, sent) == {"bob": (now, now)}


async def test_devices_that_read_at_once_end_at_the_furthest(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    seqs = [(await world.send(ann, room, f"m{n}"))["seq"] for n in range(12)]
    places = await asyncio.gather(
        *(world.moves.move(bob, room, kind, seq) for seq in seqs for kind in ("delivered", "read"))
    )
    for place in places:
        assert place["read_seq"] <= place["delivered_seq"] <= seqs[-1]
    assert (await world.receipts.get("org", room, "bob"))["read_seq"] == seqs[-1]


async def test_a_message_has_the_times_of_the_first_moves_that_covered_it(
    world: CountingWorld,
) -> None:
    ann, bob, cy = [world.user(name) for name in ("ann", "bob", "cy")]
    room = (await world.open(ann, bob, cy))["id"]
    first, second, third = [await world.send(ann, room, text) for text in "abc"]
    times = []
    moves: list[tuple[ReceiptKind, Message]]
    moves = [("delivered", second), ("read", first), ("read", third)]
    for kind, message in moves:
        world.clock.turn(1)
        times.append(timestamp(world.clock.now()))
        await world.moves.mark(bob, message["id"], kind)
    assert (await status(world, ann, first))["bob"] == (times[0], times[1])
    assert (await status(world, ann, second))["bob"] == (times[0], times[2])
    assert (await status(world, ann, third))["bob"] == (times[2], times[2])
    assert (await status(world, bob, third))["cy"] == (None, None)
    assert (await world.page(ann, room))["items"][0]["status"] == "sent"
    await world.moves.mark(cy, third["id"], "read")
    assert (await world.page(ann, room))["items"][0]["status"] == "read"


async def test_status_comes_by_page(world: CountingWorld) -> None:
    ann = world.user("ann")
    others = [world.user(f"u{number}") for number in range(5)]
    room = (await world.open(ann, *others))["id"]
    sent = await world.send(ann, room, "x")
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await world.moves.status(ann, sent["id"], cursor=cursor, limit=2)
        found += [each["user"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(found) == sorted(each.user for each in others)
    with pytest.raises(Invalid):
        await world.moves.status(ann, sent["id"], cursor="nonsense", limit=2)


async def test_all_members_hear_of_it_newest_only(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    _, at_ann = await world.connect(ann)
    _, at_bob = await world.connect(bob)
    seqs = [(await world.send(ann, room, f"m{n}"))["seq"] for n in range(20)]
    started = time.monotonic()
    for seq in seqs:
        await world.moves.move(bob, room, "read", seq)
    end = ("bob", seqs[-1], seqs[-1])
    await until(lambda: end in told(world, at_ann) and end in told(world, at_bob))
    assert len(told(world, at_ann)) <= 2 + (time.monotonic() - started) / INTERVAL
    assert told(world, at_ann) == sorted(told(world, at_ann))
    envelope = next(each for name, each in at_ann.received if name == "receipt.updated")
    assert envelope["stream"] == stream_of(room)
    assert envelope["actor"] == {"id": "bob", "kind": "user"}


async def test_in_a_channel_only_the_own_devices_hear(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, kind=Kind.CHANNEL))["id"]
    await world.members.join(bob, room)
    _, at_ann = await world.connect(ann)
    _, phone = await world.connect(bob)
    _, desk = await world.connect(bob)
    sent = await world.send(ann, room, "x")
    await world.moves.move(bob, room, "read", sent["seq"])
    await until(lambda: told(world, phone) == told(world, desk) == [("bob", *[sent["seq"]] * 2)])
    assert told(world, at_ann) == []


async def test_who_comes_back_gets_the_current_positions(world: CountingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    sent = await world.send(ann, room, "x")
    await world.moves.move(bob, room, "read", sent["seq"])
    _, at_ann = await world.connect(ann, {stream_of(room): StreamPosition("", 0)})
    await until(lambda: told(world, at_ann) == [("bob", sent["seq"], sent["seq"])])
    _, fresh = await world.connect(ann)
    assert told(world, fresh) == []


async def test_who_is_put_out_after_coming_back_gets_none(world: CountingWorld) -> None:
    ann, bob, eve = [world.user(name) for name in ("ann", "bob", "eve")]
    room, other = [(await world.open(ann, bob, eve))["id"] for _ in range(2)]
    for each in (room, other):
        await world.moves.move(bob, each, "read", (await world.send(ann, each, "x"))["seq"])
    client, at_eve = await world.connect(eve)
    await world.members.remove(ann, room, "eve")
    before = len(told(world, at_eve))
    await world.moves.resend({client: [room, other]})
    assert len(told(world, at_eve)[before:]) == 1
    (one,) = at_eve.data("receipt.updated")[before:]
    assert (one["conversation"], one["user"]) == (other, "bob")


async def test_others_cannot_see_or_move_anything(world: CountingWorld) -> None:
    ann, eve = world.user("ann"), world.user("eve")
    room = (await world.open(ann))["id"]
    sent = await world.send(ann, room, "x")
    for call in (
        world.moves.move(eve, room, "read", 1),
        world.moves.mark(eve, sent["id"], "read"),
        world.moves.status(eve, sent["id"], cursor=None, limit=10),
        world.moves.move(world.user("ann", org="other"), room, "read", 1),
    ):
        with pytest.raises(NotFound):
            await call


async def test_what_moves_are_recorded_goes_with_age_and_the_position_answers(
    world: CountingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    sent = await world.send(ann, room, "one")
    await world.moves.move(bob, room, "read", sent["seq"])
    read = timestamp(world.clock.now())
    retention = Retention(world.engine, world.clock, keep=5, age=60)
    await retention.run()
    assert await world.engine.count("org", RECEIPTS, {"conversation": room}) == 1
    world.clock.turn(120)
    await retention.run()
    assert await world.engine.count("org", RECEIPTS, {"conversation": room}) == 0
    assert await status(world, ann, sent) == {"bob": (read, read)}
