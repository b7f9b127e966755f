"""Following streams: what comes when."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.messaging.conversations import stream_of
from tests.support.messaging import MessagingWorld, messaging_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MessagingWorld]:
    async with messaging_world(tmp_path) as found:
        yield found


async def test_what_happens_while_subscribing_comes_after_the_answer(
    world: MessagingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    stream = stream_of(group["id"])
    client, outlet = await world.connect(bob)
    await world.streams.unsubscribe(client, [stream])
    world.hub.flush()
    read = world.streams._backlogs

    async def backlogs(*args: Any) -> Any:
        found = await read(*args)
        await world.send(ann, group["id"], "meanwhile")
        return found

    monkeypatch.setattr(world.streams, "_backlogs", backlogs)
    before = len(outlet.received)
    answer = (await world.streams.subscribe(client, {stream: None}))[stream]
    world.hub.flush()
    assert "message.created" not in [name for name, _ in outlet.received[before:]]
    await asyncio.sleep(0)
    world.hub.flush()
    (told,) = [event for name, event in outlet.received[before:] if name == "message.created"]
    assert told["seq"] == answer["seq"] + 1


async def test_what_one_does_not_follow_cannot_be_unsubscribed_into_memory(
    world: MessagingWorld,
) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    stream = stream_of((await world.open(ann, bob))["id"])
    client, outlet = await world.connect(bob)
    await world.streams.unsubscribe(client, [f"messages/{number}" for number in range(1000)])
    assert not client.declined
    await world.streams.unsubscribe(client, [stream, "messages/nothing"])
    await world.streams.unsubscribe(client, [stream])
    assert client.declined == {stream}
    await world.streams.subscribe(client, {stream: None})
    assert not client.declined
    await asyncio.sleep(0)
    await world.send(ann, stream.partition("/")[2], "heard")
    world.hub.flush()
    assert [each["body"] for each in outlet.data("message.created")] == ["heard"]
