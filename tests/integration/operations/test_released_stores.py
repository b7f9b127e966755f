"""What the released version stored is there after the upgrade: people, sessions, keys, history."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.client import connect
from tests.support.mongod import scratch
from tests.support.released import Released
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess


class Upgraded(NamedTuple):
    """A server on a store that the released version made."""

    server: ServerProcess
    known: dict[str, Any]
    api: Api

    async def person(self, name: str) -> Account:
        """A new session of somebody."""
        return await self.api.login(self.known["people"][name]["email"], self.known["password"])


@pytest.fixture(params=["sqlite", "mongodb"])
async def old(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upgraded]:
    store = Released(request.param)
    settings = {"SECRET_KEY": store.known["secret"]}
    if request.param == "sqlite":
        server = ServerProcess(tmp_path, settings)
        store.fill_sqlite(server.data_dir)
        with server:
            async with Api(server.url) as api:
                yield Upgraded(server, store.known, api)
        return
    with scratch(request.getfixturevalue("mongodb")) as database:
        store.fill_mongodb(database.url)
        with ServerProcess(tmp_path, {**settings, "STORE_URL": database.url}) as server:
            async with Api(server.url) as api:
                yield Upgraded(server, store.known, api)


def told(answer: Any, then: Any) -> Any:
    """The answer, without fields that the released version did not have."""
    if isinstance(then, dict) and isinstance(answer, dict):
        return {name: told(value, then.get(name)) for name, value in answer.items() if name in then}
    if isinstance(then, list) and isinstance(answer, list) and len(then) == len(answer):
        return [told(one, other) for one, other in zip(answer, then, strict=True)]
    return answer


async def test_the_store_answers_as_it_did(old: Upgraded) -> None:
    ann = await old.person("ann")
    for path, then in old.known["answers"].items():
        name, _, query = path.partition("?")
        parameters = dict(part.split("=") for part in query.split("&") if part)
        answer = await ann.api.get(name, **parameters)
        assert told(answer, then) == then, path
    sync = old.known["sync"]
    place = {"epoch": sync["epoch"], "seq": 0}
    again = await ann.api.post("/sync", {"streams": {sync["stream"]: place}})
    assert told(again, sync["answer"]) == sync["answer"]
    upload = old.known["upload"]
    file = await ann.api.request("GET", f"/uploads/{upload['id']}")
    assert (file.status, file.body) == (200, b"The text of a file.\n")
    stranger = await old.api.register("Eve")
    assert (await stranger.api.request("GET", f"/uploads/{upload['id']}")).status == 404


async def test_sessions_keys_and_invitations_hold(old: Upgraded) -> None:
    known, api = old.known, old.api
    refreshed = await api.post("/auth/refresh", {"refresh_token": known["spare_refresh"]})
    async with Api(api.url, refreshed["access_token"]) as ann:
        assert (await ann.get("/users/me"))["settings"] == {"theme": "dark"}
        assert len((await ann.get("/auth/sessions"))["items"]) == 2
    again = await api.post("/auth/refresh", {"refresh_token": refreshed["refresh_token"]})
    assert again["user"]["id"] == known["people"]["ann"]["id"]

    for which, status in (("user", 200), ("agent", 200), ("gone", 401)):
        async with Api(api.url, known["keys"][which]["key"]) as by_key:
            assert (await by_key.request("GET", "/conversations")).status == status, which
    root = await old.person("root")
    keys = (await root.api.get("/api-keys"))["items"]
    assert {key["id"] for key in keys} == {known["keys"][name]["id"] for name in ("user", "agent")}
    invites = (await root.api.get("/invites"))["items"]
    assert {invite["id"] for invite in invites} == {
        invite["id"] for invite in known["invites"].values()
    }
    new = {
        "email": "eve@example.com",
        "password": known["password"],
        "name": "Eve",
        "invite": known["invites"]["any"]["token"],
    }
    eve = await api.post("/auth/register", new, 201)
    assert eve["user"]["role"] == "admin"
    wrong = {"email": known["people"]["dee"]["email"], "password": known["password"]}
    assert (await api.request("POST", "/auth/login", json=wrong)).status == 403


async def test_a_token_that_was_used_up_ends_its_session(old: Upgraded) -> None:
    replayed = old.known["replayed"]
    stolen = {"refresh_token": replayed["old"]}
    assert (await old.api.request("POST", "/auth/refresh", json=stolen)).status == 401
    newer = {"refresh_token": replayed["new"]}
    assert (await old.api.request("POST", "/auth/refresh", json=newer)).status == 401


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("straße", "people"),
        ("strasse", "people"),
        ("绿茶", "我喜欢喝咖啡和绿茶"),
        ("lodz", "Łódź trip"),
        ("full width", "Ｆｕｌｌ width"),
        ("after the edit", "After the edit"),
        ("deleted", None),
        ("before", None),
    ],
)
async def test_what_was_stored_is_searched_by_the_new_rules(
    old: Upgraded, text: str, found: str | None
) -> None:
    ann = await old.person("ann")
    if found == "people":
        people = (await ann.api.get("/users", q=text))["items"]
        assert [one["id"] for one in people] == [ann.id]
        return
    hits = (await ann.api.get("/search/messages", q=text))["items"]
    assert [hit["body"] for hit in hits] == ([] if found is None else [found])


async def test_conversations_go_on(old: Upgraded) -> None:
    known = old.known
    ann, ben, cem = [await old.person(name) for name in ("ann", "ben", "cem")]
    group = known["conversations"]["group"]
    stream, epoch = known["sync"]["stream"], known["sync"]["epoch"]
    async with await connect(old.server.url, "/messages", cem.token) as client:
        ready = await client.wait_for("ready")
        assert ready["streams"][stream] == {"epoch": epoch, "seq": 12, "recovered": True}
        path = f"/conversations/{group}/messages"
        sent = await ann.api.post(path, {"body": "Still here", "client_id": "n"}, 201)
        await client.wait_for("message.created", lambda event: event["data"]["id"] == sent["id"])
    # sent again across the upgrade: the first result
    direct = {"kind": "direct", "members": [ben.id], "client_id": "d1"}
    again = await ann.api.post("/conversations", direct, 201)
    assert again["id"] == known["conversations"]["direct"]
    message = {"body": "See the file", "client_id": "f1", "mentions": [cem.id]}
    attachments = [known["upload"]["id"]]
    repeated = await ben.api.post(path, {**message, "attachments": attachments}, 201)
    assert repeated["id"] == known["carrying"]
    unread = {one["id"]: one["unread"] for one in (await cem.api.get("/conversations"))["items"]}
    await cem.api.put(f"/conversations/{group}/read", {"seq": sent["seq"]})
    after = {one["id"]: one["unread"] for one in (await cem.api.get("/conversations"))["items"]}
    assert (unread[group] > 0, after[group]) == (True, 0)
    assert (await ben.api.request("DELETE", f"/uploads/{known['upload']['id']}")).status in {
        200,
        204,
    }
