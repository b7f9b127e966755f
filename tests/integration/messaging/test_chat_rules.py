"""What people expect of a chat, through the doors that clients use, on both engines."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.support.client import connect
from tests.support.mongod import scratch
from tests.support.rest import PASSWORD, Account, Api
from tests.support.server import ServerProcess


@pytest.fixture(scope="module", params=["sqlite", "mongo"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("rules")
    with ExitStack() as stack:
        settings = {"ADMIN_EMAIL": "root@example.com", "ADMIN_PASSWORD": PASSWORD}
        if request.param == "mongo":
            database = stack.enter_context(scratch(request.getfixturevalue("mongodb")))
            settings["STORE_URL"] = database.url
        yield stack.enter_context(ServerProcess(directory, settings)).url


@pytest.fixture
async def api(url: str) -> AsyncIterator[Api]:
    async with Api(url) as found:
        yield found


async def group(owner: Account, *others: Account) -> str:
    body = {"kind": "group", "members": [each.id for each in others], "client_id": "open"}
    return str((await owner.api.post("/conversations", body, 201))["id"])


async def send(who: Account, room: str, body: str, **more: Any) -> Any:
    request = {"client_id": body, "body": body, **more}
    return await who.api.post(f"/conversations/{room}/messages", request, 201)


async def test_mentions_follow_edits(api: Api) -> None:
    ann, bob, cy = [await api.register(name) for name in ("Ann", "Bob", "Cy")]
    room = await group(ann, bob, cy)
    sent = await send(ann, room, "hello", mentions=[bob.id])

    async def mentions() -> list[int]:
        asked = [await each.api.get(f"/conversations/{room}") for each in (bob, cy)]
        totals = [await each.api.get("/unread") for each in (bob, cy)]
        assert [each["mentions"] for each in totals] == [each["mentions"] for each in asked]
        return [each["mentions"] for each in asked]

    assert await mentions() == [1, 0]
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", cy.token) as cyril,
    ):
        change = {"message": sent["id"], "body": "hi", "version": 1, "mentions": [cy.id, cy.id]}
        edited = await alice.call("message.edit", change)
        assert edited["mentions"] == [cy.id]
        assert (await cyril.wait_for("message.edited"))["data"]["mentions"] == [cy.id]
        told = await cyril.wait_for("unread.updated")
        assert told["data"]["mentions"] == 1
        assert await mentions() == [0, 1]
        path = f"/messages/{sent['id']}"
        await ann.api.patch(path, {"body": "hi", "version": 2, "mentions": []})
        assert await mentions() == [0, 0]
        await cyril.wait_for("unread.updated", lambda each: each["data"]["mentions"] == 0)
    stranger = await api.register("Eve")
    wrong = {"body": "hi", "version": 3, "mentions": [stranger.id]}
    problem = (await ann.api.request("PATCH", path, json=wrong)).expect(400)
    assert problem["errors"][0]["field"] == "mentions"


FORM = "--x\r\nContent-Disposition: form-data; name=file; filename={}\r\n\r\nhello\r\n--x--\r\n"


async def upload(who: Account, name: str = "a.txt") -> str:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    reply = await who.api.request(
        "POST", "/uploads", data=FORM.format(name).encode(), headers=headers
    )
    return str(reply.expect(201)["id"])


async def test_a_file_that_is_deleted_says_so_in_its_messages(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    room, other = await group(ann, bob), await group(bob)
    await bob.api.post(f"/conversations/{other}/members", {"user": ann.id})
    one, two = await upload(ann), await upload(ann)
    sent = [
        await send(ann, room, "first", attachments=[one, two]),
        await send(ann, room, "second", attachments=[one]),
        await send(ann, other, "third", attachments=[one]),
    ]
    # Also where its owner is no longer, and beside another file of the same message.
    await ann.api.post(f"/conversations/{other}/leave")
    async with await connect(api.url, "/messages", bob.token) as robert:
        await asyncio.gather(*(ann.api.delete(f"/uploads/{each}", 200) for each in (one, two)))
        await robert.until(lambda: len(robert.named("message.edited")) == 4)
        told = robert.named("message.edited")
        assert {each["actor"]["id"] for each in told} == {ann.id}
        last = {each["data"]["id"]: each["data"] for each in told}
    for message in sent:
        now = await bob.api.get(f"/messages/{message['id']}")
        assert now["attachments"] == [{**each, "deleted": True} for each in message["attachments"]]
        assert (now["body"], now["version"], now["edited_at"]) == (message["body"], 1, None)
        assert last[message["id"]] == now
    # It can be edited and deleted as before.
    change = {"body": "changed", "version": 1}
    edited = await ann.api.patch(f"/messages/{sent[0]['id']}", change)
    assert [each["deleted"] for each in edited["attachments"]] == [True, True]
    assert (await ann.api.delete(f"/messages/{sent[0]['id']}", 200))["attachments"] == []


async def picture(who: Account) -> str:
    form, file = aiohttp.FormData(), io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(file, "PNG")
    form.add_field("file", file.getvalue(), filename="a.png", content_type="image/png")
    return str((await who.api.request("POST", "/uploads", data=form)).expect(201)["id"])


async def test_an_avatar_that_is_an_upload_is_seen_by_all_and_kept(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    one, two = await picture(ann), await picture(ann)
    for id in (one, two):
        (await bob.api.request("GET", f"/uploads/{id}")).expect(404)
    mine = await ann.api.put("/users/me", {"avatar": f"/api/v1/uploads/{one}"})
    assert (await bob.api.get(f"/users/{ann.id}"))["avatar"] == mine["avatar"]
    seen = await bob.api.request("GET", mine["avatar"].removeprefix("/api/v1"))
    assert (seen.status, seen.headers["content-type"]) == (200, "image/png")
    assert (await bob.api.request("GET", f"/uploads/{one}?size=small")).status == 200
    await ann.api.put("/users/me", {"name": "Anna"})
    assert (await bob.api.request("GET", f"/uploads/{one}")).status == 200
    # Only what is there, one's own, and a picture.
    for wrong in (await picture(bob), await upload(ann), "nothing"):
        bad = {"avatar": f"/api/v1/uploads/{wrong}"}
        problem = (await ann.api.request("PUT", "/users/me", json=bad)).expect(400)
        assert problem["errors"][0]["field"] == "avatar"
    await ann.api.put("/users/me", {"avatar": f"/api/v1/uploads/{two}"})
    assert (await bob.api.request("GET", f"/uploads/{one}")).status == 404
    assert (await bob.api.request("GET", f"/uploads/{two}")).status == 200
    # The file goes, and with it the avatar.
    await ann.api.delete(f"/uploads/{two}", 200)
    assert (await bob.api.get(f"/users/{ann.id}"))["avatar"] is None


async def test_typing_ends_with_the_right_to_write(api: Api) -> None:
    ann, bob, cy = [await api.register(name) for name in ("Ann", "Bob", "Cy")]
    body = {"kind": "direct", "members": [bob.id], "client_id": "d"}
    direct = (await ann.api.post("/conversations", body, 201))["id"]
    room = await group(cy, ann, bob)
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", bob.token) as robert,
    ):

        async def types(conversation: str) -> None:
            await alice.call("typing.start", {"conversation": conversation})
            await robert.wait_for("typing.changed", is_typing(conversation, True))

        def is_typing(conversation: str, typing: bool) -> Any:
            told = {"conversation": conversation, "user": ann.id, "typing": typing}
            return lambda event: event["data"] == told

        await types(direct)
        await types(room)
        # A block ends it in the conversation of the two alone, sooner than by itself.
        async with asyncio.timeout(4):
            await bob.api.put(f"/contacts/{ann.id}/block")
            await robert.wait_for("typing.changed", is_typing(direct, False))
            assert not any(is_typing(room, False)(each) for each in robert.named("typing.changed"))
            await cy.api.delete(f"/conversations/{room}/members/{ann.id}", 200)
            await robert.wait_for("typing.changed", is_typing(room, False))


async def test_a_direct_conversation_with_somebody_disabled_opens(url: str, api: Api) -> None:
    root = await api.login("root@example.com")
    ann, bob, cy = [await api.register(name) for name in ("Ann", "Bob", "Cy")]
    body = {"kind": "direct", "members": [bob.id], "client_id": "d"}
    first = await ann.api.post("/conversations", body, 201)
    said = await send(bob, first["id"], "before")
    await root.api.post(f"/users/{bob.id}/disable")
    again = await ann.api.post("/conversations", {**body, "client_id": "e"}, 201)
    assert again["id"] == first["id"]
    page = await ann.api.get(f"/conversations/{first['id']}/messages")
    assert [each["id"] for each in page["items"]] == [said["id"]]
    async with await connect(api.url, "/messages", cy.token) as cyril:
        new = await cyril.call("conversation.create", body)
        for who, room in ((cy, new["id"]), (ann, first["id"])):
            assert (await send(who, room, "for later"))["status"] == "sent"
        assert (await cyril.request("member.add", {"conversation": new["id"], "user": bob.id}))[
            "error"
        ]["code"] == "invalid"
    await root.api.post(f"/users/{bob.id}/enable")
    back = await api.login(bob.email)
    listed = (await back.api.get("/conversations"))["items"]
    assert {each["id"]: each["unread"] for each in listed} == {first["id"]: 1, new["id"]: 1}
