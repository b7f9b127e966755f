"""Nobody learns from an answer that something exists: an id of a stranger's is answered as one that
nobody has, by every command and at every door.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from domain.ids import new_id
from tests.support.client import Client, connect
from tests.support.rest import Account, Api, Reply
from tests.support.server import ServerProcess

FORM = "--x\r\nContent-Disposition: form-data; name=file; filename=a.txt\r\n\r\nhello\r\n--x--\r\n"


@dataclass
class Theirs:
    """What a stranger has, and what the caller has to ask with."""

    ids: dict[str, str]
    mine: dict[str, Any]
    stranger: Account
    caller: Account
    sockets: dict[str, Client]


@pytest.fixture
async def theirs(server: ServerProcess, api: Api) -> AsyncIterator[Theirs]:
    eve, ann = await api.register("Eve"), await api.register("Ann")
    room = await eve.api.post("/conversations", {"kind": "group", "client_id": "g"}, 201)
    said = {"client_id": "1", "body": "hello"}
    message = await eve.api.post(f"/conversations/{room['id']}/messages", said, 201)
    upload = (
        await eve.api.request(
            "POST",
            "/uploads",
            data=FORM.encode(),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
    ).expect(201)
    sessions = await eve.api.get("/auth/sessions")
    mine = await ann.api.post("/conversations", {"kind": "group", "client_id": "g"}, 201)
    own = await ann.api.post(f"/conversations/{mine['id']}/messages", said, 201)
    async with (
        await connect(server.url, "/messages", ann.token) as messages,
        await connect(server.url, "/reactions", ann.token) as reactions,
        await connect(server.url, "/presence", ann.token) as presence,
    ):
        yield Theirs(
            {
                "conversation": room["id"],
                "message": message["id"],
                "upload": upload["id"],
                "session": sessions["items"][0]["id"],
            },
            {"conversation": mine["id"], "message": own},
            eve,
            ann,
            {"/messages": messages, "/reactions": reactions, "/presence": presence},
        )


def told(answer: Any, *ids: str) -> Any:
    """An answer without the ids that were asked for, and what differs between any two answers."""
    text = repr(answer)
    for each in ids:
        text = text.replace(each, "<id>")
    text = re.sub(r"'request_id': '[^']*'", "", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]*Z", "<time>", text)


REST = [
    ("session", "GET", "/auth/sessions/{}", None),
    ("session", "DELETE", "/auth/sessions/{}", None),
    ("upload", "GET", "/uploads/{}", None),
    ("upload", "HEAD", "/uploads/{}", None),
    ("upload", "DELETE", "/uploads/{}", None),
    ("conversation", "GET", "/conversations/{}", None),
    ("conversation", "PATCH", "/conversations/{}", {"title": "x"}),
    ("conversation", "GET", "/conversations/{}/messages", None),
    ("conversation", "GET", "/messages?conversation={}", None),
    ("conversation", "POST", "/conversations/{}/messages", {"body": "x", "client_id": "n"}),
    ("conversation", "POST", "/messages", {"conversation": "{}", "body": "x", "client_id": "n"}),
    ("conversation", "GET", "/conversations/{}/members", None),
    ("conversation", "POST", "/conversations/{}/members", {"user": "{me}"}),
    ("conversation", "PATCH", "/conversations/{}/members/{me}", {"role": "owner"}),
    ("conversation", "DELETE", "/conversations/{}/members/{me}", None),
    ("conversation", "DELETE", "/conversations/{}", None),
    ("conversation", "POST", "/conversations/{}/join", None),
    ("conversation", "POST", "/conversations/{}/leave", None),
    ("conversation", "POST", "/users/me/conversations/leave", {"conversations": ["{}"]}),
    ("conversation", "GET", "/conversations/{}/pins", None),
    ("conversation", "PUT", "/conversations/{}/read", {"seq": 1}),
    ("conversation", "PUT", "/conversations/{}/delivered", {"seq": 1}),
    ("conversation", "GET", "/search/messages?q=hello&conversation={}", None),
    ("conversation", "POST", "/sync", {"streams": {"messages/{}": {"epoch": "", "seq": 0}}}),
    ("conversation", "POST", "/sync", {"streams": {"reactions/{}": {"epoch": "", "seq": 0}}}),
    ("message", "GET", "/messages/{}", None),
    ("message", "PATCH", "/messages/{}", {"body": "x", "version": 1}),
    ("message", "DELETE", "/messages/{}?scope=everyone", None),
    ("message", "DELETE", "/messages/{}?scope=me", None),
    ("message", "PUT", "/messages/{}/pin", None),
    ("message", "DELETE", "/messages/{}/pin", None),
    ("message", "GET", "/messages/{}/status", None),
    ("message", "PUT", "/messages/{}/status", {"status": "read"}),
    ("message", "POST", "/messages/{}/reactions", {"emoji": "👍"}),
    ("message", "DELETE", "/messages/{}/reactions?emoji=👍", None),
    ("message", "GET", "/messages/{}/reactions", None),
    *(
        (kind, "POST", "/conversations/{mine}/messages", {"body": "x", "client_id": "n"} | more)
        for kind, more in (
            ("message", {"reply_to": "{}"}),
            ("message", {"thread": "{}"}),
            ("upload", {"attachments": ["{}"]}),
        )
    ),
]


def filled(template: Any, id: str, theirs: Theirs) -> Any:
    """A template with the ids in it."""
    if isinstance(template, dict):
        return {filled(k, id, theirs): filled(v, id, theirs) for k, v in template.items()}
    if isinstance(template, list):
        return [filled(each, id, theirs) for each in template]
    if isinstance(template, str):
        mine = template.replace("{me}", theirs.caller.id)
        return mine.replace("{mine}", theirs.mine["conversation"]).replace("{}", id)
    return template


async def test_over_rest(theirs: Theirs) -> None:
    for kind, method, path, body in REST:
        answers: list[str] = []
        # Something of another kind is as good as nothing, too.
        other = theirs.ids["message" if kind != "message" else "conversation"]
        for id in (new_id(), theirs.ids[kind], theirs.stranger.id, other, "x" * 26):
            json = {"json": filled(body, id, theirs)} if body is not None else {}
            reply: Reply = await theirs.caller.api.request(method, filled(path, id, theirs), **json)
            shown = reply.json if reply.body else None
            answers.append(told((reply.status, shown), id, theirs.caller.id))
        assert len(set(answers)) == 1, (method, path, body, answers)


SOCKET = [
    ("conversation", "/messages", "conversation.get", {"conversation": "{}"}),
    ("conversation", "/messages", "conversation.update", {"conversation": "{}", "muted": True}),
    ("conversation", "/messages", "conversation.delete", {"conversation": "{}"}),
    ("conversation", "/messages", "conversation.join", {"conversation": "{}"}),
    ("conversation", "/messages", "conversation.leave", {"conversation": "{}"}),
    ("conversation", "/messages", "conversation.leave_many", {"conversations": ["{}"]}),
    ("conversation", "/messages", "member.add", {"conversation": "{}", "user": "{me}"}),
    ("conversation", "/messages", "member.remove", {"conversation": "{}", "user": "{me}"}),
    (
        "conversation",
        "/messages",
        "member.update",
        {"conversation": "{}", "user": "{me}", "role": "owner"},
    ),
    ("conversation", "/messages", "member.list", {"conversation": "{}"}),
    ("conversation", "/messages", "message.history", {"conversation": "{}"}),
    ("conversation", "/messages", "message.search", {"q": "hello", "conversation": "{}"}),
    ("conversation", "/messages", "message.read", {"conversation": "{}", "seq": 1}),
    ("conversation", "/messages", "message.delivered", {"conversation": "{}", "seq": 1}),
    ("conversation", "/messages", "typing.start", {"conversation": "{}"}),
    ("conversation", "/messages", "typing.stop", {"conversation": "{}"}),
    ("conversation", "/messages", "pin.list", {"conversation": "{}"}),
    ("conversation", "/presence", "presence.room", {"stream": "messages/{}"}),
    ("conversation", "/presence", "presence.room", {"stream": "reactions/{}"}),
    *(
        ("conversation", f"/{each}", name, {"streams": streams})
        for each in ("messages", "reactions")
        for name, streams in (
            ("stream.subscribe", [{"stream": f"{each}/{{}}"}]),
            ("stream.unsubscribe", [f"{each}/{{}}"]),
        )
    ),
    ("message", "/messages", "message.get", {"message": "{}"}),
    ("message", "/messages", "message.edit", {"message": "{}", "body": "x", "version": 1}),
    ("message", "/messages", "message.delete", {"message": "{}", "scope": "everyone"}),
    ("message", "/messages", "message.status", {"message": "{}"}),
    ("message", "/messages", "pin.add", {"message": "{}"}),
    ("message", "/reactions", "reaction.add", {"message": "{}", "emoji": "👍"}),
    ("message", "/reactions", "reaction.remove", {"message": "{}", "emoji": "👍"}),
    ("message", "/reactions", "reaction.list", {"message": "{}"}),
    ("upload", "/messages", "upload.get", {"upload": "{}"}),
    ("upload", "/messages", "upload.delete", {"upload": "{}"}),
]


async def test_over_sockets(theirs: Theirs) -> None:
    for kind, namespace, command, fields in SOCKET:
        answers: list[str] = []
        other = theirs.ids["message" if kind != "message" else "conversation"]
        for id in (new_id(), theirs.ids[kind], theirs.stranger.id, other, "x" * 26):
            answer = await theirs.sockets[namespace].request(command, filled(fields, id, theirs))
            answers.append(told(answer, id, theirs.caller.id))
        assert len(set(answers)) == 1, (command, fields, answers)
