"""Conversations and messages on a running server, over sockets and REST."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import connect
from tests.support.recorder import CommandFailed
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory: Path = tmp_path_factory.mktemp("messaging")
    with ServerProcess(directory) as process:
        yield process


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with Api(server.url) as found:
        yield found


async def opened(owner: Account, *others: Account, kind: str = "group", **more: Any) -> Any:
    body = {"kind": kind, "members": [each.id for each in others], "client_id": "open", **more}
    return await owner.api.post("/conversations", body, 201)


async def sent(who: Account, conversation: str, body: str, **more: Any) -> Any:
    path = f"/conversations/{conversation}/messages"
    request = {"client_id": body, "body": body, **more}
    return await who.api.post(path, request, 201)


async def test_two_people_talk_and_one_who_was_away_misses_nothing(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", bob.token) as robert,
    ):
        conversation = await alice.call(
            "conversation.create", {"kind": "direct", "members": [bob.id], "client_id": "1"}
        )
        await robert.wait_for("conversation.created")
        request = {"conversation": conversation["id"], "client_id": "1", "body": "hello"}
        first = await alice.call("message.send", request)
        assert await alice.call("message.send", request) == first
        heard = await robert.wait_for("message.created")
        assert heard["data"] == first
        await robert.cut()
        second = await alice.call("message.send", {**request, "client_id": "2", "body": "there?"})
        edited = await alice.call(
            "message.edit", {"message": second["id"], "body": "there!", "version": 1}
        )
        await robert.reconnect()
        missed = [each["data"] for each in robert.named("message.created")]
        assert missed == [first, second]
        assert [each["data"] for each in robert.named("message.edited")] == [edited]
        page = await bob.api.get(f"/conversations/{conversation['id']}/messages")
        assert page == {"items": [first, edited], "next": None}
        with pytest.raises(CommandFailed) as refused:
            await alice.call(
                "message.edit", {"message": second["id"], "body": "late", "version": 1}
            )
        assert refused.value.code == "conflict"


async def test_everything_over_rest(api: Api) -> None:
    ann, bob, cy = [await api.register(name) for name in ("Ann", "Bob", "Cy")]
    group = await opened(ann, bob, title="Plans")
    path = f"/conversations/{group['id']}"
    assert (await bob.api.get("/conversations"))["items"] == [group]
    assert await bob.api.get(path) == group
    await cy.api.get(path, 404)
    await cy.api.post(f"{path}/messages", {"client_id": "x", "body": "x"}, 404)

    renamed = await ann.api.patch(path, {"title": "Better plans", "muted": True})
    assert (renamed["title"], renamed["muted"]) == ("Better plans", True)
    await bob.api.patch(path, {"title": "Mine"}, 403)
    await bob.api.patch(path, {"colour": "red"}, 400)

    await ann.api.post(f"{path}/members", {"user": cy.id})
    listed = await cy.api.get(f"{path}/members", limit=2)
    assert [each["user"] for each in listed["items"]] == [ann.id, bob.id]
    rest = await cy.api.get(f"{path}/members", limit=2, cursor=listed["next"])
    assert [each["user"] for each in rest["items"]] == [cy.id]
    await ann.api.delete(f"{path}/members/{cy.id}", 200)
    await cy.api.get(path, 404)

    root = await sent(ann, group["id"], "root of all threads")
    reply = await sent(bob, group["id"], "a reply", reply_to=root["id"], thread=root["id"])
    thread = await ann.api.get(f"{path}/messages", thread=root["id"])
    assert thread["items"] == [reply]
    assert (await ann.api.get(f"/messages/{root['id']}")) == root
    pinned = await bob.api.put(f"/messages/{root['id']}/pin")
    assert (await ann.api.get(f"{path}/pins"))["items"] == [pinned]
    await bob.api.delete(f"/messages/{root['id']}/pin", 200)
    found = await bob.api.get("/search/messages", q="thread")
    assert [each["id"] for each in found["items"]] == [root["id"]]
    edited = await ann.api.patch(f"/messages/{root['id']}", {"body": "changed", "version": 1})
    assert edited["version"] == 2
    problem = await ann.api.request(
        "PATCH", f"/messages/{root['id']}", json={"body": "again", "version": 1}
    )
    assert problem.expect(409)["code"] == "conflict"
    gone = await ann.api.delete(f"/messages/{root['id']}", 200)
    assert gone["body"] == ""
    await bob.api.delete(f"/messages/{reply['id']}?scope=me", 200)
    assert [each["id"] for each in (await bob.api.get(f"{path}/messages"))["items"]] == [root["id"]]
    await bob.api.post(f"{path}/leave")
    assert (await bob.api.get("/conversations"))["items"] == []

    channel = await opened(ann, kind="channel", title="News", client_id="2")
    joinable = await bob.api.get("/conversations", kind="channel", joinable="true", limit=200)
    assert channel["id"] in [each["id"] for each in joinable["items"]]
    joined = await bob.api.post(f"/conversations/{channel['id']}/join")
    assert joined["id"] == channel["id"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("before=x", "before"),
        ("since=yesterday", "since"),
        ("since=2026-01-01T00:00:00", "since"),
        ("colour=red", "colour"),
        ("around=3&before=9", "around"),
        ("cursor=nonsense", "cursor"),
    ],
)
async def test_a_wrong_question_is_answered_with_its_field(
    api: Api, query: str, field: str
) -> None:
    ann = await api.register("Ann")
    group = await opened(ann)
    answer = await ann.api.request("GET", f"/conversations/{group['id']}/messages?{query}")
    problem = answer.expect(400)
    assert problem["code"] == "invalid"
    assert problem["errors"][0]["field"] == field


async def test_times_of_any_zone_bound_history(api: Api) -> None:
    ann = await api.register("Ann")
    group = await opened(ann)
    message = await sent(ann, group["id"], "now")
    path = f"/conversations/{group['id']}/messages"
    for since in ("2020-01-01T00:00:00Z", "2020-01-01T05:30:00+05:30", message["created_at"]):
        assert (await ann.api.get(path, since=since))["items"] == [message]
    for until in ("2020-01-01T00:00:00Z", "0001-01-01T00:00:00Z"):
        assert (await ann.api.get(path, until=until))["items"] == []
    assert (await ann.api.get(path, until="9999-12-31T23:59:59Z"))["items"] == [message]
    await ann.api.get(path, 400, until="9999-12-31T23:59:59-14:00")


async def test_a_member_who_is_put_out_hears_no_more_at_once(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    group = await opened(ann, bob)
    async with await connect(api.url, "/messages", bob.token) as robert:
        await ann.api.delete(f"/conversations/{group['id']}/members/{bob.id}", 200)
        await robert.wait_for("member.removed")
        await sent(ann, group["id"], "among ourselves")
        await ann.api.post(f"/conversations/{group['id']}/members", {"user": bob.id})
        await robert.wait_for("member.added")
        last = await sent(ann, group["id"], "welcome back")
        await robert.wait_for("message.created", lambda event: event["data"] == last)
        assert len(robert.named("message.created")) == 1


async def test_concurrent_senders_get_one_order(api: Api) -> None:
    people = [await api.register(f"P{number}") for number in range(4)]
    group = await opened(*people)
    async with await connect(api.url, "/messages", people[0].token) as listener:
        messages = await asyncio.gather(
            *(sent(who, group["id"], f"{number}") for who in people for number in range(25))
        )
        last = max(messages, key=lambda each: each["seq"])
        # Its own messages are told to the listener with their client_id.
        await listener.wait_for("message.created", lambda told: told["data"]["id"] == last["id"])
        heard = [each["data"]["seq"] for each in listener.named("message.created")]
        assert heard == sorted(each["seq"] for each in messages)


async def test_typing_ends_with_the_message_and_with_being_put_out(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    group = await opened(ann, bob)
    conversation = group["id"]

    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", bob.token) as robert,
    ):

        def heard() -> list[bool]:
            return [each["data"]["typing"] for each in alice.named("typing.changed")]

        await robert.call("typing.start", {"conversation": conversation})
        await alice.until(lambda: heard() == [True])
        # Sent over REST: it is the same person's message.
        await sent(bob, conversation, "done")
        await alice.until(lambda: heard() == [True, False], timeout=3)
        await robert.call("typing.start", {"conversation": conversation})
        await alice.until(lambda: heard() == [True, False, True])
        await ann.api.delete(f"/conversations/{conversation}/members/{bob.id}", 200)
        await alice.until(lambda: heard() == [True, False, True, False], timeout=3)
