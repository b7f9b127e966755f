"""Invitations, reset links and keys over REST, on each engine: listed, taken back, used once, and at
an end with what gave the right to them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from domain.accounts.accounts import ApiKey, Invite, PasswordReset
from domain.pages import Page
from tests.integration.accounts.test_accounts import (
    ADMIN,
    NEW_PASSWORD,
    closed_within,
    problem,
    valid,
)
from tests.support.client import connect
from tests.support.mongod import scratch
from tests.support.rest import PASSWORD, Account, Api
from tests.support.server import ServerProcess


@pytest.fixture(scope="module", params=["sqlite", "mongodb"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with ExitStack() as stack:
        settings: dict[str, object] = dict(ADMIN)
        if request.param == "mongodb":
            database = scratch(request.getfixturevalue("mongodb"))
            settings["STORE_URL"] = stack.enter_context(database).url
        directory = tmp_path_factory.mktemp(f"given-{request.param}")
        yield stack.enter_context(ServerProcess(directory, settings))


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with Api(server.url) as found:
        yield found


@pytest.fixture
async def root(api: Api) -> Account:
    return await api.login("root@example.com")


async def appointed(api: Api, root: Account, name: str = "Adam") -> Account:
    """Somebody new who is an administrator."""
    somebody = await api.register(name)
    await root.api.put(f"/users/{somebody.id}/role", {"role": "admin"})
    return await api.login(somebody.email)


async def register(api: Api, invite: str, status: int) -> None:
    body = {"email": "invited.to.it@example.com", "password": PASSWORD, "name": "In"}
    reply = await api.request("POST", "/auth/register", json={**body, "invite": invite})
    if status == 201:
        reply.expect(201)
    else:
        await problem(reply, status, "conflict")


async def test_invitations_are_listed_page_by_page_and_taken_back(api: Api, root: Account) -> None:
    made = [valid(Invite, await root.api.post("/invites", {"role": "guest"}, 201)) for _ in "123"]
    bound = await root.api.post("/invites", {"email": "Some.Body@Example.com"}, 201)
    assert (bound["email"], bound["created_by"]) == ("some.body@example.com", root.id)
    known, cursor = list[str](), None
    while True:
        page = valid(
            Page[Invite],
            await root.api.get("/invites", limit=2, **({"cursor": cursor} if cursor else {})),
        )
        assert not any("token" in each for each in page["items"])
        known += [each["id"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert {*(each["id"] for each in made), bound["id"]} <= set(known)
    assert len(known) == len(set(known))
    await root.api.delete(f"/invites/{made[0]['id']}")
    await register(api, made[0]["token"], 409)
    for _ in "12":
        gone = await root.api.request("DELETE", f"/invites/{made[0]['id']}")
        await problem(gone, 404, "not_found")
    ann = await api.register("Ann")
    for method, path in (("GET", "/invites"), ("DELETE", f"/invites/{made[1]['id']}")):
        await problem(await ann.api.request(method, path), 403, "forbidden")
    taken = await root.api.request("POST", "/invites", json={"email": ann.email})
    await problem(taken, 409, "conflict")


async def test_an_invitation_ends_with_its_makers_role(api: Api, root: Account) -> None:
    adam = await appointed(api, root)
    invite = await adam.api.post("/invites", {"role": "member"}, 201)
    await root.api.put(f"/users/{adam.id}/role", {"role": "member"})
    await register(api, invite["token"], 409)
    await root.api.put(f"/users/{adam.id}/role", {"role": "admin"})
    await root.api.post(f"/users/{adam.id}/disable")
    await register(api, invite["token"], 409)
    await root.api.post(f"/users/{adam.id}/enable")
    await register(api, invite["token"], 201)
    await register(api, invite["token"], 409)


async def test_a_reset_link_is_used_once_and_ends_sessions(
    api: Api, root: Account, server: ServerProcess
) -> None:
    ann = await api.register("Ann")
    path = f"/users/{ann.id}/reset-link"
    older = valid(PasswordReset, await root.api.post(path, status=201))
    link = await root.api.post(path, status=201)
    assert link["user"] == ann.id
    async with await connect(api.url, "/messages", ann.token) as client:
        body = {"token": link["token"], "password": NEW_PASSWORD}
        for wrong in ({"token": older["token"]}, {"token": link["token"] + "x"}, {"token": ""}):
            refused = await api.request("POST", "/auth/reset", json={**body, **wrong})
            await problem(refused, 401, "unauthenticated")
        weak = await api.request("POST", "/auth/reset", json={**body, "password": "short"})
        await problem(weak, 400, "invalid")
        assert client.connected
        both = await asyncio.gather(*(api.request("POST", "/auth/reset", json=body) for _ in "12"))
        assert sorted(each.status for each in both) == [204, 401]
        assert await closed_within(client, 2) == {"code": "revoked", "reconnect": False}
    await problem(await ann.api.request("GET", "/users/me"), 401, "unauthenticated")
    fields = {"email": ann.email, "password": PASSWORD}
    await problem(await api.request("POST", "/auth/login", json=fields), 401, "unauthenticated")
    await api.login(ann.email, NEW_PASSWORD)
    logged = server.log_path.read_text()
    assert not any(each in logged for each in (link["token"], older["token"], NEW_PASSWORD))


async def test_who_may_make_a_reset_link_and_for_how_long_it_counts(
    api: Api, root: Account
) -> None:
    adam, ann = await appointed(api, root), await api.register("Ann")
    for who, whom, status, code in (
        (ann, adam, 403, "forbidden"),
        (adam, root, 403, "forbidden"),
    ):
        reply = await who.api.request("POST", f"/users/{whom.id}/reset-link")
        await problem(reply, status, code)
    nobody = await adam.api.request("POST", "/users/nobody/reset-link")
    await problem(nobody, 404, "not_found")
    link = await adam.api.post(f"/users/{ann.id}/reset-link", status=201)
    body = {"token": link["token"], "password": NEW_PASSWORD}
    await root.api.put(f"/users/{adam.id}/role", {"role": "member"})
    ended = await api.request("POST", "/auth/reset", json=body)
    await problem(ended, 401, "unauthenticated")
    await api.login(ann.email)


async def test_a_key_makes_nothing_that_outlives_it_and_ends_with_its_maker(
    api: Api, root: Account
) -> None:
    adam, ann = await appointed(api, root), await api.register("Ann")
    mine = valid(
        ApiKey,
        await adam.api.post("/api-keys", {"name": "script", "kind": "user", "role": "admin"}, 201),
    )
    bot = await adam.api.post("/api-keys", {"name": "bot"}, 201)
    async with Api(api.url, mine["key"]) as script, Api(api.url, bot["key"]) as agent:
        await agent.get("/conversations")
        for path, fields in (
            ("/api-keys", {"name": "more"}),
            (f"/users/{ann.id}/reset-link", None),
            ("/auth/logout", {"all": True}),
        ):
            await problem(await script.request("POST", path, json=fields), 403, "forbidden")
        changed = {"password": NEW_PASSWORD, "current_password": PASSWORD}
        await problem(await script.request("PUT", "/users/me", json=changed), 403, "forbidden")
        await adam.api.put("/users/me", changed)
        await problem(await script.request("GET", "/users/me"), 401, "unauthenticated")
        async with await connect(api.url, "/messages", bot["key"]) as client:
            await root.api.post(f"/users/{adam.id}/disable")
            await closed_within(client, 5)
        await problem(await agent.request("GET", "/conversations"), 401, "unauthenticated")
