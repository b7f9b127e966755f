"""Typing reaches the others in the conversation, once, and ends by itself."""

import pytest

from actions.connections.clients import Client
from actions.messaging.typing import Typing
from domain.errors import NotFound
from domain.messaging.typing import EVENTS
from domain.principals import Principal
from fanout.hub import Hub
from fanout.publisher import Publisher
from fanout.sequencer import Sequencer
from tests.support.local import LocalOutlet, TurnedClock, encode, local_client, no_log

ROOM = "messages/c1"


class World:
    def __init__(self) -> None:
        self.clock = TurnedClock()
        self.hub = Hub(encode)

        publisher = Publisher(self.hub, Sequencer(self.hub, no_log))
        self.blocked: set[str] = set()
        self.typing = Typing(publisher, self.is_blocked, self.clock)

    async def is_blocked(self, principal: Principal, conversation: str) -> bool:
        return principal.user in self.blocked

    def join(self, user: str) -> tuple[Client, LocalOutlet]:
        client, outlet = local_client(user, streams=[ROOM, f"messages/{user}"], events=EVENTS)
        self.hub.join(ROOM, outlet)
        return client, outlet

    def turn(self, seconds: float) -> None:
        self.clock.turn(seconds)
        self.typing.run_due()

    def heard(self, outlet: LocalOutlet) -> list[tuple[str, bool]]:
        self.hub.flush()
        return [(data["user"], data["typing"]) for data in outlet.data("typing.changed")]


@pytest.fixture
async def world() -> World:
    return World()


async def test_start_and_stop_are_told_to_the_room(world: World) -> None:
    ann, _ = world.join("ann")
    _, bob = world.join("bob")
    await world.typing.start(ann, "c1")
    world.typing.stop(ann, "c1")
    assert world.heard(bob) == [("ann", True), ("ann", False)]
    name, envelope = bob.received[0]
    assert name == "typing.changed"
    assert envelope["stream"] == ROOM
    assert envelope["actor"] == {"id": "ann", "kind": "user"}
    assert envelope["data"] == {"conversation": "c1", "user": "ann", "typing": True}


async def test_a_repeated_start_is_told_again_only_every_three_seconds(world: World) -> None:
    ann, _ = world.join("ann")
    _, bob = world.join("bob")
    for _ in range(8):
        await world.typing.start(ann, "c1")
        world.turn(1)
    assert world.heard(bob) == [("ann", True)] * 3


async def test_of_who_is_blocked_nobody_is_told(world: World) -> None:
    ann, _ = world.join("ann")
    _, bob = world.join("bob")
    world.blocked.add("ann")
    await world.typing.start(ann, "c1")
    world.typing.stop(ann, "c1")
    world.turn(10)
    assert world.heard(bob) == []


async def test_a_stop_without_start_says_nothing(world: World) -> None:
    ann, _ = world.join("ann")
    _, bob = world.join("bob")
    world.typing.stop(ann, "c1")
    await world.typing.start(ann, "c1")
    world.typing.stop(ann, "c1")
    world.typing.stop(ann, "c1")
    assert world.heard(bob) == [("ann", True), ("ann", False)]


async def test_it_ends_six_seconds_after_the_last_start(world: World) -> None:
    ann, _ = world.join("ann")
    _, bob = world.join("bob")
    await world.typing.start(ann, "c1")
    world.turn(5)
    await world.typing.start(ann, "c1")
    world.turn(5.9)
    assert world.heard(bob)[-1] == ("ann", True)
    world.turn(0.1)
    assert world.heard(bob)[-1] == ("ann", False)


async def test_it_ends_when_the_connection_goes(world: World) -> None:
    ann, _ = world.join("ann")
    _, bob = world.join("bob")
    await world.typing.start(ann, "c1")
    ann.closed()
    assert world.heard(bob) == [("ann", True), ("ann", False)]
    world.turn(60)
    assert world.heard(bob) == [("ann", True), ("ann", False)]


async def test_a_user_types_as_long_as_one_device_does(world: World) -> None:
    phone, _ = world.join("ann")
    desk, _ = world.join("ann")
    _, bob = world.join("bob")
    await world.typing.start(phone, "c1")
    await world.typing.start(desk, "c1")
    world.typing.stop(phone, "c1")
    assert world.heard(bob) == [("ann", True)]
    desk.closed()
    assert world.heard(bob) == [("ann", True), ("ann", False)]


@pytest.mark.parametrize("conversation", ["c2", "eve", ""])
async def test_only_who_follows_the_conversation_may(world: World, conversation: str) -> None:
    eve, _ = world.join("eve")
    with pytest.raises(NotFound):
        await world.typing.start(eve, conversation)
    with pytest.raises(NotFound):
        world.typing.stop(eve, conversation)


async def test_nothing_is_kept_of_who_has_ceased(world: World) -> None:
    ann, _ = world.join("ann")
    await world.typing.start(ann, "c1")
    assert world.typing.active == 1
    ann.closed()
    assert world.typing.active == 0


async def test_it_ends_with_the_right_to_write(world: World) -> None:
    ann, _ = world.join("ann")
    phone, _ = world.join("ann")
    _, bob = world.join("bob")
    await world.typing.start(ann, "c1")
    await world.typing.start(phone, "c1")
    world.typing.end("ann", ROOM)
    world.typing.end("bob", ROOM)
    assert world.heard(bob) == [("ann", True), ("ann", False)]
    world.turn(60)
    assert world.heard(bob) == [("ann", True), ("ann", False)]
    assert world.typing.active == 0
