"""Who manages groups on a running server, over sockets and REST, when people come, go and are
disabled.
"""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.support.client import connect
from tests.support.recorder import CommandFailed
from tests.support.rest import PASSWORD, Account, Api
from tests.support.server import ServerProcess

SETTINGS = {
    "ADMIN_EMAIL": "root@example.com",
    "ADMIN_PASSWORD": PASSWORD,
    "RATE_LIMITS": "member.added=3/h",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("ownership"), SETTINGS) as process:
        yield process


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with Api(server.url) as found:
        yield found


@pytest.fixture
async def root(api: Api) -> Account:
    return await api.login("root@example.com")


async def test_owners_are_made_and_a_group_does_not_stay_with_a_disabled_one(
    api: Api, root: Account
) -> None:
    ann, bob, cy = [await api.register(each) for each in ("Ann", "Bob", "Cy")]
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", cy.token) as cyril,
    ):
        group = await alice.call(
            "conversation.create", {"kind": "group", "members": [bob.id, cy.id], "client_id": "1"}
        )
        fields = {"conversation": group["id"], "user": ann.id, "role": "member"}
        with pytest.raises(CommandFailed) as refused:
            await alice.call("member.update", fields)
        assert refused.value.code == "conflict"
        path = f"/conversations/{group['id']}/members/{bob.id}"
        answer = await bob.api.request("PATCH", path, json={"role": "owner"})
        assert answer.status == 403
        answer = await root.api.request("PATCH", path, json={"role": "owner"})
        assert answer.status == 404
        answered = await ann.api.patch(path, {"role": "owner"})
        assert [each["role"] for each in answered["members"]] == ["owner", "owner", "member"]
        event = await cyril.wait_for("member.updated")
        assert event["data"] == {"conversation": group["id"], "user": bob.id, "role": "owner"}
        await alice.call("member.update", fields)
        # The last owner is disabled: the one who has been in it longest has it.
        await root.api.post(f"/users/{bob.id}/disable")
        event = await cyril.wait_for(
            "member.updated",
            lambda each: each["data"]["role"] == "owner" and each["data"]["user"] != bob.id,
        )
        assert event["data"]["user"] == ann.id
        assert event["actor"]["kind"] == "system"
        await alice.call("conversation.update", {"conversation": group["id"], "title": "again"})


@pytest.mark.parametrize("kind", ["group", "channel"])
async def test_a_group_is_deleted_over_rest_and_a_channel_over_a_socket(
    api: Api, root: Account, kind: str
) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    form = aiohttp.FormData()
    form.add_field("file", b"hello", content_type="text/plain", filename="a.txt")
    file = (await ann.api.request("POST", "/uploads", data=form)).expect(201)

    async def downloads(who: Account) -> int:
        return (await who.api.request("GET", f"/uploads/{file['id']}")).status

    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", bob.token) as robert,
        await connect(api.url, "/messages", root.token) as admin,
    ):
        room = {"kind": kind, "members": [bob.id], "client_id": kind}
        id = (await alice.call("conversation.create", room))["id"]
        said = {"conversation": id, "client_id": "m", "body": "x", "attachments": [file["id"]]}
        await alice.call("message.send", said)
        await robert.wait_for("message.created")
        assert await downloads(bob) == 200
        path = f"/conversations/{id}"
        assert (await bob.api.request("DELETE", path)).status == 403
        for _ in range(2):
            if kind == "group":
                await ann.api.delete(path)
            else:
                # In a channel admins may, also from outside.
                assert await admin.call("conversation.delete", {"conversation": id}) is None
        event = await robert.wait_for("conversation.deleted")
        assert event["actor"]["id"] == (ann.id if kind == "group" else root.id)
        assert (event["stream"], event["data"]) == (f"messages/{id}", {"id": id})
        with pytest.raises(CommandFailed) as refused:
            await alice.call("message.send", {**said, "client_id": "n"})
        assert refused.value.code == "not_found"
        answer = await bob.api.request("GET", f"{path}/messages")
        assert (answer.status, answer.json["code"]) == (404, "not_found")
        assert [await downloads(each) for each in (ann, bob)] == [200, 404]
        assert (await ann.api.post("/conversations", room, 201))["id"] == id
        assert (await bob.api.get("/conversations"))["items"] == []
        assert (await bob.api.get("/unread"))["total"] == 0


async def test_strangers_put_nobody_into_ever_more_groups_and_many_are_left_at_once(
    api: Api, root: Account
) -> None:
    ann, eve = await api.register("Ann"), await api.register("Eve")
    direct = {"kind": "direct", "members": [ann.id], "client_id": "direct"}
    room = {**direct, "kind": "group"}
    rooms: list[str] = []
    for number in range(4):
        room["client_id"] = str(number)
        reply = await eve.api.request("POST", "/conversations", json=room)
        if number < 3:
            rooms.append(reply.expect(201)["id"])
        else:
            assert reply.expect(429)["code"] == "rate_limited"
            assert int(reply.headers["retry-after"]) > 60
    for who in (eve, root):
        await who.api.post("/conversations", direct, 201)
    await root.api.post("/conversations", {**direct, "kind": "group", "client_id": "g"}, 201)
    await ann.api.post("/contacts", {"user": eve.id}, 201)
    reply = (await eve.api.request("POST", "/conversations", json=room)).expect(201)
    left = await ann.api.post("/users/me/conversations/leave", {"conversations": rooms})
    assert left == {"items": [{"conversation": id, "ok": True, "error": None} for id in rooms]}
    async with await connect(api.url, "/messages", ann.token) as client:
        left = await client.call(
            "conversation.leave_many", {"conversations": [rooms[0], reply["id"]]}
        )
        assert [each["ok"] for each in left["items"]] == [False, True]
        assert left["items"][0]["error"]["code"] == "not_found"
        with pytest.raises(CommandFailed) as refused:
            await client.call("conversation.leave_many", {"conversations": rooms * 40})
        assert refused.value.code == "invalid"
    kinds = [each["kind"] for each in (await ann.api.get("/conversations"))["items"]]
    assert sorted(kinds) == ["direct", "direct", "group"]


async def test_a_group_does_not_stay_with_an_agent_whose_key_is_revoked(
    api: Api, root: Account
) -> None:
    bob = await api.register("Bob")
    made = await root.api.post("/api-keys", {"name": "bot", "role": "member"}, 201)
    async with (
        await connect(api.url, "/messages", made["key"]) as agent,
        await connect(api.url, "/messages", bob.token) as phone,
    ):
        request = {"kind": "group", "members": [bob.id], "client_id": "1"}
        group = await agent.call("conversation.create", request)
        await root.api.delete(f"/api-keys/{made['id']}")
        await phone.wait_for(
            "member.updated",
            lambda event: (event["data"]["user"], event["data"]["role"]) == (bob.id, "owner"),
        )
    await bob.api.patch(f"/conversations/{group['id']}", {"title": "Ours"})
