"""Fetched state plus the events since is the state one would fetch now."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from domain.errors import ParleyError
from domain.messaging.conversations import Kind, personal_stream, stream_of
from domain.principals import Principal
from store.messaging.messages import Range
from tests.support.local import LocalOutlet
from tests.support.messaging import MessagingWorld, messaging_world
from tests.support.replica import Replica

UPDATES: list[dict[str, Any]] = [
    {"title": "a"},
    {"title": None},
    {"topic": "b"},
    {"topic": None},
    {"muted": True},
    {"muted": False},
    {"archived": True},
    {"title": "c", "archived": False},
]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MessagingWorld]:
    async with messaging_world(tmp_path) as found:
        yield found


class Watcher:
    """A user with a device that hears events from before the state is fetched."""

    def __init__(self, world: MessagingWorld, who: Principal, outlet: LocalOutlet) -> None:
        self.world = world
        self.who = who
        self.outlet = outlet
        self.taken = len(outlet.received)
        self.replica: Replica | None = None
        self.begun: tuple[Any, Any] | None = None

    async def fetched(self, conversation: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The conversation and all its messages, `status` as far as nobody has read anything."""
        seen = await self.world.views.get(self.who, conversation)
        page = await self.world.page(self.who, conversation, limit=200)
        assert page["next"] is None
        return dict(seen), [dict(each) for each in page["items"]]

    async def start(self, conversation: str) -> None:
        """Fetch the state. What was heard until now is in it, and is applied all the same."""
        self.begun = await self.fetched(conversation)
        self.replica = Replica(*self.begun)

    def catch_up(self) -> Replica:
        assert self.replica is not None
        self.world.hub.flush()
        for _, envelope in self.outlet.received[self.taken :]:
            self.replica.apply(self.who.user, envelope)
        self.taken = len(self.outlet.received)
        return self.replica

    async def come_back(self) -> Replica:
        """As a device that was away since `start`, and is told from the log what it missed."""
        assert self.begun is not None
        replica = Replica(*self.begun)
        for stream in (stream_of(replica.id), personal_stream(self.who.user)):
            for event in await self.world.engine.read("org", stream, 0, 1000):
                replica.apply(self.who.user, orjson.loads(event.told_to(self.who.user)))
        return replica


async def step(
    world: MessagingWorld, users: list[Principal], id: str, watched: str, dice: random.Random
) -> None:
    """Somebody does something, or is refused it."""
    who, other = dice.choice(users), dice.choice(users)
    page = await world.message_store.page("org", Range(id), newest=True, limit=10)
    message = dice.choice(page) if page else None
    match dice.randrange(12):
        case 0 | 1 | 2 | 3:
            thread = (
                message["id"] if message and not message["thread"] and dice.random() < 0.3 else None
            )
            await world.send(who, id, f"m{dice.random()}", thread=thread)
        case 4 if message:
            author = next(each for each in users if each.user == message["sender"])
            await world.messages.edit(author, message["id"], "edited", message["version"])
        case 5 if message:
            await world.messages.delete(who, message["id"])
        case 6 if message:
            await world.messages.hide(who, message["id"])
        case 7 if message:
            await world.pins.add(who, message["id"])
        case 8 if message:
            await world.pins.remove(who, message["id"])
        case 9:
            values = dice.choice(UPDATES)
            await world.conversations.update(who, id, values)
        case 10:
            await world.members.add(who, id, other.user)
        case 11 if other.user != watched:
            await world.members.remove(who, id, other.user)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [Kind.GROUP, Kind.CHANNEL])
async def test_applied_events_give_what_is_fetched(
    world: MessagingWorld, kind: Kind, seed: int
) -> None:
    dice = random.Random(f"{kind}-{seed}")
    users = [world.user(name) for name in ("ann", "bob", "cy", "dee")]
    opened = await world.open(*users[:3], kind=kind)
    _, outlet = await world.connect(users[1])
    watcher = Watcher(world, users[1], outlet)
    for number in range(120):
        world.clock.turn(dice.random())
        if number == 20:
            await watcher.start(opened["id"])
        try:
            await step(world, users, opened["id"], "bob", dice)
        except ParleyError:
            continue
        if number > 20 and number % 10 == 0:
            assert watcher.catch_up().state() == await watcher.fetched(opened["id"])
    assert watcher.catch_up().state() == await watcher.fetched(opened["id"])
    assert (await watcher.come_back()).state() == await watcher.fetched(opened["id"])


async def test_a_change_told_again_takes_nobody_back(world: MessagingWorld) -> None:
    """How far somebody has come is told beside the stream: a change may have it from before."""
    ann, bob = world.user("ann"), world.user("bob")
    opened = await world.open(ann, bob)
    _, outlet = await world.connect(bob)
    sent = await world.send(ann, opened["id"], "hello")
    await world.conversations.update(ann, opened["id"], {"title": "a"})
    old = await world.receipts.get("org", opened["id"], "bob")
    await world.receipts.move("org", old, {**old, "read_seq": sent["seq"]})
    watcher = Watcher(world, bob, outlet)
    await watcher.start(opened["id"])
    conversation, _ = (await watcher.come_back()).state()
    assert conversation["title"] == "a"
    assert [each["read_seq"] for each in conversation["members"]] == [0, sent["seq"]]
