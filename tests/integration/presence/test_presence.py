"""Presence, typing, receipts, unread counts and reactions on a running server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.support.client import connect
from tests.support.recorder import CommandFailed
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory: Path = tmp_path_factory.mktemp("presence")
    with ServerProcess(directory) as process:
        yield process


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with Api(server.url) as found:
        yield found


async def opened(owner: Account, *others: Account, kind: str = "group") -> Any:
    body = {"kind": kind, "members": [each.id for each in others], "client_id": "open"}
    return await owner.api.post("/conversations", body, 201)


async def sent(who: Account, conversation: str, body: str, **more: Any) -> Any:
    path = f"/conversations/{conversation}/messages"
    return await who.api.post(path, {"client_id": body, "body": body, **more}, 201)


async def test_presence_over_sockets(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    group = await opened(ann, bob)
    async with await connect(api.url, "/presence", bob.token) as robert:
        before = await robert.call("presence.watch", {"users": [ann.id]})
        assert [(each["user"], each["status"]) for each in before] == [(ann.id, "offline")]
        alice = await connect(api.url, "/messages", ann.token)
        come = await robert.wait_for("presence.changed")
        assert (come["data"]["status"], come["data"]["devices"]) == ("online", 1)
        assert come["type"] == "presence.changed"
        desk = await alice.join("/presence")
        value = await desk.call("presence.set", {"status": "busy", "text": "deep work"})
        assert await robert.wait_for("presence.changed", lambda each: each["data"] == value)
        there = await robert.call("presence.room", {"stream": f"messages/{group['id']}"})
        assert [each["user"] for each in there["items"]] == [ann.id]
        with pytest.raises(CommandFailed) as refused:
            await robert.call("presence.room", {"stream": "messages/none"})
        assert refused.value.code == "not_found"
        with pytest.raises(CommandFailed) as refused:
            await robert.call("presence.set", {"status": "offline"})
        assert refused.value.code == "invalid"
        assert await desk.call("presence.activity", {"idle": True}) == {}
        await ann.api.post("/auth/logout")
        gone = await robert.wait_for(
            "presence.changed", lambda each: each["data"]["status"] == "offline"
        )
        assert gone["data"]["last_seen"] is not None
        assert gone["data"]["devices"] == 0
        await alice.wait_closed()
        await alice.close()


async def test_a_block_hides(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    async with (
        await connect(api.url, "/presence", bob.token) as robert,
        await connect(api.url, "/presence", ann.token),
    ):
        now = await robert.call("presence.watch", {"users": [ann.id]})
        assert now[0]["status"] == "online"
        await ann.api.put(f"/contacts/{bob.id}/block")
        await robert.wait_for("presence.changed", lambda each: each["data"]["status"] == "offline")


async def test_typing_is_heard_and_ends_with_the_connection(api: Api) -> None:
    ann, bob, eve = [await api.register(name) for name in ("Ann", "Bob", "Eve")]
    group = await opened(ann, bob)
    where = {"conversation": group["id"]}
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", bob.token) as robert,
        await connect(api.url, "/messages", eve.token) as stranger,
    ):
        assert await alice.call("typing.start", where) == {}
        await alice.call("typing.start", where)
        assert await alice.call("typing.stop", where) == {}
        await alice.call("typing.start", where)
        await alice.cut()
        await robert.until(lambda: len(robert.named("typing.changed")) == 4)
        heard = robert.named("typing.changed")
        assert [each["data"]["typing"] for each in heard] == [True, False, True, False]
        assert heard[0]["data"] == {**where, "user": ann.id, "typing": True}
        assert heard[0]["stream"] == f"messages/{group['id']}"
        with pytest.raises(CommandFailed) as refused:
            await stranger.call("typing.start", where)
        assert refused.value.code == "not_found"


async def test_receipts_and_unread_on_several_devices(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    group = await opened(ann, bob)
    first = await sent(ann, group["id"], "one", mentions=[bob.id])
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", bob.token) as phone,
        await connect(api.url, "/messages", bob.token) as desk,
    ):
        at_first = {"total": 1, "mentions": 1, "more": False}
        assert phone.ready["unread"] == desk.ready["unread"] == at_first
        assert await bob.api.get("/unread") == at_first
        assert await phone.call("unread.get") == at_first
        listed = (await bob.api.get("/conversations"))["items"][0]
        assert (listed["unread"], listed["mentions"]) == (1, 1)
        second = await sent(ann, group["id"], "two")
        for device in (phone, desk):
            count = await device.wait_for(
                "unread.updated", lambda each: each["data"]["unread"] == 2
            )
            assert count["data"] == {
                "conversation": group["id"],
                "unread": 2,
                "more": False,
                "mentions": 1,
                "total": 2,
            }
        place = await phone.call(
            "message.read", {"conversation": group["id"], "seq": second["seq"]}
        )
        assert place["read_seq"] == place["delivered_seq"] == second["seq"]
        for device in (phone, desk):
            await device.wait_for("unread.updated", lambda each: each["data"]["total"] == 0)
        moved = await alice.wait_for("receipt.updated")
        assert moved["data"] == place
        status = await ann.api.get(f"/messages/{first['id']}/status")
        assert status["items"] == [
            {"user": bob.id, "delivered_at": place["delivered_at"], "read_at": place["read_at"]}
        ]
        history = await ann.api.get(f"/conversations/{group['id']}/messages")
        assert [each["status"] for each in history["items"]] == ["read", "read"]
        again = await bob.api.put(f"/messages/{first['id']}/status", {"status": "read"})
        assert again == place
        assert (await bob.api.get("/conversations"))["items"][0]["unread"] == 0


async def test_who_resumes_hears_of_receipts_and_unread(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    group = await opened(ann, bob)
    async with await connect(api.url, "/messages", bob.token) as robert:
        message = await sent(bob, group["id"], "hello")
        await robert.wait_for("message.created")
        await robert.cut()
        place = await ann.api.put(f"/messages/{message['id']}/status", {"status": "read"})
        await sent(ann, group["id"], "and you")
        mark = robert.mark()
        await robert.reconnect()
        told = await robert.wait_for("receipt.updated", since=mark)
        assert told["data"] == place
        count = await robert.wait_for("unread.updated", since=mark)
        assert (count["data"]["unread"], count["data"]["total"]) == (1, 1)


async def test_reactions_over_sockets_and_rest(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    group = await opened(ann, bob)
    message = await sent(ann, group["id"], "hello")
    react = {"message": message["id"], "emoji": "👍"}
    async with (
        await connect(api.url, "/reactions", ann.token) as alice,
        await connect(api.url, "/reactions", bob.token) as robert,
    ):
        answers = await asyncio.gather(
            alice.call("reaction.add", react), robert.call("reaction.add", react)
        )
        assert sorted(each["counts"]["👍"] for each in answers) == [1, 2]
        await alice.until(lambda: len(alice.named("reaction.added")) == 2)
        await robert.cut()
        path = f"/messages/{message['id']}/reactions"
        gone = await ann.api.request("DELETE", path, json={"emoji": "👍"})
        assert gone.expect(200)["counts"] == {"👍": 1}
        assert (await ann.api.post(path, {"emoji": "❤"}))["emoji"] == "❤️"
        await robert.reconnect()
        stream = f"reactions/{group['id']}"
        await robert.until(lambda: robert.seqs(stream) == [1, 2, 3, 4])
        found = await bob.api.get(path)
        assert {each["emoji"]: each["users"] for each in found["items"]} == {
            "👍": [bob.id],
            "❤️": [ann.id],
        }
        history = await bob.api.get(f"/conversations/{group['id']}/messages")
        assert history["items"][0]["reactions"] == {"👍": 1, "❤️": 1}
        with pytest.raises(CommandFailed) as refused:
            await alice.call("reaction.add", {**react, "emoji": "nice"})
        assert refused.value.code == "invalid"


async def test_watching_too_many_is_too_large_in_one_call_and_in_several(api: Api) -> None:
    ann = await api.register("Ann")
    async with await connect(api.url, "/presence", ann.token) as here:
        for command in ("presence.watch", "presence.unwatch"):
            answer = await here.request(command, {"users": [f"u{n}" for n in range(1_001)]})
            assert answer["error"]["code"] == "too_large"
        await here.call("presence.watch", {"users": [f"u{n}" for n in range(1_000)]})
        answer = await here.request("presence.watch", {"users": ["one-more"]})
        assert answer["error"]["code"] == "too_large"


async def test_metrics_tell_who_is_there_and_who_looks(start_server: StartServer) -> None:
    server = start_server(PRESENCE_GRACE="1h")

    async def number(api: Api, name: str) -> float:
        text = (await api.request("GET", "//metrics")).body.decode()
        (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
        return float(line.rpartition(" ")[2])

    async with Api(server.url) as api:
        ann, bob = await api.register("Ann"), await api.register("Bob")
        async with await connect(server.url, "/presence", ann.token) as here:
            async with await connect(server.url, "/presence", bob.token):
                await here.call("presence.watch", {"users": [bob.id, "nobody"]})
                assert await number(api, 'parley_presence_users{kind="online"}') == 2
                assert await number(api, 'parley_presence_watches{kind="watched"}') == 2
                assert await number(api, 'parley_presence_watches{kind="watchers"}') == 1
                assert await number(api, "parley_presence_swept_total") == 0
            async with asyncio.timeout(10):
                while await number(api, 'parley_presence_users{kind="leaving"}') != 1:
                    await asyncio.sleep(0.05)
            assert await number(api, 'parley_presence_users{kind="online"}') == 1
