"""Errors as a client meets them: acks, refused connections, problem documents, limits."""

import gzip
import zlib
from typing import Any

import aiohttp
import orjson
import pytest

from tests.conftest import StartServer
from tests.support.client import connect
from tests.support.recorder import ConnectRefused
from tests.support.rest import Api, Reply

PROBLEM = {"type", "title", "status", "code", "detail", "errors", "request_id"}


def problem(reply: Reply, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer."""
    body: dict[str, Any] = reply.expect(status)
    assert reply.headers["content-type"] == "application/problem+json"
    assert body.keys() >= PROBLEM
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == reply.headers["x-request-id"]
    return body


async def test_problem_documents(api: Api) -> None:
    ann = await api.register("Ann")
    json = {"Content-Type": "application/json"}
    reply = await api.request("GET", "/users/me", headers={"X-Request-ID": "mine-1"})
    assert problem(reply, 401, "unauthenticated")["request_id"] == "mine-1"
    assert reply.headers["www-authenticate"] == "Bearer"
    problem(await ann.api.request("GET", "/nothing"), 404, "not_found")
    problem(await ann.api.request("GET", "/users/nobody"), 404, "not_found")
    problem(await ann.api.request("POST", "/invites", json={}), 403, "forbidden")
    reply = await ann.api.request("PUT", "/auth/login", json={})
    problem(reply, 405, "invalid")
    assert reply.headers["allow"] == "POST"
    for data in (b"{", b"[]", b'"text"'):
        reply = await ann.api.request("POST", "/conversations", data=data, headers=json)
        problem(reply, 400, "invalid")
    plain = {"Content-Type": "text/plain"}
    reply = await ann.api.request("POST", "/conversations", data=b"{}", headers=plain)
    problem(reply, 415, "invalid")
    long = b'{"name":"' + b"x" * (1 << 20) + b'"}'
    reply = await ann.api.request(
        "PUT", "/users/me", data=gzip.compress(long), headers={**json, "Content-Encoding": "gzip"}
    )
    problem(reply, 413, "too_large")


# These name tests, and the workers compare names: no time is written into them.
PACKED = gzip.compress(b'{"q": "x"}', mtime=0)


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [
        ("gzip", b'{"q": "x"}', 400),
        ("gzip", PACKED[:-12], 400),
        ("gzip", PACKED[:-4], 400),
        ("gzip", PACKED[:-6] + b"abcdef", 400),
        ("deflate", b'{"q": "x"}', 400),
        ("deflate", zlib.compress(b'{"q": "x"}')[:-6], 400),
        ("br", b"\x0b\x02\x80", 400),
        ("zstd", b"\x28\xb5\x2f\xfd", 400),
        ("rot13", b'{"q": "x"}', 400),
        ("gzip, gzip", gzip.compress(PACKED, mtime=0), 400),
    ],
)
async def test_a_body_that_cannot_be_unpacked(
    api: Api, encoding: str, data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    ann = await api.register("Ann")
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    for path in ("/conversations", "/auth/login"):
        reply = await ann.api.request("POST", path, data=data, headers=headers)
        problem(reply, status, "invalid")
    url = f"{api.url}/socket.io/?EIO=4&transport=polling"
    async with aiohttp.ClientSession() as http:
        async with http.get(url) as response:
            sid = orjson.loads((await response.read())[1:])["sid"]
        async with http.post(f"{url}&sid={sid}", data=data, headers=headers) as response:
            assert response.status == status
    assert not [each for each in caplog.records if each.exc_info]


async def test_every_wrong_field_is_named(api: Api) -> None:
    ann = await api.register("Ann")
    body = {"kind": "crowd", "members": "all", "colour": "red"}
    reply = await ann.api.request("POST", "/conversations", json=body)
    errors = problem(reply, 400, "invalid")["errors"]
    assert {each["field"] for each in errors} == {"kind", "members", "colour", "client_id"}
    async with await connect(api.url, "/messages", ann.token) as alice:
        answer = await alice.request("conversation.create", body)
        assert answer["ok"] is False
        assert answer["error"]["code"] == "invalid"
        assert answer["error"]["errors"] == errors
    reply = await ann.api.request("GET", "/search/messages", params={"q": "x", "since": "dawn"})
    (error,) = problem(reply, 400, "invalid")["errors"]
    assert error == {"field": "since", "message": "no RFC 3339 time, e.g. 2026-01-31T12:00:00Z"}


async def test_unknown_commands(api: Api) -> None:
    ann = await api.register("Ann")
    async with await connect(api.url, "/messages", ann.token) as alice:
        for name in ("message.explode", "presence.set", "nonsense", "auth.login"):
            answer = await alice.request(name, {})
            assert answer["error"]["code"] == "not_found", name
            assert answer["error"].keys() == {"code", "message"}


async def test_a_command_that_cannot_be_read_is_answered(api: Api) -> None:
    ann = await api.register("Ann")
    async with await connect(api.url, "/messages", ann.token) as alice:
        for content, code in (
            ('"\\ud83d"', "invalid"),
            ("NaN", "invalid"),
            ('"' + "x" * 70_000 + '"', "too_large"),
        ):
            answer = await alice.send_text("message.send", '{"body":' + content + "}")
            assert answer["ok"] is False
            assert answer["error"]["code"] == code
        assert (await alice.request("message.search", {"q": "x"}))["ok"] is True


async def test_refused_connections(api: Api) -> None:
    ann = await api.register("Ann")
    for namespace, token, code in (
        ("/messages", None, "unauthenticated"),
        ("/presence", "nonsense", "unauthenticated"),
        ("/reactions", "", "unauthenticated"),
    ):
        with pytest.raises(ConnectRefused) as refused:
            await connect(api.url, namespace, token)
        assert refused.value.code == code
        assert refused.value.message == refused.value.data["message"]
    with pytest.raises(ConnectRefused) as refused:
        await connect(api.url, "/nowhere", ann.token)
    assert refused.value.message == "Invalid namespace"
    place: Any = {"epoch": "x", "seq": -1}
    with pytest.raises(ConnectRefused) as refused:
        await connect(api.url, "/messages", ann.token, resume={"messages/x": place})
    assert refused.value.data["errors"][0]["field"] == "resume.messages/x.seq"


async def test_what_has_get_has_head(api: Api) -> None:
    ann = await api.register("Ann")
    got = await ann.api.request("GET", "/users/me")
    asked = await ann.api.request("HEAD", "/users/me")
    assert (asked.status, asked.body) == (200, b"")
    for name in ("etag", "content-type", "content-length"):
        assert asked.headers[name] == got.headers[name]
    assert (await api.request("HEAD", "/users/me")).status == 401


async def test_conditional_and_compressed(api: Api) -> None:
    ann = await api.register("Ann")
    body = {"kind": "group", "title": "t", "client_id": "g"}
    path = f"/conversations/{(await ann.api.post('/conversations', body, 201))['id']}/messages"
    for number in range(10):
        await ann.api.post(path, {"client_id": str(number), "body": "x" * 100}, 201)
    packed = {"Accept-Encoding": "gzip"}
    reply = await ann.api.request("GET", path, headers=packed)
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.headers["vary"] == "Accept-Encoding"
    assert len(reply.json["items"]) == 10
    known = {"If-None-Match": reply.headers["etag"]}
    again = await ann.api.request("GET", path, headers=known | packed)
    assert (again.status, again.body) == (304, b"")
    await ann.api.post(path, {"client_id": "more", "body": "more"}, 201)
    assert (await ann.api.request("GET", path, headers=known)).status == 200


async def test_over_the_limit(start_server: StartServer) -> None:
    server = start_server(RATE_LIMITS="message.send=3/h,user.me=2/m")
    async with Api(server.url) as api:
        ann, bob = await api.register("Ann"), await api.register("Bob")
        body = {"kind": "group", "members": [bob.id], "client_id": "g"}
        group = await ann.api.post("/conversations", body, 201)
        async with await connect(api.url, "/messages", ann.token) as alice:
            answers = [
                await alice.request(
                    "message.send",
                    {"conversation": group["id"], "client_id": str(number), "body": "x"},
                )
                for number in range(4)
            ]
            assert [each["ok"] for each in answers] == [True, True, True, False]
            error = answers[-1]["error"]
            assert error["code"] == "rate_limited"
            assert 0 < error["retry_after"] <= 1200
            path = f"/conversations/{group['id']}/messages"
            reply = await ann.api.request("POST", path, json={"client_id": "r", "body": "x"})
            told = problem(reply, 429, "rate_limited")["retry_after"]
            assert told <= int(reply.headers["retry-after"]) < told + 1
            await bob.api.post(path, {"client_id": "b", "body": "others may"}, 201)
        statuses = [(await bob.api.request("GET", "/users/me")).status for _ in range(3)]
        assert statuses == [200, 200, 429]
