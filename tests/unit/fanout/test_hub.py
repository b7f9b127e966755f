"""The hub alone: who gets what, in which order, in how many writes."""

import asyncio
import random
from collections.abc import Callable, Collection

from domain.delivery import Delivery
from fanout.hub import Hub, Outgoing

VOLATILE = Delivery.VOLATILE


def encode(namespace: str, event: str, payload: bytes) -> bytes:
    return b"<%b %b %b>" % (namespace.encode(), event.encode(), payload)


class Member:
    """Records writes; a slow one is given events instead."""

    def __init__(self, *, slow: bool = False) -> None:
        self.writes: list[bytes] = []
        self.events: list[Outgoing] = []
        self.closed = False
        self.direct: Callable[[bytes], object] | None = None if slow else self.writes.append

    def deliver(self, events: Collection[Outgoing]) -> None:
        self.events.extend(events)

    @property
    def seen(self) -> list[str]:
        """The payloads, in order."""
        text = b"".join(self.writes) + b"".join([event.data for event in self.events])
        return [part.split(b" ")[-1].decode() for part in text.split(b">")[:-1]]


async def flushed(hub: Hub) -> None:
    while hub.pending:
        await asyncio.sleep(0.001)


async def test_an_event_goes_to_the_members_of_its_room() -> None:
    hub = Hub(encode)
    inside, outside = Member(), Member()
    hub.join("chat/1", inside)
    hub.join("chat/2", outside)
    hub.publish("chat/1", "said", b"1", VOLATILE)
    await flushed(hub)
    assert inside.writes == [b"</chat said 1>"]
    assert outside.writes == []


async def test_one_bytes_object_serves_all_members() -> None:
    hub = Hub(encode)
    members = [Member() for _ in range(3)]
    for member in members:
        hub.join("chat/1", member)
    hub.publish("chat/1", "said", b"1", VOLATILE)
    hub.publish("chat/1", "said", b"2", VOLATILE)
    await flushed(hub)
    assert len({id(member.writes[0]) for member in members}) == 1


async def test_a_quiet_room_is_written_without_waiting() -> None:
    hub = Hub(encode, tick=10.0)
    member = Member()
    hub.join("chat/1", member)
    hub.publish("chat/1", "said", b"1", VOLATILE)
    assert member.writes == []
    await asyncio.sleep(0)
    assert member.seen == ["1"]


async def test_a_busy_room_is_joined_into_one_write() -> None:
    hub = Hub(encode, tick=0.02)
    member = Member()
    hub.join("chat/1", member)
    hub.publish("chat/1", "said", b"0", VOLATILE)
    await asyncio.sleep(0)
    for n in range(1, 6):
        hub.publish("chat/1", "said", b"%d" % n, VOLATILE)
        await asyncio.sleep(0)
    await flushed(hub)
    assert member.seen == [str(n) for n in range(6)]
    assert len(member.writes) == 2
    assert hub.counters.published == 6
    assert hub.counters.deliveries == 6
    assert hub.counters.flushes == 2


async def test_a_publisher_that_does_not_yield_is_written_in_bounded_batches() -> None:
    hub = Hub(encode, batch=1000)
    member = Member()
    hub.join("chat/1", member)
    for n in range(1000):
        hub.publish("chat/1", "said", b"%d" % n, VOLATILE)
    await flushed(hub)
    assert member.seen == [str(n) for n in range(1000)]
    assert max(map(len, member.writes)) <= 1100


async def test_who_joins_sees_only_what_comes_after() -> None:
    hub = Hub(encode)
    early, late = Member(), Member()
    hub.join("chat/1", early)
    hub.publish("chat/1", "said", b"1", VOLATILE)
    hub.join("chat/1", late)
    hub.publish("chat/1", "said", b"2", VOLATILE)
    await flushed(hub)
    assert early.seen == ["1", "2"]
    assert late.seen == ["2"]


async def test_who_leaves_sees_all_that_came_before() -> None:
    hub = Hub(encode)
    leaver, stayer = Member(), Member()
    hub.join("chat/1", leaver)
    hub.join("chat/1", stayer)
    hub.publish("chat/1", "said", b"1", VOLATILE)
    hub.leave("chat/1", leaver)
    assert leaver.seen == ["1"]
    hub.publish("chat/1", "said", b"2", VOLATILE)
    hub.join("chat/1", leaver)
    hub.publish("chat/1", "said", b"3", VOLATILE)
    await flushed(hub)
    assert leaver.seen == ["1", "3"]
    assert stayer.seen == ["1", "2", "3"]


async def test_the_last_to_leave_sees_all_that_came_before() -> None:
    hub = Hub(encode)
    member = Member()
    hub.join("chat/1", member)
    hub.publish("chat/1", "said", b"1", VOLATILE)
    hub.leave("chat/1", member)
    assert member.seen == ["1"]
    assert not hub.pending


async def test_settle_sends_what_waits_once() -> None:
    hub = Hub(encode, tick=0.01)
    member, other = Member(), Member()
    for room in ("chat/1", "chat/2", "chat/3"):
        hub.join(room, member)
        hub.join(room, other)
    hub.publish("chat/1", "said", b"1", VOLATILE)
    hub.publish("chat/2", "said", b"2", VOLATILE)
    hub.settle(member)
    member.writes.append(b"<direct>")
    hub.settle(member)
    hub.publish("chat/1", "said", b"3", VOLATILE)
    await flushed(hub)
    assert member.seen == ["1", "2", "<direct", "3"]
    assert sorted(other.seen) == ["1", "2", "3"]
    assert hub.counters.deliveries == 6


async def test_a_member_that_cannot_be_written_to_is_given_the_events() -> None:
    hub = Hub(encode)
    slow = Member(slow=True)
    hub.join("chat/1", slow)
    hub.publish("chat/1", "typing", b"1", VOLATILE)
    hub.publish("chat/1", "presence", b"2", Delivery.LATEST, "ann")
    hub.publish("chat/1", "message", b"3", Delivery.DURABLE)
    await flushed(hub)
    assert [(event.delivery, event.key) for event in slow.events] == [
        (Delivery.VOLATILE, None),
        (Delivery.LATEST, ("chat/1", "presence", "ann")),
        (Delivery.DURABLE, None),
    ]


async def test_a_member_that_raises_costs_the_others_nothing() -> None:
    hub = Hub(encode)
    broken, healthy = Member(), Member()

    def fail(data: bytes) -> None:
        raise RuntimeError("the transport is closed")

    broken.direct = fail
    hub.join("chat/1", broken)
    hub.join("chat/1", healthy)
    hub.publish("chat/1", "said", b"1", VOLATILE)
    await flushed(hub)
    assert healthy.seen == ["1"]


async def test_publish_to_keeps_its_place_among_room_events() -> None:
    hub = Hub(encode)
    first, second = Member(), Member()
    hub.join("chat/1", first)
    hub.publish("chat/1", "said", b"1", VOLATILE)
    hub.publish_to([first, second], "/chat", "told", b"2", VOLATILE)
    hub.publish("chat/1", "said", b"3", VOLATILE)
    await flushed(hub)
    assert first.seen == ["1", "2", "3"]
    assert second.seen == ["2"]


async def test_first_and_empty_are_told_once_each() -> None:
    hub = Hub(encode)
    told: list[tuple[str, str]] = []
    hub.on_first = lambda room: told.append(("first", room))
    hub.on_empty = lambda room: told.append(("empty", room))
    one, two = Member(), Member()
    hub.join("chat/1", one)
    hub.join("chat/1", one)
    hub.join("chat/1", two)
    hub.join("chat/2", two)
    hub.drop(one)
    hub.drop(one)
    hub.leave("chat/1", one)
    assert told == [("first", "chat/1"), ("first", "chat/2")]
    assert hub.members("chat/1") == [two]
    assert sorted(hub.rooms_of(two)) == ["chat/1", "chat/2"]
    hub.drop(two)
    assert told[2:] == [("empty", "chat/1"), ("empty", "chat/2")]
    assert hub.rooms() == []
    assert hub.members("chat/1") == []
    assert hub.rooms_of(two) == []


async def test_a_closed_subscriber_joins_nothing() -> None:
    hub = Hub(encode)
    member = Member()
    member.closed = True
    hub.join("chat/1", member)
    assert hub.rooms() == []


async def test_nobody_misses_doubles_or_reorders_whatever_happens() -> None:
    """Random joins, leaves, settles, publishes and turns of the loop, against a plain model."""
    for seed in range(30):
        chance = random.Random(seed)
        hub = Hub(encode, tick=0.0005, batch=chance.choice([60, 65536]))
        members = [Member() for _ in range(5)]
        rooms = [f"chat/{n}" for n in range(3)]
        inside: dict[str, set[int]] = {room: set() for room in rooms}
        expected: dict[tuple[int, str], list[str]] = {
            (index, room): [] for index in range(5) for room in rooms
        }
        for n in range(300):
            room = chance.choice(rooms)
            index = chance.randrange(5)
            action = chance.choice(["join", "leave", "settle", "turn"] + ["publish"] * 4)
            if action == "join":
                hub.join(room, members[index])
                inside[room].add(index)
            elif action == "leave":
                hub.leave(room, members[index])
                inside[room].discard(index)
            elif action == "settle":
                hub.settle(members[index])
            elif action == "turn":
                await asyncio.sleep(chance.choice([0, 0.001]))
            else:
                hub.publish(room, "said", f"{room}:{n}".encode(), VOLATILE)
                for reader in inside[room]:
                    expected[reader, room].append(f"{room}:{n}")
        await flushed(hub)
        for (index, room), events in expected.items():
            assert [e for e in members[index].seen if e.startswith(room + ":")] == events
        assert hub.counters.deliveries == sum(map(len, expected.values()))


async def test_a_member_that_cannot_take_its_events_costs_the_others_nothing() -> None:
    class Broken(Member):
        def deliver(self, events: Collection[Outgoing]) -> None:
            raise RuntimeError("on purpose")

    for late in (False, True):
        hub = Hub(encode)
        members = [Broken(slow=True), Member(), Member(slow=True)]
        for member in members:
            hub.join("chat/1", member)
        hub.publish("chat/1", "said", b"1", VOLATILE)
        hub.publish("chat/2", "said", b"1", VOLATILE)
        if late:
            hub.join("chat/1", Member())
        await flushed(hub)
        hub.publish_to(members, "/chat", "said", b"2", VOLATILE)
        hub.publish("chat/1", "said", b"3", VOLATILE)
        await flushed(hub)
        assert [member.seen for member in members[1:]] == [["1", "2", "3"]] * 2
