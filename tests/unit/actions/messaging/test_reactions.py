"""Reactions: each once, counted rightly whoever reacts at the same moment."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from actions.messaging.reactions import Reactions
from domain.errors import Forbidden, Invalid, NotFound, TooLarge
from domain.messaging.conversations import Kind
from domain.messaging.reactions import EVENTS, MAX_KINDS, Reaction, ReactionGroup, stream_of
from domain.principals import Principal
from store.accounts.contacts import BLOCKS
from store.messaging.reactions import ReactionRepository
from tests.support.local import LocalOutlet, local_client
from tests.support.messaging import MessagingWorld, messaging_world

_REACTION: TypeAdapter[Reaction] = TypeAdapter(Reaction)
_GROUPS: TypeAdapter[list[ReactionGroup]] = TypeAdapter(list[ReactionGroup])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MessagingWorld]:
    async with messaging_world(tmp_path) as found:
        yield found


def reactions_of(world: MessagingWorld) -> Reactions:
    return Reactions(
        ReactionRepository(world.engine),
        world.messages,
        world.memberships,
        world.ledger,
        world.clock,
    )


async def listen(world: MessagingWorld, who: Principal) -> LocalOutlet:
    reactions = reactions_of(world)
    client, outlet = local_client(who, "reactions", events=EVENTS)
    await world.streams.subscribe(client, dict.fromkeys(await reactions.own(who)))
    return outlet


async def grouped(world: MessagingWorld, who: Principal, message: str, limit: int = 200) -> Any:
    found: dict[str, list[str]] = {}
    cursor: str | None = None
    while True:
        page = await reactions_of(world).page(who, message, cursor=cursor, limit=limit)
        for group in _GROUPS.validate_python(page["items"], strict=True):
            found.setdefault(group["emoji"], []).extend(group["users"])
        cursor = page["next"]
        if cursor is None:
            return found


async def log(world: MessagingWorld, conversation: str) -> list[Any]:
    return [
        (event.seq, event.type, event.content())
        for event in await world.engine.read("org", stream_of(conversation), 0, 10_000)
    ]


async def test_a_reaction_is_told_counted_and_seen_on_the_message(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    reactions = reactions_of(world)
    world.rules.declare("reactions", reactions.may_read, reactions.own)
    room = (await world.open(ann, bob))["id"]
    message = await world.send(ann, room, "hello")
    at_ann = await listen(world, ann)
    first = await reactions.add(bob, message["id"], "❤")
    _REACTION.validate_python(first, strict=True)
    assert first == {
        "message": message["id"],
        "emoji": "❤️",
        "user": "bob",
        "counts": {"❤️": 1},
    }
    second = await reactions.add(ann, message["id"], "❤️")
    assert second["counts"] == {"❤️": 2}
    assert (await world.page(bob, room))["items"][0]["reactions"] == {"❤️": 2}
    assert await grouped(world, bob, message["id"]) == {"❤️": ["ann", "bob"]}
    gone = await reactions.remove(bob, message["id"], "❤️")
    assert gone["counts"] == {"❤️": 1}
    last = await reactions.remove(ann, message["id"], "❤️")
    assert last["counts"] == {}
    world.hub.flush()
    assert at_ann.data("reaction.added") == [first, second]
    assert at_ann.data("reaction.removed") == [gone, last]
    envelopes = [each for _, each in at_ann.received]
    assert [each["seq"] for each in envelopes] == [1, 2, 3, 4]
    assert {each["stream"] for each in envelopes} == {stream_of(room)}


async def test_twice_the_same_is_the_same_and_told_once(world: MessagingWorld) -> None:
    ann = world.user("ann")
    reactions = reactions_of(world)
    room = (await world.open(ann))["id"]
    message = await world.send(ann, room, "hello")
    answers = await asyncio.gather(*(reactions.add(ann, message["id"], "👍") for _ in range(5)))
    assert all(each["counts"] == {"👍": 1} for each in answers)
    assert len(await log(world, room)) == 1
    answers = await asyncio.gather(*(reactions.remove(ann, message["id"], "👍") for _ in range(5)))
    assert all(each["counts"] == {} for each in answers)
    assert len(await log(world, room)) == 2


async def test_at_most_twenty_kinds(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    reactions = reactions_of(world)
    room = (await world.open(ann, bob))["id"]
    message = await world.send(ann, room, "hello")
    kinds = [f":kind_{number}:" for number in range(MAX_KINDS + 5)]
    answers = await asyncio.gather(
        *(reactions.add(ann, message["id"], each) for each in kinds), return_exceptions=True
    )
    assert sum(isinstance(each, TooLarge) for each in answers) == 5
    there = await grouped(world, ann, message["id"], limit=7)
    assert len(there) == MAX_KINDS
    known = next(iter(there))
    assert (await reactions.add(bob, message["id"], known))["counts"][known] == 2
    await reactions.remove(ann, message["id"], known)
    await reactions.remove(bob, message["id"], known)
    assert (await reactions.add(bob, message["id"], "👍"))["counts"]["👍"] == 1


async def test_only_members_and_only_to_what_is_there(world: MessagingWorld) -> None:
    ann, bob, eve = [world.user(name) for name in ("ann", "bob", "eve")]
    reactions = reactions_of(world)
    room = (await world.open(ann, bob))["id"]
    message = await world.send(ann, room, "hello")
    stranger = world.user("ann", org="other")
    for who in (eve, stranger):
        with pytest.raises(NotFound):
            await reactions.add(who, message["id"], "👍")
        with pytest.raises(NotFound):
            await reactions.page(who, message["id"], cursor=None, limit=10)
    with pytest.raises(NotFound):
        await reactions.add(ann, "none", "👍")
    with pytest.raises(Invalid):
        await reactions.add(ann, message["id"], "thumbs up")
    await reactions.add(bob, message["id"], "👍")
    await world.messages.delete(ann, message["id"])
    for call in (reactions.add, reactions.remove):
        with pytest.raises(NotFound):
            await call(bob, message["id"], "👍")


async def test_a_blocked_user_does_not_react_in_a_direct_conversation(
    world: MessagingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    reactions = reactions_of(world)
    direct = (await world.open(ann, bob, kind=Kind.DIRECT))["id"]
    group = (await world.open(ann, bob))["id"]
    message = await world.send(bob, direct, "hello")
    await reactions.add(ann, message["id"], "👍")
    await world.engine.insert("org", BLOCKS, {"id": "bob:ann", "blocker": "bob", "blocked": "ann"})
    with pytest.raises(Forbidden):
        await reactions.add(ann, message["id"], "🎉")
    assert (await reactions.remove(ann, message["id"], "👍"))["counts"] == {}
    await reactions.add(bob, message["id"], "👍")
    await reactions.add(ann, (await world.send(bob, group, "hello"))["id"], "👍")


async def test_a_message_deleted_for_everyone_has_none(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    room = (await world.open(ann, bob))["id"]
    message = await world.send(ann, room, "hello")
    await reactions_of(world).add(bob, message["id"], "👍")
    gone = await world.messages.delete(ann, message["id"])
    assert gone["reactions"] == {}
    assert (await world.page(bob, room))["items"] == [gone]
    assert await grouped(world, bob, message["id"]) == {}


@pytest.mark.parametrize("nodes", [1, 3])
async def test_counts_are_right_whoever_reacts_at_once(world: MessagingWorld, nodes: int) -> None:
    """Several `Reactions` over one store behave as several nodes: they share no lock."""
    users = [world.user(f"u{number}") for number in range(8)]
    room = (await world.open(users[0], *users[1:]))["id"]
    messages = [(await world.send(users[0], room, f"m{n}"))["id"] for n in range(2)]
    several = [reactions_of(world) for _ in range(nodes)]
    chance = random.Random(nodes)

    async def act() -> None:
        reactions = chance.choice(several)
        call = reactions.add if chance.random() < 0.6 else reactions.remove
        who, message = chance.choice(users), chance.choice(messages)
        emoji = chance.choice(("👍", "❤️", ":ok:"))
        answer = await call(who, message, emoji)
        assert all(answer["counts"].values())

    for _ in range(8):
        await asyncio.gather(*(act() for _ in range(20)))
    events = await log(world, room)
    assert [seq for seq, _, _ in events] == list(range(1, len(events) + 1))
    for message in messages:
        there: set[tuple[str, str]] = set()
        for _, kind, data in events:
            if data["message"] != message:
                continue
            one = (data["emoji"], data["user"])
            assert (one in there) == (kind == "reaction.removed")
            there ^= {one}
            assert data["counts"] == Counter(emoji for emoji, _ in there)
        found = await grouped(world, users[0], message, limit=3)
        assert {(emoji, user) for emoji, each in found.items() for user in each} == there
        assert await ReactionRepository(world.engine).counts("org", [message]) == {
            message: dict(Counter(emoji for emoji, _ in there))
        }


async def test_a_reader_of_pages_cannot_send_another_lists_cursor(world: MessagingWorld) -> None:
    ann = world.user("ann")
    room = (await world.open(ann))["id"]
    message = await world.send(ann, room, "hello")
    with pytest.raises(Invalid):
        await reactions_of(world).page(ann, message["id"], cursor="e30", limit=10)
