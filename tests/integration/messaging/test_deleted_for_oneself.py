"""What somebody has deleted for oneself is at no door any more, and still there for everybody else."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.client import Client, connect
from tests.support.mongod import scratch
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess

SECRET = "wombat"


@pytest.fixture(scope="module", params=["sqlite", "mongo"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("deleted")
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


class Scene:
    """A message of Ann's in every place where one can be, and Bob, who has deleted it for himself."""

    def __init__(self, ann: Account, bob: Account, room: str) -> None:
        self.ann, self.bob, self.room = ann, bob, room
        self.root: Any = None
        self.message: Any = None

    async def send(self, who: Account, body: str, **more: Any) -> Any:
        request = {"client_id": body, "body": body, **more}
        return await who.api.post(f"/conversations/{self.room}/messages", request, 201)

    async def set(self) -> None:
        ann, bob = self.ann.api, self.bob.api
        self.root = await self.send(self.bob, "root")
        self.message = await self.send(
            self.ann,
            SECRET,
            thread=self.root["id"],
            reply_to=self.root["id"],
            mentions=[self.bob.id],
        )
        id = self.message["id"]
        await ann.put(f"/messages/{id}/pin")
        await ann.post(f"/messages/{id}/reactions", {"emoji": "👍"})
        await ann.patch(f"/messages/{id}", {"body": f"{SECRET} again", "version": 1})
        await bob.delete(f"/messages/{id}?scope=me", 200)


@pytest.fixture
async def scene(api: Api) -> Scene:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    body = {"kind": "group", "members": [bob.id], "client_id": "open"}
    found = Scene(ann, bob, (await ann.api.post("/conversations", body, 201))["id"])
    await found.set()
    return found


async def everything(api: Api, scene: Scene, who: Account) -> dict[str, bytes]:
    """What somebody is answered by every GET there is, with each set of parameters that leads to
    the message.
    """
    paths = (await api.request("GET", "//openapi.json")).json["paths"]
    meant = {
        "conversation": scene.room,
        "message": scene.message["id"],
        "user": who.id,
        "id": scene.message["id"],
    }
    asked = [
        "/search/messages?q=wombat",
        f"/search/messages?q=wombat&conversation={scene.room}",
        f"/messages?conversation={scene.room}&thread={scene.root['id']}",
        f"/messages?conversation={scene.room}&around={scene.message['seq']}",
        f"/messages?conversation={scene.room}&after=0",
        f"/messages?conversation={scene.room}",
        "/conversations?kind=group",
    ]
    for path, operations in paths.items():
        if "get" in operations and path.startswith("/api/v1"):
            filled = re.sub(r"\{(\w+)\}", lambda found: str(meant.get(found[1], "x")), path)
            asked.append(filled.removeprefix("/api/v1"))
    return {each: (await who.api.request("GET", each)).body for each in asked}


def places(answers: dict[str, bytes], word: str = SECRET) -> list[str]:
    return [path for path, body in answers.items() if word.encode() in body]


async def test_no_answer_has_it_but_those_of_others(api: Api, scene: Scene) -> None:
    shown = places(await everything(api, scene, scene.ann))
    assert len(shown) >= 8, shown
    answers = await everything(api, scene, scene.bob)
    assert places(answers) == []
    # Not even that it is there: in history, lists and search there is no trace of its id.
    assert places(answers, scene.message["id"]) == []


async def test_who_was_away_is_told_nothing_of_it_from_the_log(api: Api, scene: Scene) -> None:
    stream = f"messages/{scene.room}"
    start = {"epoch": "", "seq": 0}
    synced = await scene.bob.api.post("/sync", {"streams": {stream: start}})
    events = synced["streams"][stream]["events"]
    assert [each["seq"] for each in events] == list(range(1, len(events) + 1))
    assert SECRET not in orjson.dumps(synced).decode()
    told = [each for each in events if each["type"] == "message.deleted"]
    gone = {key: scene.message[key] for key in ("id", "conversation", "seq")}
    assert [each["data"] for each in told] == [gone] * 3  # as it was sent, pinned and edited
    assert (
        SECRET
        in orjson.dumps(await scene.ann.api.post("/sync", {"streams": {stream: start}})).decode()
    )

    async with await connect(api.url, "/messages", scene.bob.token) as phone:
        answer = await phone.call("stream.subscribe", {"streams": [{"stream": stream, **start}]})
        assert answer["streams"][stream]["events"] == events
        phone.streams[stream] = start
        await phone.reconnect()
        assert phone.ready["streams"][stream]["recovered"]
        heard = [each.data for each in phone.events if each.data.get("stream") == stream]
        assert heard == events


async def test_it_counts_no_more(api: Api, scene: Scene) -> None:
    async def counted() -> tuple[Any, Any]:
        mine = await scene.bob.api.get(f"/conversations/{scene.room}")
        total = await scene.bob.api.get("/unread")
        return (mine["unread"], mine["mentions"]), (total["total"], total["mentions"])

    assert await counted() == ((0, 0), (0, 0))
    async with (
        await connect(api.url, "/messages", scene.bob.token) as phone,
        await connect(api.url, "/messages", scene.bob.token) as desk,
    ):
        assert phone.ready["unread"]["total"] == 0
        first = await scene.send(scene.ann, "first", mentions=[scene.bob.id])
        second = await scene.send(scene.ann, "second")

        async def heard(unread: int, mentions: int) -> None:
            def is_so(client: Client) -> bool:
                told = [each["data"] for each in client.named("unread.updated")]
                return bool(told) and (told[-1]["unread"], told[-1]["mentions"]) == (
                    unread,
                    mentions,
                )

            for each in (phone, desk):
                await each.until(partial(is_so, each), what=f"{unread} unread")

        await heard(2, 1)
        await phone.call("message.delete", {"message": first["id"], "scope": "me"})
        await heard(1, 0)
        assert await counted() == ((1, 0), (1, 0))
        # Deleted for all, it is not subtracted once more.
        await scene.ann.api.delete(f"/messages/{first['id']}", 200)
        third = await scene.send(scene.ann, "third", mentions=[scene.bob.id])
        await heard(2, 1)
        await scene.bob.api.delete(f"/messages/{third['id']}?scope=me", 200)
        await heard(1, 0)
        # Nor is it there again behind what is read.
        await phone.call("message.read", {"conversation": scene.room, "seq": second["seq"]})
        await heard(0, 0)
    assert await counted() == ((0, 0), (0, 0))


async def test_nothing_can_be_done_with_it_but_to_delete_it(api: Api, scene: Scene) -> None:
    id = scene.message["id"]
    bob = scene.bob.api
    for method, path, body in (
        ("GET", f"/messages/{id}", None),
        ("PUT", f"/messages/{id}/pin", {}),
        ("DELETE", f"/messages/{id}/pin", None),
        ("GET", f"/messages/{id}/status", None),
        ("GET", f"/messages/{id}/reactions", None),
        ("POST", f"/messages/{id}/reactions", {"emoji": "👍"}),
    ):
        (await bob.request(method, path, json=body)).expect(404)
    assert (await bob.delete(f"/messages/{id}?scope=me", 200))["id"] == id
    said = f"/conversations/{scene.room}/messages"
    for number, name in enumerate(("reply_to", "thread")):
        root = await scene.send(scene.ann, f"root {number}")
        request = {"client_id": f"answer {number}", "body": "answer", name: root["id"]}
        first = await bob.post(said, request, 201)
        await bob.delete(f"/messages/{root['id']}?scope=me", 200)
        assert (await bob.post(said, request, 201))["id"] == first["id"]
        unknown = await bob.request("POST", said, json={**request, "client_id": "x", name: "x"})
        (again := await bob.request("POST", said, json={**request, "client_id": "y"})).expect(
            unknown.status
        )
        assert again.json["errors"] == unknown.json["errors"]
    own = await scene.send(scene.bob, "own")
    await bob.delete(f"/messages/{own['id']}?scope=me", 200)
    problem = await bob.request("PATCH", f"/messages/{own['id']}", json={"body": "x", "version": 1})
    problem.expect(404)
    # Whoever wrote it may still take it away from all.
    await bob.delete(f"/messages/{own['id']}", 200)
    assert (await scene.ann.api.get(f"/messages/{own['id']}"))["deleted_at"] is not None


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
)


async def test_its_files_are_gone_unless_another_message_has_them(api: Api, scene: Scene) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    sent = await scene.ann.api.request("POST", "/uploads", data=FORM, headers=headers)
    file = sent.expect(201)["id"]
    fetched = f"/uploads/{file}"
    one = await scene.send(scene.ann, "one", attachments=[file])
    two = await scene.send(scene.ann, "two", attachments=[file])
    await scene.bob.api.delete(f"/messages/{one['id']}?scope=me", 200)
    assert (await scene.bob.api.request("GET", fetched)).status == 200
    await scene.bob.api.delete(f"/messages/{two['id']}?scope=me", 200)
    (await scene.bob.api.request("GET", fetched)).expect(404)
    (await scene.bob.api.request("HEAD", fetched)).expect(404)
    # Who wrote it has it all the same; so have all if it is sent again.
    assert (await scene.ann.api.request("GET", fetched)).status == 200
    await scene.send(scene.ann, "three", attachments=[file])
    assert (await scene.bob.api.request("GET", fetched)).status == 200


async def test_who_is_there_is_told_nothing_of_it_either(api: Api, scene: Scene) -> None:
    id = scene.message["id"]
    async with (
        await connect(api.url, "/messages", scene.bob.token) as phone,
        await connect(api.url, "/messages", scene.ann.token) as other,
    ):
        await scene.ann.api.delete(f"/messages/{id}/pin", 200)
        await scene.ann.api.put(f"/messages/{id}/pin")
        edit = {"body": f"{SECRET} once more", "version": 2}
        await scene.ann.api.patch(f"/messages/{id}", edit)
        last = await scene.send(scene.ann, "after")
        for each in (phone, other):
            await each.wait_for("message.created", lambda event: event["data"]["id"] == last["id"])
        heard = [each for each in phone.named("message.deleted") if each["data"]["id"] == id]
        assert [each["seq"] for each in heard] == list(range(last["seq"] - 3, last["seq"]))
        assert SECRET not in orjson.dumps([each.data for each in phone.events]).decode()
        told = [each for each in other.events if each.data.get("seq", 0) in range(*bounds(heard))]
        assert [each.name for each in told] == [
            "message.unpinned",
            "message.pinned",
            "message.edited",
        ]
        # Who has deleted it is nobody's business.
        assert "veiled" not in orjson.dumps([each.data for each in other.events]).decode()
    start = {"epoch": "", "seq": 0}
    for after_that in (False, True):  # also in what is left in the log when it goes for all
        if after_that:
            await scene.ann.api.delete(f"/messages/{id}", 200)
        for who in (scene.ann, scene.bob):
            missed = await who.api.post("/sync", {"streams": {f"messages/{scene.room}": start}})
            assert "veiled" not in orjson.dumps(missed).decode()


def bounds(events: list[Any]) -> tuple[int, int]:
    return events[0]["seq"], events[-1]["seq"] + 1
