"""What people expect of a chat, through the doors that clients use, on both engines."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import connect
from tests.support.mongod import scratch
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess


@pytest.fixture(scope="module", params=["sqlite", "mongo"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("rules")
    with ExitStack() as stack:
        settings = {}
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
