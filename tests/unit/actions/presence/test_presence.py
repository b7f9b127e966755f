"""What watchers are told of others' coming, going and choosing."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from actions.connections.clients import Client, Clients
from actions.presence import watch as presence_watch
from actions.presence.presence import Presences
from actions.presence.watch import PresenceWatch
from actions.streams.streams import Rules
from domain.clock import timestamp
from domain.errors import Invalid, NotFound, TooLarge, Unavailable
from domain.presence.presence import EVENTS, ChosenStatus, Presence, as_others_see
from domain.principals import Principal
from domain.streams import StreamName
from fanout.bus import LocalBus
from fanout.control import Control
from fanout.hub import Hub
from fanout.presence import LocalPresenceRegistry, Lost
from fanout.publisher import Publisher
from fanout.sequencer import Sequencer
from store.accounts import contacts
from store.accounts.contacts import ContactRepository
from store.engine import Engine
from store.presence import presence
from store.presence.presence import PresenceRepository
from store.sqlite import SqliteEngine
from tests.support.counting import until
from tests.support.local import (
    LocalOutlet,
    TurnedClock,
    encode,
    local_client,
    no_log,
    principal,
)


class World:
    def __init__(self, engine: Engine, clock: TurnedClock) -> None:
        self.clock = clock
        self.hub = Hub(encode)
        self.clients = Clients()
        self.registry = LocalPresenceRegistry()
        self.kept = PresenceRepository(engine)
        self.contacts = ContactRepository(engine)
        self.rules = Rules()
        self.control = control = Control(LocalBus())
        publisher = Publisher(self.hub, Sequencer(self.hub, no_log))
        self.presences = Presences(self.registry, self.kept, control, clock)
        self.watching = PresenceWatch(
            self.registry,
            self.kept,
            self.contacts,
            self.rules,
            self.hub,
            self.clients,
            publisher,
            control,
            clock,
        )

    async def connect(
        self, who: str | Principal, session: str | None = None, namespace: str = "presence"
    ) -> tuple[Client, LocalOutlet]:
        client, outlet = local_client(who, namespace, events=EVENTS, session=session)
        self.clients.add(client)
        await self.presences.entered(client, ())
        return client, outlet

    async def part(self, client: Client) -> None:
        assert isinstance(client.outlet, LocalOutlet)
        client.outlet.closed = True
        self.hub.drop(client.outlet)
        self.clients.remove(client)
        client.closed()
        await self.presences.left(client)

    async def watch(self, client: Client, *users: str) -> list[Presence]:
        return await self.watching.watch(client, users)

    async def look(self, client: Client, user: str) -> str:
        """A user's status as somebody else sees it now."""
        watching = user in self.watching._of_client.get(client, {})
        value = (await self.watch(client, user))[0]
        if not watching:
            self.watching.unwatch(client, [user])
        return value["status"]

    async def settle(self) -> None:
        """Let everything that is on its way arrive."""
        await until(lambda: self.presences.quiet and self.watching.quiet)
        self.hub.flush()

    async def turn(self, seconds: float) -> None:
        self.clock.turn(seconds)
        self.presences.run_due()
        await self.settle()

    async def heard(self, outlet: LocalOutlet) -> list[tuple[str, str, int]]:
        await self.settle()
        return [
            (data["user"], data["status"], data["devices"])
            for data in outlet.data("presence.changed")
        ]

    def now(self) -> str:
        return timestamp(self.clock.now())

    async def close(self) -> None:
        await self.watching.close()
        await self.presences.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = TurnedClock()
    collections = (*presence.COLLECTIONS, *contacts.COLLECTIONS)
    engine = SqliteEngine(tmp_path / "p.db", collections, clock=clock, synchronous="NORMAL")
    await engine.start()
    world = World(engine, clock)
    yield world
    await world.close()
    await engine.stop()


async def test_coming_and_choosing_are_told(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    offline = {"user": "ann", "status": "offline", "text": None, "last_seen": None, "devices": 0}
    assert await world.watch(bob, "ann") == [offline]
    ann, _ = await world.connect("ann")
    assert await world.heard(at_bob) == [("ann", "online", 1)]
    own = await world.presences.choose(ann, "busy", "in a meeting")
    assert own == {
        "user": "ann",
        "status": "busy",
        "text": "in a meeting",
        "last_seen": None,
        "devices": 1,
    }
    assert (await world.heard(at_bob))[1:] == [("ann", "busy", 1)]
    name, envelope = at_bob.received[-1]
    assert (name, envelope["data"], envelope["actor"]["id"]) == ("presence.changed", own, "ann")
    await world.presences.choose(ann, "busy", None, keep_text=True)
    assert len(await world.heard(at_bob)) == 2
    assert (await world.presences.choose(ann, "online", ""))["text"] is None


async def test_namespaces_of_one_session_are_one_device(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    await world.watch(bob, "ann")
    clients = [
        (await world.connect("ann", "s1", namespace))[0]
        for namespace in ("messages", "presence", "reactions")
    ]
    assert await world.heard(at_bob) == [("ann", "online", 1)]
    for client in clients[:2]:
        await world.part(client)
    await world.turn(60)
    assert await world.heard(at_bob) == [("ann", "online", 1)]
    await world.part(clients[2])
    await world.turn(15)
    assert (await world.heard(at_bob))[-1] == ("ann", "offline", 0)


async def test_several_devices_merge(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    await world.watch(bob, "ann")
    desk, _ = await world.connect("ann")
    await world.settle()
    await world.presences.choose(desk, "away", None)
    await world.settle()
    phone, _ = await world.connect("ann")
    await world.settle()
    await world.presences.choose(phone, "busy", None)
    await world.settle()
    await world.part(phone)
    assert await world.heard(at_bob) == [
        ("ann", "online", 1),
        ("ann", "away", 1),
        ("ann", "online", 2),
        ("ann", "busy", 2),
        ("ann", "away", 1),
    ]


async def test_away_when_all_devices_are_idle(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    desk, _ = await world.connect("ann")
    phone, _ = await world.connect("ann")
    assert (await world.watch(bob, "ann"))[0]["status"] == "online"
    world.presences.set_idle(desk, idle=True)
    assert await world.heard(at_bob) == []
    world.presences.set_idle(phone, idle=True)
    assert await world.heard(at_bob) == [("ann", "away", 2)]
    world.presences.set_idle(desk, idle=False)
    assert (await world.heard(at_bob))[-1] == ("ann", "online", 2)


async def test_a_short_absence_is_seen_by_nobody(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    ann, _ = await world.connect("ann")
    await world.presences.choose(ann, "busy", "deep")
    await world.watch(bob, "ann")
    await world.part(ann)
    await world.turn(14.9)
    ann, _ = await world.connect("ann")
    await world.turn(60)
    assert await world.heard(at_bob) == []
    assert await world.look(bob, "ann") == "busy"


async def test_offline_after_fifteen_seconds_seen_when_the_last_went(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    ann, _ = await world.connect("ann")
    await world.watch(bob, "ann")
    world.clock.turn(5)
    left = world.now()
    await world.part(ann)
    assert await world.heard(at_bob) == []
    await world.turn(15)
    assert at_bob.data("presence.changed") == [
        {"user": "ann", "status": "offline", "text": None, "last_seen": left, "devices": 0}
    ]


async def test_a_logout_is_told_at_once(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    await world.watch(bob, "ann")
    who = principal("ann")
    first, _ = await world.connect(who)
    other, _ = await world.connect(principal("ann"))
    world.presences.logged_out("org", "ann", [who.session])
    await world.part(first)
    assert (await world.heard(at_bob))[-1] == ("ann", "online", 1)
    # Also for who has disconnected before and is still waited for.
    await world.part(other)
    assert (await world.heard(at_bob))[-1] == ("ann", "online", 1)
    world.presences.logged_out("org", "ann", [other.principal.session])
    assert (await world.heard(at_bob))[-1] == ("ann", "offline", 0)


async def test_the_invisible_are_offline_to_others_only(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    ann, at_ann = await world.connect("ann")
    await world.watch(bob, "ann")
    await world.watch(ann, "ann")
    hid = world.now()
    own = await world.presences.choose(ann, "invisible", "hush")
    assert (own["status"], own["devices"], own["text"]) == ("invisible", 1, "hush")
    assert await world.heard(at_ann) == [("ann", "invisible", 1)]
    assert await world.heard(at_bob) == [("ann", "offline", 0)]
    assert at_bob.data("presence.changed")[0]["last_seen"] == hid
    # Nothing that follows betrays that somebody is there.
    world.clock.turn(100)
    phone, _ = await world.connect("ann")
    world.presences.set_idle(phone, idle=True)
    await world.presences.choose(phone, "invisible", "still here")
    await world.presences.keep_seen()
    await world.part(phone)
    await world.part(ann)
    await world.turn(20)
    assert len(await world.heard(at_bob)) == 1
    again, _ = await world.connect("bob")
    assert (await world.watch(again, "ann"))[0]["last_seen"] == hid
    # And when the same user comes back, this is remembered.
    ann, _ = await world.connect("ann")
    assert len(await world.heard(at_bob)) == 1
    await world.presences.choose(ann, "online", None)
    assert (await world.heard(at_bob))[-1] == ("ann", "online", 1)


async def test_nothing_crosses_organizations(world: World) -> None:
    spy, at_spy = await world.connect(principal("spy", org="other"))
    ann, _ = await world.connect("ann")
    assert (await world.watch(spy, "ann", "nobody")) == [
        {"user": user, "status": "offline", "text": None, "last_seen": None, "devices": 0}
        for user in ("ann", "nobody")
    ]
    await world.presences.choose(ann, "busy", None)
    assert await world.heard(at_spy) == []


async def test_who_is_blocked_sees_the_blocker_offline(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    cy, at_cy = await world.connect("cy")
    ann, _ = await world.connect("ann")
    await world.contacts.block("org", "ann", "bob", world.now())
    assert await world.look(bob, "ann") == "offline"
    assert await world.look(cy, "ann") == "online"
    await world.watch(bob, "ann")
    await world.watch(cy, "ann")
    await world.presences.choose(ann, "busy", None)
    assert await world.heard(at_bob) == []
    await world.contacts.unblock("org", "ann", "bob")
    world.watching.blocked("org", "ann", "bob", False)
    assert await world.heard(at_bob) == [("ann", "busy", 1)]
    await world.contacts.block("org", "ann", "bob", world.now())
    world.watching.blocked("org", "ann", "bob", True)
    await world.presences.choose(ann, "online", None)
    assert (await world.heard(at_bob))[1:] == [("ann", "offline", 0)]
    assert await world.heard(at_cy) == [("ann", "busy", 1), ("ann", "online", 1)]


async def test_a_block_of_which_the_order_was_lost_is_found_in_the_store(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, at_bob = await world.connect("bob")
    cy, at_cy = await world.connect("cy")
    ann, _ = await world.connect("ann")
    for client in (bob, cy):
        await world.watch(client, "ann", client.principal.user)
    await world.contacts.block("org", "ann", "bob", world.now())
    world.control.may_have_missed()
    assert await world.heard(at_bob) == [("ann", "offline", 0)]
    await world.presences.choose(ann, "busy", None)
    assert await world.heard(at_bob) == [("ann", "offline", 0)]
    world.control.may_have_missed()
    assert await world.heard(at_bob) == [("ann", "offline", 0)], "once is enough"
    await world.contacts.unblock("org", "ann", "bob")
    failures = iter([Unavailable("away")])
    blockers = world.contacts.blockers

    async def away(org: str, blocked: str, users: Sequence[str]) -> set[str]:
        for failure in failures:
            raise failure
        return await blockers(org, blocked, users)

    monkeypatch.setattr(presence_watch, "RETRY", 0.01)
    monkeypatch.setattr(world.contacts, "blockers", away)
    world.control.may_have_missed()
    assert (await world.heard(at_bob))[1:] == [("ann", "busy", 1)]
    assert await world.heard(at_cy) == [("ann", "busy", 1)]


async def test_watching_ends_and_has_a_limit(world: World) -> None:
    bob, at_bob = await world.connect("bob")
    await world.watch(bob, *[f"u{number}" for number in range(999)])
    await world.watch(bob, "ann", "u1")
    with pytest.raises(TooLarge):
        await world.watch(bob, "one-more")
    world.watching.unwatch(bob, ["ann", "unknown"])
    await world.watch(bob, "one-more")
    await world.connect("ann")
    assert await world.heard(at_bob) == []
    assert world.watching.watched == 1000
    await world.part(bob)
    assert world.watching.watched == 0


async def test_who_is_in_a_room(world: World) -> None:
    async def may_read(who: Principal, stream: StreamName) -> bool:
        return who.org == "org" and who.user != "eve"

    world.rules.declare("messages", may_read)
    for user in ("ann", "bob", "cy", "di"):
        clients = [await world.connect(user, None, "messages") for _ in range(2)]
        for client, outlet in clients:
            world.hub.join("messages/c1", outlet)
            if user == "cy":
                await world.presences.choose(client, "invisible", None)
    await world.contacts.block("org", "di", "ann", world.now())

    async def there(user: str) -> list[str]:
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await world.watching.room(principal(user), "messages/c1", cursor=cursor, limit=2)
            found += [each["user"] for each in page["items"]]
            cursor = page["next"]
            if cursor is None:
                return found

    assert await there("ann") == ["ann", "bob"]
    assert await there("bob") == ["ann", "bob", "di"]
    assert await there("cy") == ["ann", "bob", "cy", "di"]
    for who, stream in (("eve", "messages/c1"), ("ann", "nothing/c1"), ("ann", "?")):
        with pytest.raises(NotFound):
            await world.watching.room(principal(who), stream, cursor=None, limit=2)


async def test_last_seen_outlives_the_node(world: World) -> None:
    ann, _ = await world.connect("ann")
    await world.connect("cy")
    await world.presences.keep_seen()
    first = world.now()
    assert await world.kept.seen("org", ["ann", "cy"]) == {"ann": first, "cy": first}
    world.clock.turn(10)
    gone = world.now()
    await world.part(ann)
    world.clock.turn(5)
    await world.presences.close()
    assert await world.kept.seen("org", ["ann", "cy"]) == {"ann": gone, "cy": world.now()}


async def test_last_seen_never_goes_back(world: World) -> None:
    """The node a user left first may store it last."""
    ann, _ = await world.connect("ann")
    left = world.now()
    await world.part(ann)
    world.clock.turn(3)
    later = world.now()
    await world.kept.see("org", {"ann": later})
    await world.turn(15)
    assert left < later
    assert await world.kept.seen("org", ["ann"]) == {"ann": later}


async def test_who_went_with_a_node_is_told_once_it_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, at_bob = await world.connect("bob")
    ann, _ = await world.connect("ann")
    await world.connect("cy")
    await world.watch(bob, "ann", "cy")
    # As if they had been on a node that died, and cy had come back to another one.
    world.registry.unwatch("org", "ann")
    world.registry.remove("org", "ann", ann.outlet.session_id)
    world.registry.watch("org", "ann")
    at = world.now()
    lost = [Lost("org", "ann", at), Lost("org", "cy", at)]

    async def sweep() -> list[Lost]:
        found, lost[:] = list(lost), []
        return found

    monkeypatch.setattr(world.registry, "sweep", sweep)
    see, fails = world.kept.see, [True]

    async def fail_once(org: str, users: dict[str, str]) -> None:
        if fails:
            fails.pop()
            raise Unavailable("The store is out of reach.")
        await see(org, users)

    monkeypatch.setattr(world.kept, "see", fail_once)
    with pytest.raises(Unavailable):
        await world.presences.maintain()
    assert await world.heard(at_bob) == []
    await world.presences.maintain()
    assert await world.heard(at_bob) == [("ann", "offline", 0)]
    assert at_bob.data("presence.changed")[0]["last_seen"] == at
    assert await world.kept.seen("org", ["ann", "cy"]) == {"ann": at}


async def test_a_text_is_one_line(world: World) -> None:
    ann, _ = await world.connect("ann")
    with pytest.raises(Invalid):
        await world.presences.choose(ann, "online", "a\nb")


@pytest.mark.parametrize("seed", range(4))
async def test_watchers_end_up_knowing_what_is_the_case(world: World, seed: int) -> None:
    """Random coming, going and choosing: what was answered and told last is what is so."""
    chance = random.Random(seed)
    statuses: tuple[ChosenStatus, ...] = ("online", "away", "busy", "invisible")
    bob, at_bob = await world.connect("bob")
    users = ["ann", "cy", "di"]
    here: dict[str, list[Any]] = {user: [] for user in users}
    known: dict[str, Presence] = {}

    async def act() -> None:
        user, step = chance.choice(users), chance.random()
        devices = here[user]
        if step < 0.3 or not devices:
            devices.append((await world.connect(user))[0])
        elif step < 0.5:
            await world.part(devices.pop(chance.randrange(len(devices))))
        elif step < 0.8:
            await world.presences.choose(
                chance.choice(devices), chance.choice(statuses), f"text {chance.random()}"
            )
        else:
            world.presences.set_idle(chance.choice(devices), idle=chance.random() < 0.5)

    for number in range(40):
        await asyncio.gather(*(act() for _ in range(chance.randint(1, 4))))
        if number == 10:
            known.update((each["user"], each) for each in await world.watch(bob, *users))
            at_bob.received.clear()
        if chance.random() < 0.4:
            await world.turn(chance.choice([1, 8, 16]))
    await world.settle()
    known.update((data["user"], data) for data in at_bob.data("presence.changed"))
    devices = await world.registry.devices("org", users)
    profiles = await world.kept.profiles("org", users)
    seen = await world.kept.seen("org", users)
    for user in users:
        there = devices.get(user, ())
        assert known[user] == as_others_see(user, there, profiles[user], seen.get(user))
