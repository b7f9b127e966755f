"""Streams as a client meets them: subscribing, resuming, syncing, and what `ready` says."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.client import Client, connect
from tests.support.recorder import CommandFailed
from tests.support.rest import Account, Api


async def group(owner: Account, *others: Account) -> tuple[str, str]:
    """A new group's id and stream."""
    body = {"kind": "group", "members": [each.id for each in others], "client_id": "open"}
    conversation = await owner.api.post("/conversations", body, 201)
    return conversation["id"], f"messages/{conversation['id']}"


async def say(who: Client, conversation: str, *bodies: str) -> list[Any]:
    """Send messages, all at once; the messages."""
    requests = [{"conversation": conversation, "client_id": one, "body": one} for one in bodies]
    return await asyncio.gather(*(who.call("message.send", each) for each in requests))


async def subscribe(who: Client, **where: Any) -> Any:
    """Subscribe to one stream; its part of the answer."""
    answer = await who.call("stream.subscribe", {"streams": [where]})
    return answer["streams"][where["stream"]]


async def test_the_sender_hears_what_the_answer_says_on_all_devices(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    conversation, stream = await group(ann, bob)
    async with (
        await connect(api.url, "/messages", ann.token) as phone,
        await connect(api.url, "/messages", ann.token) as laptop,
        await connect(api.url, "/messages", bob.token) as other,
    ):
        (message,) = await say(phone, conversation, "hello")
        own = message | {"client_id": "hello"}
        for each, told in ((phone, own), (laptop, own), (other, message)):
            event = await each.wait_for("message.created")
            assert event["data"] == told
            assert (event["stream"], event["seq"]) == (stream, message["seq"])
            assert event["actor"] == {"id": ann.id, "kind": "user"}


async def test_commands_of_one_connection_are_carried_out_in_order(api: Api) -> None:
    ann = await api.register("Ann")
    conversation, stream = await group(ann)
    async with await connect(api.url, "/messages", ann.token) as alice:
        sent = await say(alice, conversation, *map(str, range(100)))
        assert [each["seq"] for each in sent] == list(range(2, 102))
        await alice.until(lambda: alice.seqs(stream)[-1:] == [101])
        assert alice.seqs(stream) == list(range(2, 102))


async def test_where_one_can_go_on_from(api: Api) -> None:
    ann = await api.register("Ann")
    conversation, stream = await group(ann)
    async with await connect(api.url, "/messages", ann.token) as alice:
        await say(alice, conversation, "one", "two")
        epoch, head = alice.ready["streams"][stream]["epoch"], 3
        places: list[tuple[Mapping[str, Any], bool, list[int]]] = [
            ({}, True, []),
            ({"epoch": epoch}, True, []),
            ({"epoch": epoch, "seq": head}, True, []),
            ({"epoch": epoch, "seq": 1}, True, [2, 3]),
            ({"epoch": epoch, "seq": 0}, True, [1, 2, 3]),
            ({"seq": 0}, True, [1, 2, 3]),
            ({"seq": 1}, False, []),
            ({"epoch": "another", "seq": 1}, False, []),
            ({"epoch": epoch, "seq": head + 1}, False, []),
        ]
        for place, recovered, seqs in places:
            answer = await subscribe(alice, stream=stream, **place)
            assert answer["recovered"] is recovered, place
            assert [each["seq"] for each in answer["events"]] == seqs, place
            assert (answer["epoch"], answer["seq"]) == (epoch, head), place
            assert answer["more"] is not recovered, place
            if {"epoch", "seq"} <= place.keys():
                resumed = await connect(api.url, "/messages", ann.token, resume={stream: place})
                assert resumed.ready["streams"][stream]["recovered"] is recovered, place
                assert resumed.seqs(stream) == seqs, place
                await resumed.close()
                synced = await ann.api.post("/sync", {"streams": {stream: place}})
                assert synced["streams"][stream] == answer, place


async def test_a_gap_is_filled_whole_or_not_at_all(api: Api) -> None:
    ann = await api.register("Ann")
    conversation, stream = await group(ann)
    async with await connect(api.url, "/messages", ann.token) as alice:
        for part in range(11):
            await say(alice, conversation, *(f"{part}.{each}" for each in range(100)))
        epoch, head = alice.ready["streams"][stream]["epoch"], 1101
        whole = await subscribe(alice, stream=stream, epoch=epoch, seq=head - 1000)
        assert [each["seq"] for each in whole["events"]] == list(range(102, 1102))
        assert (whole["recovered"], whole["more"]) == (True, False)
        place = {"epoch": epoch, "seq": head - 1001}
        expected = {"epoch": epoch, "seq": head, "recovered": False, "events": [], "more": True}
        assert await subscribe(alice, stream=stream, **place) == expected
        assert (await ann.api.post("/sync", {"streams": {stream: place}}))["streams"] == {
            stream: expected
        }
        async with await connect(api.url, "/messages", ann.token, resume={stream: place}) as late:
            assert late.ready["streams"][stream]["recovered"] is False
            assert late.seqs(stream) == []


async def test_subscribing_takes_all_streams_or_none(api: Api) -> None:
    ann, eve = await api.register("Ann"), await api.register("Eve")
    conversation, stream = await group(ann)
    _, foreign = await group(eve)
    async with await connect(api.url, "/messages", ann.token) as alice:
        await alice.call("stream.unsubscribe", {"streams": [stream, "messages/none"]})
        for other, code in (
            (foreign, "not_found"),
            ("messages/none", "not_found"),
            (f"messages/{eve.id}", "not_found"),
            (stream.replace("messages", "reactions"), "invalid"),
            ("nonsense", "invalid"),
        ):
            with pytest.raises(CommandFailed) as refused:
                await alice.call(
                    "stream.subscribe", {"streams": [{"stream": stream}, {"stream": other}]}
                )
            assert refused.value.code == code, other
        (message,) = await say(alice, conversation, "unheard")
        backlog = await subscribe(alice, stream=stream, seq=0)
        assert backlog["events"][-1]["data"] == message | {"client_id": "unheard"}
        assert alice.seqs(stream) == []
        await say(alice, conversation, "heard")
        await alice.until(lambda: alice.seqs(stream) == [message["seq"] + 1])


async def test_nothing_live_comes_before_the_answer_that_it_follows(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    conversation, stream = await group(ann, bob)
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", bob.token) as robert,
    ):
        answered: list[int] = []
        plain = robert.on_ack

        def on_ack(number: int, args: list[Any]) -> None:
            if "streams" in args[0]["data"]:
                answered.append(robert.mark())
            plain(number, args)

        robert.on_ack = on_ack  # type: ignore[method-assign]
        for turn in range(20):
            await robert.call("stream.unsubscribe", {"streams": [stream]})
            since = robert.mark()
            bodies = [f"{turn}.{each}" for each in range(10)]
            sent, head = await asyncio.gather(
                say(alice, conversation, *bodies), subscribe(robert, stream=stream)
            )
            last = sent[-1]["seq"]
            expected = list(range(head["seq"] + 1, last + 1))

            def live(since: int = since) -> list[int]:
                return [each["seq"] for each in robert.named("message.created", since)]

            await robert.until(lambda: live()[-1:] == expected[-1:])  # noqa: B023
            assert live() == expected
            # Counts belong to no stream: those of the turn before may still come.
            early = robert.events[since : answered[-1]]
            assert [each for each in early if each.name != "unread.updated"] == []


async def test_the_first_event_of_ones_own_stream_is_resumed(api: Api) -> None:
    ann = await api.register("Ann")
    conversation, stream = await group(ann)
    own = f"messages/{ann.id}"
    async with (
        await connect(api.url, "/messages", ann.token) as phone,
        await connect(api.url, "/messages", ann.token) as laptop,
    ):
        assert phone.ready["streams"][own] == {"epoch": "", "seq": 0, "recovered": True}
        await phone.cut()
        await laptop.call("conversation.update", {"conversation": conversation, "muted": True})
        await laptop.wait_for("conversation.updated")
        await phone.reconnect()
        (missed,) = phone.named("conversation.updated")
        assert (missed["stream"], missed["seq"], missed["data"]["muted"]) == (own, 1, True)
        assert phone.ready["streams"][own]["recovered"] is True
        await laptop.call("conversation.update", {"conversation": conversation, "muted": False})
        await phone.until(lambda: phone.seqs(own) == [1, 2])
        assert stream in phone.ready["streams"]


async def test_an_own_stream_that_begins_after_resuming_is_heard(api: Api) -> None:
    ann = await api.register("Ann")
    conversation, _ = await group(ann)
    own = f"messages/{ann.id}"
    async with await connect(api.url, "/messages", ann.token) as alice:
        await alice.cut()
        await alice.reconnect()
        await alice.call("conversation.update", {"conversation": conversation, "archived": True})
        await alice.until(lambda: alice.seqs(own) == [1])


async def test_ready_tells_of_what_came_and_what_went_meanwhile(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    lost, lost_stream = await group(ann, bob)
    async with await connect(api.url, "/messages", bob.token) as robert:
        assert lost_stream in robert.ready["streams"]
        await robert.cut()
        await ann.api.delete(f"/conversations/{lost}/members/{bob.id}", 200)
        body = {"kind": "direct", "members": [bob.id], "client_id": "new"}
        new = await ann.api.post("/conversations", body, 201)
        since = robert.mark()
        await robert.reconnect()
        assert lost_stream not in robert.ready["streams"]
        assert robert.ready["streams"][f"messages/{new['id']}"]["seq"] == 1
        assert robert.named("message.created", since) == []


async def test_sync_leaves_out_what_the_caller_may_not_read(api: Api) -> None:
    ann, eve = await api.register("Ann"), await api.register("Eve")
    _, stream = await group(ann)
    known = {name: {"epoch": "", "seq": 0} for name in (stream, "messages/none", "nonsense", "")}
    assert (await eve.api.post("/sync", {"streams": known}))["streams"] == {}
    assert (await ann.api.post("/sync", {"streams": known}))["streams"].keys() == {stream}
    refused = await ann.api.post("/sync", {"streams": {stream: {"epoch": "", "seq": -1}}}, 400)
    assert refused["errors"][0]["field"] == f"streams.{stream}.seq"
