"""Coming back after much was missed, or to thousands of conversations."""

import asyncio
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.support.client import Client, connect
from tests.support.node import connect_node
from tests.support.recorder import ConnectRefused
from tests.support.rest import Account, Api

MIB = 1024 * 1024


async def groups(who: Client, number: int) -> list[str]:
    """So many new groups."""
    made: list[str] = []
    for start in range(0, number, 200):
        wanted = [
            {"kind": "group", "title": "T", "members": [], "client_id": f"group-{each}"}
            for each in range(start, min(number, start + 200))
        ]
        answers = await asyncio.gather(*(who.call("conversation.create", each) for each in wanted))
        made += [answer["id"] for answer in answers]
    return made


async def fill(who: Client, conversation: str, number: int, size: int) -> None:
    """So many messages of this size, in one conversation; few at a time, as they come back too."""
    for start in range(0, number, 10):
        requests = [
            {"conversation": conversation, "body": "x" * size, "client_id": f"m-{each}"}
            for each in range(start, min(number, start + 10))
        ]
        await asyncio.gather(*(who.call("message.send", each, timeout=30) for each in requests))


def beginning(*conversations: str) -> dict[str, Any]:
    """The position before the first event."""
    return {f"messages/{each}": {"epoch": "", "seq": 0} for each in conversations}


async def test_a_gap_beyond_what_may_wait_for_a_client_is_filled(api: Api) -> None:
    """3 MB: a connection that was closed as a slow consumer for it would come back for it."""
    ann = await api.register("Ann")
    async with await connect(api.url, "/messages", ann.token) as here:
        (conversation,) = await groups(here, 1)
        await fill(here, conversation, 190, 16_000)
    stream = f"messages/{conversation}"
    async with await connect(
        api.url, "/messages", ann.token, resume=beginning(conversation)
    ) as back:
        assert back.ready["streams"][stream]["recovered"]
        assert back.seqs(stream) == list(range(1, 192))
        await back.call(
            "message.send", {"conversation": conversation, "body": "on", "client_id": "on"}
        )
        await back.until(lambda: back.seqs(stream)[-1] == 192)
        assert back.closing is None


async def test_the_official_client_fills_such_a_gap_over_polling(api: Api) -> None:
    ann = await api.register("Ann")
    async with await connect(api.url, "/messages", ann.token) as here:
        (conversation,) = await groups(here, 1)
        await fill(here, conversation, 100, 16_000)
    stream = f"messages/{conversation}"
    options = {"transports": ["polling"]}
    async with await connect_node(
        api.url, "/messages", ann.token, resume=beginning(conversation), options=options
    ) as back:
        assert back.named("ready")[-1]["streams"][stream]["recovered"]
        assert back.seqs(stream) == list(range(1, 102))


async def test_all_gaps_together_are_bounded(api: Api) -> None:
    """What no longer fits is said to be missing as a whole; nothing comes in part."""
    ann = await api.register("Ann")
    async with await connect(api.url, "/messages", ann.token) as here:
        conversations = await groups(here, 3)
        for each in conversations:
            await fill(here, each, 120, 16_000)
    known = beginning(*conversations)
    async with await connect(api.url, "/messages", ann.token, resume=known) as back:
        told = {each: back.ready["streams"][each] for each in known}
        assert [each["recovered"] for each in told.values()].count(False) == 1
        for stream, place in told.items():
            assert place["seq"] == 121
            assert back.seqs(stream) == (list(range(1, 122)) if place["recovered"] else [])
    synced = (await ann.api.post("/sync", {"streams": known}))["streams"]
    assert [each["recovered"] for each in synced.values()].count(False) == 1
    assert {len(each["events"]) for each in synced.values()} == {0, 121}


async def test_thousands_of_streams_are_resumed(api: Api, full: bool) -> None:
    number = 5_000 if full else 1_500
    ann, bob = await api.register("Ann"), await api.register("Bob")
    async with await connect(api.url, "/messages", ann.token) as here:
        conversations = await groups(here, number)
        await here.until(lambda: len(here.streams) >= number, timeout=30)
        places = dict(here.streams)
    behind = beginning(*conversations[:100])
    async with (
        await connect(api.url, "/messages", bob.token) as other,
        await connect(api.url, "/messages", ann.token, resume=places | behind) as back,
    ):
        streams = back.ready["streams"]
        assert all(streams[f"messages/{each}"]["recovered"] for each in conversations)
        created = back.named("conversation.created")
        assert {each["stream"] for each in created} >= behind.keys()
        await groups(other, 1)
    synced = (await ann.api.post("/sync", {"streams": places | behind}))["streams"]
    assert synced.keys() >= places.keys()
    assert {name for name, each in synced.items() if each["events"]} >= behind.keys()


@pytest.fixture
async def user(start_server: StartServer) -> Any:
    """A user of a server that takes CONNECT packets up to 64 KiB."""
    server = start_server(MAX_FRAME="8KiB", MAX_CONNECT="64KiB")
    async with Api(server.url) as api:
        yield await api.register("Ann")


def unknown(number: int) -> dict[str, Any]:
    return {f"messages/none-{each:060}": {"epoch": "0" * 12, "seq": 1} for each in range(number)}


async def test_the_official_client_is_told_that_it_resumes_too_much(user: Account) -> None:
    """And stays: a close would make it come back with the same for ever."""
    url, token = user.api.url, user.token
    for transport in ("websocket", "polling"):
        options = {"transports": [transport]}
        with pytest.raises(ConnectRefused) as refused:
            await connect_node(url, "/messages", token, resume=unknown(1_000), options=options)
        assert refused.value.code == "too_large"
        assert refused.value.data["data"] == {"limit": 65536}
        async with await connect_node(
            url, "/messages", token, resume=unknown(400), options=options
        ) as client:
            assert client.named("ready")


async def test_more_streams_than_a_connection_may_follow_are_too_large(api: Api) -> None:
    ann = await api.register("Ann")
    many = {f"messages/{each}": {"epoch": "0", "seq": 1} for each in range(10_001)}
    with pytest.raises(ConnectRefused) as refused:
        await connect(api.url, "/messages", ann.token, resume=many)
    assert refused.value.code == "too_large"
    problem = (await ann.api.request("POST", "/sync", json={"streams": many})).expect(413)
    assert (problem["code"], problem["data"]) == ("too_large", {"limit": 10_000})


@pytest.mark.parametrize(
    "known",
    [[], {"messages/a": 1}, {"messages/a": {"epoch": "x"}}, {"messages/a": {"epoch": 1, "seq": 1}}]
    + [{"messages/a": {"epoch": "x", "seq": seq}} for seq in (-1, 1.0, True, 2**53 + 1, "1")]
    + [{"messages/a": {"epoch": "x", "seq": 1, "more": 1}}],
)
async def test_a_position_is_an_epoch_and_a_seq(api: Api, known: Any) -> None:
    ann = await api.register("Ann")
    problem = (await ann.api.request("POST", "/sync", json={"streams": known})).expect(400)
    assert problem["errors"][0]["field"].startswith("streams")
    with pytest.raises(ConnectRefused) as refused:
        await connect(api.url, "/messages", ann.token, resume=known)
    assert refused.value.data["errors"][0]["field"].startswith("resume")
