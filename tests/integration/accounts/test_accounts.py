"""Accounts on a running server: what REST answers, and what live sockets feel of it."""

import asyncio
import base64
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from pydantic import TypeAdapter

from domain.accounts.accounts import ApiKey, Expiry, Invite, Profile, Session, Tokens, User
from domain.pages import Page
from tests.conftest import StartServer
from tests.integration.operations.test_backup import command
from tests.support.client import Client, connect
from tests.support.mongod import scratch
from tests.support.recorder import CommandFailed, ConnectRefused
from tests.support.rest import PASSWORD, Account, Api, Reply
from tests.support.server import ServerProcess

ADMIN = {"ADMIN_EMAIL": "root@example.com", "ADMIN_PASSWORD": PASSWORD}
NEW_PASSWORD = "Heron under 9 bridges"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("accounts"), ADMIN) as process:
        yield process


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with Api(server.url) as found:
        yield found


@pytest.fixture
async def root(api: Api) -> Account:
    return await api.login("root@example.com")


def valid(kind: Any, answer: Any) -> Any:
    """The answer, which has the declared form and no other field."""
    return TypeAdapter(kind).validate_json(orjson.dumps(answer), strict=True)


async def problem(reply: Reply, status: int, code: str) -> Any:
    told = reply.expect(status)
    assert told["code"] == code
    assert reply.headers["content-type"].startswith("application/problem+json")
    return told


async def closed_within(client: Client, seconds: float) -> Any:
    started = time.monotonic()
    await client.wait_closed(timeout=10)
    assert time.monotonic() - started < seconds
    return client.closing


async def test_register_login_profile(api: Api) -> None:
    email = "ann.lee@example.com"
    body = {"email": "Ann.Lee@Example.com", "password": PASSWORD, "name": "Ann"}
    tokens = valid(Tokens, await api.post("/auth/register", body, 201))
    ann = await api.login(email)
    reply = await api.request("POST", "/auth/login", json={"email": email, "password": PASSWORD})
    assert valid(Tokens, reply.expect(200))
    assert reply.headers["cache-control"] == "no-store"
    me = valid(Profile, await ann.api.get("/users/me"))
    assert me == tokens["user"]
    changed = await ann.api.put("/users/me", {"name": "Anna", "settings": {"theme": "dark"}})
    assert valid(Profile, changed)["name"] == "Anna"
    unknown = await ann.api.request("PUT", "/users/me", json={"role": "owner"})
    assert (await problem(unknown, 400, "invalid"))["errors"][0]["field"] == "role"


async def test_registering_twice_says_no_more_than_that_it_cannot_be(api: Api) -> None:
    ann = await api.register("Ann")
    told = []
    for password in (PASSWORD, NEW_PASSWORD):
        body = {"email": ann.email, "password": password, "name": "Eve"}
        refused = await problem(
            await api.request("POST", "/auth/register", json=body), 409, "conflict"
        )
        told.append({name: value for name, value in refused.items() if name != "request_id"})
    assert told[0] == told[1]
    assert ann.email not in str(told)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"password": "Password123"}, "password"),
        ({"password": "short"}, "password"),
        ({"name": ""}, "name"),
        ({"admin": True}, "admin"),
        ({"email": None}, "email"),
        ({"password": ["x"]}, "password"),
    ],
)
async def test_wrong_registrations_are_named(api: Api, change: Any, field: str) -> None:
    body = {"email": "new@example.com", "password": PASSWORD, "name": "New", **change}
    told = await problem(await api.request("POST", "/auth/register", json=body), 400, "invalid")
    assert [each["field"] for each in told["errors"]] == [field]


async def test_wrong_logins_are_alike(api: Api) -> None:
    ann = await api.register("Ann")
    told = []
    for email in (ann.email, "nobody@example.com"):
        body = {"email": email, "password": "Wrong password 1"}
        reply = await api.request("POST", "/auth/login", json=body)
        told.append((await problem(reply, 401, "unauthenticated"))["detail"])
    assert told[0] == told[1]


async def test_refreshing_rotates_and_reuse_ends_the_session(api: Api) -> None:
    ann = await api.register("Ann")
    async with await connect(api.url, "/messages", ann.token) as client:
        body = {"refresh_token": ann.refresh_token}
        second = valid(Tokens, await api.post("/auth/refresh", body))
        async with Api(api.url, second["access_token"]) as newer:
            await newer.get("/users/me")
        again = valid(Tokens, await api.post("/auth/refresh", body))
        assert again["refresh_token"] == second["refresh_token"]
        second = await api.post("/auth/refresh", {"refresh_token": second["refresh_token"]})
        reply = await api.request("POST", "/auth/refresh", json=body)
        await problem(reply, 401, "unauthenticated")
        assert await closed_within(client, 2) == {"code": "revoked", "reconnect": False}
    body = {"refresh_token": second["refresh_token"]}
    await problem(await api.request("POST", "/auth/refresh", json=body), 401, "unauthenticated")
    await problem(await ann.api.request("GET", "/users/me"), 401, "unauthenticated")


async def test_of_twenty_refreshes_at_once_all_get_one_token(api: Api) -> None:
    ann = await api.register("Ann")
    body = {"refresh_token": ann.refresh_token}
    replies = await asyncio.gather(
        *(api.request("POST", "/auth/refresh", json=body) for _ in range(20))
    )
    assert {each.status for each in replies} == {200}
    assert len({each.json["refresh_token"] for each in replies}) == 1


async def test_nothing_is_registered_by_an_address_or_a_form(api: Api) -> None:
    """Addresses are logged everywhere, and a page of another site can send both without asking."""
    person = {"email": "form@example.com", "password": PASSWORD, "name": "Form"}
    for path in ("/auth/register", "/auth/login", "/auth/refresh"):
        told = await problem(await api.request("POST", path, params=person), 400, "invalid")
        assert PASSWORD not in str(told)
    ann = await api.register("Ann")
    for method, path in (
        ("PUT", "/users/me"),
        ("PATCH", "/conversations/x"),
        ("POST", "/conversations"),
    ):
        reply = await ann.api.request(method, path, params={"name": "By address"}, json={})
        await problem(reply, 400, "invalid")
    raw = orjson.dumps(person)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        reply = await api.request(
            "POST", "/auth/register", data=raw, headers={"Content-Type": kind}
        )
        assert reply.status == 415
    assert (await ann.api.get("/users/me"))["name"] == "Ann"
    await api.post("/auth/register", person, status=201)


async def test_an_expired_token_in_the_header_does_not_keep_from_refreshing(api: Api) -> None:
    ann = await api.register("Ann")
    async with Api(api.url, "expired.token.here") as stale:
        await stale.post("/auth/refresh", {"refresh_token": ann.refresh_token})


async def test_logging_out_closes_this_sessions_sockets(api: Api) -> None:
    here = await api.register("Ann")
    there = await api.login(here.email)
    async with (
        await connect(api.url, "/messages", here.token) as mine,
        await connect(api.url, "/messages", there.token) as other,
    ):
        await here.api.post("/auth/logout")
        assert await closed_within(mine, 2) == {"code": "revoked", "reconnect": False}
        with pytest.raises(ConnectRefused) as refused:
            await mine.reconnect()
        assert refused.value.code == "unauthenticated"
        await problem(await here.api.request("GET", "/users/me"), 401, "unauthenticated")
        assert other.connected
        await there.api.request("POST", "/auth/logout", params={"all": "true"})
        assert await closed_within(other, 2) == {"code": "revoked", "reconnect": False}


async def test_sessions_are_listed_and_ended(api: Api) -> None:
    here = await api.register("Ann")
    there = await api.login(here.email)
    listed = valid(Page[Session], await here.api.get("/auth/sessions"))
    assert [each["current"] for each in listed["items"]] == [False, True]
    theirs, mine = (f"/auth/sessions/{each['id']}" for each in listed["items"])
    assert valid(Session, await here.api.get(theirs)) == listed["items"][0]
    async with await connect(api.url, "/presence", there.token) as other:
        await here.api.delete(theirs)
        await closed_within(other, 2)
    await problem(await here.api.request("GET", theirs), 404, "not_found")
    bob = await api.register("Bob")
    for method in ("GET", "DELETE"):
        await problem(await bob.api.request(method, mine), 404, "not_found")


async def test_a_new_password_ends_the_other_sessions(api: Api) -> None:
    here = await api.register("Ann")
    there = await api.login(here.email)
    async with (
        await connect(api.url, "/messages", here.token) as mine,
        await connect(api.url, "/messages", there.token) as other,
    ):
        wrong = {"password": NEW_PASSWORD, "current_password": "Wrong password 1"}
        told = await problem(await here.api.request("PUT", "/users/me", json=wrong), 400, "invalid")
        assert told["errors"][0]["field"] == "current_password"
        await here.api.put("/users/me", {**wrong, "current_password": PASSWORD})
        await closed_within(other, 2)
        assert mine.connected
    await api.login(here.email, NEW_PASSWORD)


async def test_administrators_disable_enable_and_appoint(api: Api, root: Account) -> None:
    ann = await api.register("Ann")
    assert root.user["role"] == "owner"
    await problem(await ann.api.request("POST", f"/users/{root.id}/disable"), 403, "forbidden")
    async with await connect(api.url, "/messages", ann.token) as client:
        view = valid(User, await root.api.put(f"/users/{ann.id}/role", {"role": "technician"}))
        assert view["role"] == "technician"
        assert await closed_within(client, 2) == {"code": "revoked", "reconnect": True}
        await client.reconnect()
        assert valid(User, await root.api.post(f"/users/{ann.id}/disable"))["disabled"]
        assert await closed_within(client, 2) == {"code": "revoked", "reconnect": False}
    body = {"email": ann.email, "password": PASSWORD}
    await problem(await api.request("POST", "/auth/login", json=body), 403, "forbidden")
    await root.api.post(f"/users/{ann.id}/enable")
    await api.login(ann.email)


async def test_people_are_found(api: Api, root: Account) -> None:
    ann = await api.register("Annabel Quist", email="quist.annabel@example.com")
    bob = await api.register("Bob")
    found = valid(Page[User], await bob.api.get("/users", q="quis"))
    assert [each["id"] for each in found["items"]] == [ann.id]
    assert "email" not in found["items"][0]
    staff = valid(Page[User], await root.api.get("/users", q="quist.ann"))
    assert staff["items"][0]["email"] == ann.email
    assert "email" not in valid(User, await bob.api.get(f"/users/{ann.id}"))
    await problem(await bob.api.request("GET", "/users/nobody"), 404, "not_found")
    first = await bob.api.get("/users", limit=1)
    second = await bob.api.get("/users", limit=1, cursor=first["next"])
    assert first["items"] != second["items"]


async def test_invitations(api: Api, root: Account) -> None:
    invite = valid(Invite, await root.api.post("/invites", {"role": "guest"}, 201))
    body = {"email": "invited@example.com", "password": PASSWORD, "name": "In"}
    tokens = await api.post("/auth/register", {**body, "invite": invite["token"]}, 201)
    assert tokens["user"]["role"] == "guest"
    body["email"] = "other@example.com"
    again = {**body, "invite": invite["token"]}
    await problem(await api.request("POST", "/auth/register", json=again), 409, "conflict")


async def test_api_keys(api: Api, root: Account) -> None:
    key = valid(ApiKey, await root.api.post("/api-keys", {"name": "bot"}, 201))
    async with await connect(api.url, "/messages", key["key"]) as client:
        assert client.ready["user"] == key["id"]
        listed = valid(Page[ApiKey], await root.api.get("/api-keys"))
        assert key["id"] in [each["id"] for each in listed["items"]]
        await root.api.delete(f"/api-keys/{key['id']}")
        await closed_within(client, 2)
    async with Api(api.url, key["key"]) as revoked:
        await problem(await revoked.request("GET", "/users/me"), 401, "unauthenticated")


async def test_no_namespace_without_a_good_token(api: Api) -> None:
    ann = await api.register("Ann")
    for token in (None, "", "x", ann.refresh_token, ann.token[:-2] + "xx"):
        with pytest.raises(ConnectRefused) as refused:
            await connect(api.url, "/messages", token)
        assert refused.value.code == "unauthenticated"


async def test_tokens_are_in_no_log(api: Api, server: ServerProcess) -> None:
    ann = await api.register("Ann")
    async with await connect(api.url, "/messages", ann.token):
        await ann.api.get("/users/me")
    await api.post("/auth/refresh", {"refresh_token": ann.refresh_token})
    logged = server.log_path.read_text()
    for secret in (ann.token, ann.refresh_token, PASSWORD):
        assert secret not in logged


async def test_a_socket_is_warned_lives_on_with_a_newer_token_and_ends_with_it(
    tmp_path: Path,
) -> None:
    with await asyncio.to_thread(ServerProcess, tmp_path, {"ACCESS_TTL": "5s"}) as server:
        async with Api(server.url) as api:
            ann = await api.register("Ann")
            async with (
                await connect(server.url, "/messages", ann.token) as extended,
                await connect(server.url, "/messages", ann.token) as left,
            ):
                presence = await extended.join("/presence")
                warning = valid(Expiry, await extended.wait_for("auth.expiring"))
                assert warning["expires_in"] <= 5
                await presence.call("presence.activity", {"idle": False})
                assert not presence.named("auth.expiring"), "once per transport"
                await left.until(lambda: bool(left.named("auth.expiring")), what="warning")
                await asyncio.to_thread(_until, time.time() + 2)
                newer = await api.post("/auth/refresh", {"refresh_token": ann.refresh_token})
                answer = await extended.call("auth.refresh", {"token": newer["access_token"]})
                assert valid(Expiry, answer)["expires_in"] == 5
                with pytest.raises(CommandFailed) as refused:
                    await extended.call("auth.refresh", {"token": "rubbish"})
                assert refused.value.code == "unauthenticated"
                await left.wait_closed()
                assert left.closing == {"code": "token_expired", "reconnect": True}
                assert extended.connected
                assert presence.connected
                await extended.wait_closed()
                assert extended.closing == {"code": "token_expired", "reconnect": True}
                assert presence.closing == {"code": "token_expired", "reconnect": True}


def _until(moment: float) -> None:
    while time.time() < moment:
        time.sleep(0.05)


@pytest.mark.parametrize("mode", ["closed", "invite"])
async def test_registration_can_be_closed(tmp_path: Path, mode: str) -> None:
    with ServerProcess(tmp_path, {"REGISTRATION": mode, **ADMIN}) as server:
        async with Api(server.url) as api:
            body = {"email": "ann@example.com", "password": PASSWORD, "name": "Ann"}
            reply = await api.request("POST", "/auth/register", json=body)
            await problem(reply, 403, "forbidden")
            root = await api.login("root@example.com")
            status = 201 if mode == "invite" else 409
            invite = await root.api.post("/invites", {"email": "ann@example.com"}, status)
            invite.setdefault("token", "none")
            reply = await api.request(
                "POST", "/auth/register", json={**body, "invite": invite["token"]}
            )
            assert reply.status == (201 if mode == "invite" else 403)


async def test_logins_are_limited(tmp_path: Path) -> None:
    settings = {"RATE_LIMITS": "login=3/m,login.address=100/m"}
    with ServerProcess(tmp_path, settings) as server:
        async with Api(server.url) as api:
            for i in range(4):
                body = {"email": "nobody@example.com", "password": "Wrong password 1"}
                reply = await api.request("POST", "/auth/login", json=body)
                if i < 3:
                    await problem(reply, 401, "unauthenticated")
                else:
                    told = await problem(reply, 429, "rate_limited")
                    assert 0 < told["retry_after"] <= 20
                    assert 0 < int(reply.headers["retry-after"]) <= 20


def wrong_key() -> str:
    return "pk_" + base64.urlsafe_b64encode(os.urandom(32) + b"default").decode().rstrip("=")


async def test_guessed_api_keys_are_limited(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, {"RATE_LIMITS": "api_key.refused=2/m"}) as server:
        async with Api(server.url, wrong_key()) as api:
            for _ in range(5):  # the same one again is no other guess
                await problem(await api.request("GET", "/users/me"), 401, "unauthenticated")
            with pytest.raises(ConnectRefused) as refused:
                await connect(api.url, "/messages", wrong_key())
            assert refused.value.code == "unauthenticated"
            with pytest.raises(ConnectRefused) as refused:
                await connect(api.url, "/messages", wrong_key())
            assert refused.value.code == "rate_limited"
            api.token = wrong_key()
            reply = await api.request("GET", "/users/me")
            told = await problem(reply, 429, "rate_limited")
            assert 0 < told["retry_after"] <= 30
            assert 0 < int(reply.headers["retry-after"]) <= 30
            api.token = None
            ann = await api.register("Ann")
            await ann.api.get("/users/me")


# -- the operator's way in ------------------------------------------------------------------------


async def test_an_only_owner_comes_back_by_the_operators_link(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, ADMIN) as server:
        in_use = await command(server, "reset-link", "root@example.com")
        assert (in_use.returncode, in_use.stderr.count("\n")) == (1, 1)
        assert "in use by another server" in in_use.stderr
        server.stop()
        nobody = await command(server, "reset-link", "nobody@example.com")
        assert (nobody.returncode, nobody.stderr) == (
            1,
            "parley: There is no account with this address.\n",
        )
        made = await command(server, "reset-link", "Root@example.com")
        assert made.returncode == 0, made.stderr
        server.start()
        await set_password(server, made.stdout)


async def test_on_mongodb_the_operators_link_is_made_beside_the_nodes(
    mongodb: str, tmp_path: Path
) -> None:
    with (
        scratch(mongodb) as database,
        ServerProcess(tmp_path, {**ADMIN, "STORE_URL": database.url}) as server,
    ):
        made = await command(server, "reset-link", "root@example.com")
        assert made.returncode == 0, made.stderr
        await set_password(server, made.stdout)


async def set_password(server: ServerProcess, told: str) -> None:
    """With what `reset-link` told; it works once, and the new password is good."""
    body = {**json.loads(told[told.index("{") :]), "password": NEW_PASSWORD}
    async with Api(server.url) as api:
        (await api.request("POST", "/auth/reset", json=body)).expect(204)
        assert (await api.login("root@example.com", NEW_PASSWORD)).user["role"] == "owner"
        await problem(await api.request("POST", "/auth/reset", json=body), 401, "unauthenticated")


async def test_one_who_floods_with_logins_keeps_nobody_waiting(start_server: StartServer) -> None:
    server = start_server(RATE_LIMITS="off", BCRYPT_COST=10)
    url = f"{server.url}/api/v1/auth/login"
    from_elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0), limit=0)
    async with Api(server.url) as api, aiohttp.ClientSession(connector=from_elsewhere) as elsewhere:
        ann = await api.register("Ann")
        answers: Counter[int] = Counter()

        async def flood(number: int) -> None:
            guess = {"email": f"nobody{number}@example.com", "password": "Wrong 2 word guess"}
            while True:
                async with elsewhere.post(url, json=guess) as reply:
                    answers[reply.status] += 1

        flooding = [asyncio.create_task(flood(number)) for number in range(100)]
        while not answers[503]:  # more wait than may
            await asyncio.sleep(0.01)
        for _ in range(3):
            began, before = time.monotonic(), answers[401]
            await api.post("/auth/login", {"email": ann.email, "password": PASSWORD})
            assert answers[401] - before < 10, "of those that were before it"
            assert time.monotonic() - began < 7
        for task in flooding:
            task.cancel()
        await asyncio.gather(*flooding, return_exceptions=True)
