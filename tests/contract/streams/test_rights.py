"""A thousand rights to read are asked for together, at every door, on MongoDB too."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from actions.streams.streams import STEP, Position
from actions.uploads.uploads import Limits, Uploads
from domain.errors import NotFound
from domain.messaging.conversations import stream_of
from store.messaging.conversations import MEMBERS
from store.mongo import MongoBlobs, MongoEngine
from store.uploads.uploads import LINKS, UPLOADS
from tests.support.local import TurnedClock
from tests.support.messaging import COLLECTIONS, MessagingWorld
from tests.support.mongo_wire import WireProxy, wire_proxy
from tests.support.mongod import scratch

FOREIGN = {f"messages/{number:04}": Position("e", 1) for number in range(1000)}
"""As many as a subscription may name; of each the store has to be asked."""


class Watched(NamedTuple):
    """A world on MongoDB, and what it asks there."""

    world: MessagingWorld
    proxy: WireProxy
    url: str

    def asked(self) -> int:
        """How often members were asked for since the last look."""
        count = sum(
            each.get("find", each.get("aggregate")) == f"c_{MEMBERS.name}"
            for each in self.proxy.bodies
        )
        self.proxy.bodies.clear()
        return count


@pytest.fixture
async def watched(mongodb: str) -> AsyncIterator[Watched]:
    clock = TurnedClock()
    with scratch(mongodb) as database:
        async with wire_proxy(database.url) as (proxy, url):
            engine = MongoEngine(url, COLLECTIONS, clock=clock)
            await engine.start()
            yield Watched(MessagingWorld(engine, clock), proxy, url)
            await engine.stop()


async def test_sync(watched: Watched) -> None:
    world = watched.world
    ann, bob = world.user("ann"), world.user("bob")
    shared = stream_of((await world.open(ann, bob))["id"])
    watched.asked()
    found = await world.streams.sync(bob, {**FOREIGN, shared: Position("", 0)})
    assert list(found) == [shared]
    assert 0 < watched.asked() <= len(FOREIGN) / STEP + 2


async def test_resuming(watched: Watched) -> None:
    world = watched.world
    watched.asked()
    client, _ = await world.connect(world.user("ann"), FOREIGN)
    assert not client.streams
    assert 0 < watched.asked() <= len(FOREIGN) / STEP + 2


async def test_subscribing(watched: Watched) -> None:
    world = watched.world
    ann, bob = world.user("ann"), world.user("bob")
    client, _ = await world.connect(bob)
    opened = [stream_of((await world.open(ann, bob))["id"]) for _ in range(20)]
    watched.asked()
    answer = await world.streams.subscribe(client, dict.fromkeys(opened))
    assert answer.keys() == set(opened)
    assert watched.asked() == 1
    with pytest.raises(NotFound):
        await world.streams.subscribe(client, dict.fromkeys([*opened, *FOREIGN]))
    assert 0 < watched.asked() <= len(FOREIGN) / STEP + 1


async def test_fetching_a_file_that_was_sent_to_many_places(watched: Watched) -> None:
    world = watched.world
    at = {"created_at": "", "touched_at": "", "state": "ready", "kept": True, "sha256": "x"}
    upload = {"id": "u1", "owner": "ann", "size": 1, "conversation": None, **at}
    await world.engine.insert("org", UPLOADS, upload)
    for number, stream in enumerate(FOREIGN):
        if number % 5 == 0:
            link = {"id": f"u1:{stream}:m", "upload": "u1", "stream": stream, "withdrawn_at": None}
            await world.engine.insert("org", LINKS, {**link, "message": "m", "linked_at": ""})
    blobs = MongoBlobs(watched.url, clock=world.clock)
    uploads = Uploads(world.uploads, blobs, world.rules, world.clock, Limits(1, 1, 3600))
    watched.asked()
    with pytest.raises(NotFound):
        await uploads.open(world.user("bob"), "u1")
    assert watched.asked() == 2  # a page of a hundred places each
