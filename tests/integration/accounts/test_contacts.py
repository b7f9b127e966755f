"""Contacts and blocks on a running server."""

import asyncio

import pytest

from tests.support.client import connect
from tests.support.recorder import CommandFailed
from tests.support.rest import Api


async def test_over_rest(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    added = await ann.api.post("/contacts", {"user": bob.id}, 201)
    assert added["name"] == "Bob"
    assert await ann.api.get("/contacts") == {"items": [added], "next": None}
    assert (await ann.api.get("/contacts", q="bo"))["items"] == [added]
    assert (await ann.api.get("/contacts", q="ob"))["items"] == []
    blocked = await ann.api.put(f"/contacts/{bob.id}/block")
    assert blocked == {**added, "blocked": True}
    assert (await ann.api.get("/contacts", blocked="true"))["items"] == [blocked]
    assert (await bob.api.get("/contacts"))["items"] == []
    assert await ann.api.delete(f"/contacts/{bob.id}/block", 200) == added
    gone = await ann.api.delete(f"/contacts/{bob.id}", 200)
    assert gone == {**added, "added_at": None}
    assert (await ann.api.get("/contacts"))["items"] == []
    assert (await ann.api.post("/contacts", {"user": "nobody"}, 404))["code"] == "not_found"
    assert (await ann.api.post("/contacts", {"user": ann.id}, 400))["code"] == "invalid"
    assert (await ann.api.post("/contacts", {}, 400))["errors"][0]["field"] == "user"


async def test_over_a_socket(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    async with await connect(api.url, "/messages", ann.token) as alice:
        added = await alice.call("contact.add", {"user": bob.id})
        assert await alice.call("contact.list") == {"items": [added], "next": None}
        assert (await alice.call("contact.block", {"user": bob.id}))["blocked"]
        assert not (await alice.call("contact.unblock", {"user": bob.id}))["blocked"]
        assert (await alice.call("contact.remove", {"user": bob.id}))["added_at"] is None
        with pytest.raises(CommandFailed) as refused:
            await alice.call("contact.add", {"user": bob.id, "nick": "B"})
        assert refused.value.code == "invalid"


async def test_a_blocked_user_cannot_write_and_is_not_told(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", bob.token) as robert,
    ):
        direct = await robert.call(
            "conversation.create", {"kind": "direct", "members": [ann.id], "client_id": "1"}
        )
        group = await robert.call(
            "conversation.create", {"kind": "group", "members": [ann.id], "client_id": "2"}
        )
        heard = robert.mark()
        await alice.call("contact.block", {"user": bob.id})
        said = {"conversation": direct["id"], "client_id": "3", "body": "hello?"}
        with pytest.raises(CommandFailed) as refused:
            await robert.call("message.send", said)
        assert refused.value.code in {"forbidden", "not_found"}
        for each in (direct, group):
            await robert.call("typing.start", {"conversation": each["id"]})
        await robert.call("message.send", {**said, "conversation": group["id"]})
        await alice.wait_for("message.created", lambda event: event["data"]["body"] == "hello?")
        typed = [each["data"]["conversation"] for each in alice.named("typing.changed")]
        assert {*typed} == {group["id"]}
        told = await robert.wait_for("message.created", since=heard)
        assert told["data"]["conversation"] == group["id"]
        await alice.call("contact.unblock", {"user": bob.id})
        sent = await robert.call("message.send", said)
        await alice.wait_for("message.created", lambda event: event["data"]["id"] == sent["id"])

    cy = await api.register("Cy")
    await cy.api.put(f"/contacts/{bob.id}/block")
    body = {"kind": "direct", "members": [cy.id], "client_id": "4"}
    answer = await bob.api.request("POST", "/conversations", json=body)
    assert answer.status in {403, 404}
    assert (await cy.api.get("/conversations"))["items"] == []


async def test_adding_many_times_at_once_is_adding_once(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    added = await asyncio.gather(
        *(ann.api.post("/contacts", {"user": bob.id}, 201) for _ in range(10))
    )
    assert all(each == added[0] for each in added)
    assert len((await ann.api.get("/contacts"))["items"]) == 1


async def test_many_people_are_fetched_at_once(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    ids = [bob.id, "nobody", ann.id, bob.id]
    page = await ann.api.get("/users", ids=",".join(ids))
    assert page == {
        "items": [await ann.api.get(f"/users/{bob.id}"), await ann.api.get(f"/users/{ann.id}")],
        "next": None,
    }
    assert "email" not in page["items"][0]
    for namespace in ("/messages", "/presence"):
        async with await connect(api.url, namespace, ann.token) as socket:
            assert await socket.call("user.list", {"ids": ids}) == page
            with pytest.raises(CommandFailed) as refused:
                await socket.call("user.list", {"ids": ["x"] * 201})
            assert refused.value.code == "invalid"
    await ann.api.get("/users", 400, ids=",".join(["x"] * 201))
    await ann.api.get("/users", 400, ids=ann.id, q="Ann")
    assert (await ann.api.get("/users", ids=""))["items"] == []
