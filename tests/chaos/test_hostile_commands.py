"""Malformed requests to every command over sockets and to every route over REST."""

import asyncio
import gzip
import itertools
import json
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from tests.chaos.control import Stopwatch
from tests.chaos.hostile import ADMIN, CODES, WITHIN, Target, withstand
from tests.chaos.values import VALUES, Schema, beyond, is_wrong, request, resolved, short, valid
from tests.integration.transport.clients import Closed, RawSocket
from tests.support.rest import PASSWORD, Account, Api
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]


class Field(NamedTuple):
    name: str
    schema: Schema


def _fetch(server: ServerProcess, path: str) -> Any:
    with urllib.request.urlopen(server.url + path) as answer:
        return json.load(answer)


class Scene(NamedTuple):
    """A fresh set of people and things that a request can be about."""

    ann: Account
    bob: Account
    known: dict[str, Any]
    """Good values by the names of fields."""


async def scene(api: Api) -> Scene:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    body = {"kind": "group", "members": [bob.id], "client_id": "1"}
    room = (await ann.api.post("/conversations", body, 201))["id"]
    path = f"/conversations/{room}/messages"
    message = await ann.api.post(path, {"client_id": "m", "body": "hello"}, 201)
    known = {
        "conversation": room,
        "message": message["id"],
        "user": bob.id,
        "id": bob.id,
        "thread": message["id"],
        "reply_to": message["id"],
        "sender": ann.id,
        "members": [bob.id],
        "mentions": [bob.id],
        "client_id": "fresh",
        "streams": [{"stream": f"messages/{room}"}],
        "seq": 1,
        "version": 1,
        "emoji": "👍",
        "body": "words",
        "token": ann.token,
        "refresh_token": ann.refresh_token,
        "email": "somebody@example.com",
        "password": PASSWORD,
        "current_password": PASSWORD,
        "name": "Ann",
        "q": "hello",
        "since": "2026-01-01T00:00:00Z",
        "until": "2036-01-01T00:00:00Z",
    }
    return Scene(ann, bob, known)


def requests(
    fields: list[Field], required: set[str], known: Mapping[str, Any], shared: Mapping[str, Schema]
) -> Iterator[tuple[str, str, bool]]:
    """Hostile requests: what is wrong, the JSON text, and whether it must be refused."""
    good = {
        each.name: json.dumps(known.get(each.name, valid(each.schema, shared, each.name)))
        for each in fields
        if each.name in required
    }
    for text, value in VALUES.items():
        if not value.startswith("{"):
            yield f"{text} for an object", value, value != "null"
    yield "an unknown field", request({**good, "colour": "1"}), True
    yield "5,000 unknown fields", request({**good, **{f"f{n}": "0" for n in range(5000)}}), True
    yield "a field twice", request(good)[:-1] + (',"x":1,"x":2}' if good else '"x":1,"x":2}'), True
    yield "a name of NUL", request({**good, "\0": "1"}), True
    for field in fields:
        if field.name in required:
            rest = {name: value for name, value in good.items() if name != field.name}
            yield f"no {field.name}", request(rest), True
        for text, value in (*VALUES.items(), *beyond(field.schema, shared)):
            yield (
                f"{text} for {field.name}",
                request({**good, field.name: value}),
                is_wrong(value, field.schema, shared),
            )


# -- commands over sockets --------------------------------------------------------------------


class Caller:
    """Sends commands as raw text; connects anew when it was thrown out for one."""

    def __init__(self, server: ServerProcess, namespace: str, token: str) -> None:
        self.slowest = 0.0
        self._server = server.pid
        self._port = server.port
        self._namespace = namespace
        self._token = token
        self._raw: RawSocket | None = None
        self._acks = itertools.count()

    async def call(self, command: str, payload: str) -> dict[str, Any] | None:
        """The answer; None if the connection was closed instead."""
        if self._raw is None:
            self._raw = await RawSocket.open(self._port)
            self._raw.send(f'40{self._namespace},{{"token":{json.dumps(self._token)}}}')
            reply = await self._raw.receive()
            assert reply.startswith(f"40{self._namespace},"), reply
        number = next(self._acks)
        watch = Stopwatch(self._server)
        self._raw.send(f'42{self._namespace},{number}["{command}",{payload}]')
        head = f"43{self._namespace},{number}["
        try:
            async with asyncio.timeout(10):
                while not (text := await self._raw.receive()).startswith(head):
                    pass
        except Closed:
            self.abort()
            return None
        finally:
            self.slowest = max(self.slowest, watch.seconds())
        answer: dict[str, Any] = json.loads(text[len(head) - 1 :])[0]
        return answer

    def abort(self) -> None:
        if self._raw is not None:
            self._raw.abort()
            self._raw = None


MALFORMED = ("a lone surrogate", "deep", "10^400", "1e400")
"""Parts of the names of values that may be no JSON to the server: the connection is closed."""


def _commands(asyncapi: dict[str, Any]) -> Iterator[tuple[str, str, list[Field], set[str]]]:
    """Every command of every namespace, with its fields and those it must have."""
    shared = asyncapi["components"]["schemas"]
    for name, channel in asyncapi["channels"].items():
        for operation in asyncapi["operations"].values():
            if operation["action"] != "receive":
                continue
            if not operation["channel"]["$ref"].endswith(f"/{name}"):
                continue
            command = operation["messages"][0]["$ref"].rpartition("/")[2]
            schema = resolved(channel["messages"][command]["payload"], shared)
            fields = [Field(*each) for each in schema.get("properties", {}).items()]
            yield channel["address"], command, fields, set(schema.get("required", ()))


async def wrong_values_over_sockets(target: Target) -> str:
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    asyncapi = _fetch(target.server, "/asyncapi.json")
    shared = asyncapi["components"]["schemas"]
    async with Api(target.server.url) as api:
        for namespace, command, fields, required in _commands(asyncapi):
            found = await scene(api)
            caller = Caller(target.server, namespace, found.ann.token)
            try:
                for text, payload, wrong in requests(fields, required, found.known, shared):
                    answer = await caller.call(command, payload)
                    what = f"{command} with {text}: {short(str(answer))}"
                    if answer is None:
                        assert any(part in text for part in MALFORMED), what
                        outcomes["closed"] += 1
                    elif answer["ok"]:
                        assert not wrong, what
                        outcomes["ok"] += 1
                    else:
                        code = answer["error"]["code"]
                        assert code in CODES, what
                        assert "Traceback" not in answer["error"]["message"], what
                        assert not wrong or code in {"invalid", "too_large"}, what
                        outcomes[code] += 1
                    assert caller.slowest < WITHIN, f"{caller.slowest:.2f} s: {what}"
            finally:
                caller.abort()
            slowest = max(slowest, caller.slowest)
    counts = ", ".join(f"{code} {count}" for code, count in outcomes.most_common())
    return f"{outcomes.total()} commands over sockets: {counts}; slowest {slowest * 1000:.0f} ms"


# -- routes over REST -------------------------------------------------------------------------


class Sender:
    """Sends REST requests and judges the answers."""

    def __init__(self, server: ServerProcess, http: aiohttp.ClientSession) -> None:
        self.outcomes: Counter[int] = Counter()
        self.slowest = 0.0
        self._server = server.pid
        self._url = server.url
        self._http = http

    async def send(
        self, method: str, path: str, token: str, body: str | None = None, *, wrong: bool, what: str
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        watch = Stopwatch(self._server)
        async with self._http.request(
            method,
            URL(self._url + path, encoded=True),
            data=None if body is None else body.encode("utf-8", "surrogatepass"),
            headers=headers,
            allow_redirects=False,
        ) as reply:
            content = await reply.read()
        took = watch.seconds()
        self.slowest = max(self.slowest, took)
        self.outcomes[reply.status] += 1
        what = f"{method} {path[:200]} with {what}: {reply.status} {short(content.decode())}"
        assert took < WITHIN, f"{took:.2f} s: {what}"
        if reply.status >= 400:
            assert reply.content_type == "application/problem+json", what
            problem = json.loads(content)
            assert problem["code"] in CODES, what
            assert b"Traceback" not in content, what
        assert not wrong or 400 <= reply.status < 500, what


def _operations(
    openapi: dict[str, Any],
) -> Iterator[tuple[str, str, list[Field], set[str], list[Any]]]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            schema = body["schema"] if body else {}
            yield (
                method.upper(),
                path,
                [Field(*each) for each in schema.get("properties", {}).items()],
                set(schema.get("required", ())),
                operation.get("parameters", []),
            )


async def wrong_values_over_rest(target: Target) -> str:
    openapi = _fetch(target.server, "/openapi.json")
    shared = openapi["components"]["schemas"]
    async with Api(target.server.url) as api, aiohttp.ClientSession() as http:
        sender = Sender(target.server, http)
        for method, path, fields, required, parameters in _operations(openapi):
            if path.endswith("/auth/logout"):
                continue  # its success ends the token the others need
            found = await scene(api)
            token = found.ann.token
            if path.startswith(("/api/v1/users/{", "/api/v1/invites")):
                token = (await api.login(ADMIN)).token
            places = [each["name"] for each in parameters if each["in"] == "path"]
            good = path
            for name in places:
                good = good.replace(f"{{{name}}}", str(found.known.get(name, "none")))
            for text, value in VALUES.items():
                plain = _plain(value)
                for name in places:
                    if plain and len(quote(plain)) < 4000:
                        at = path.replace(f"{{{name}}}", quote(plain, safe=""))
                        for other in places:
                            at = at.replace(f"{{{other}}}", str(found.known.get(other, "none")))
                        what = f"{text} for {name}"
                        await sender.send(method, at, token, wrong=False, what=what)
                for each in parameters:
                    if each["in"] == "query" and len(quote(plain)) < 4000:
                        at = f"{good}?{each['name']}={quote(plain, safe='')}"
                        what = f"{text} for {each['name']}"
                        await sender.send(method, at, token, wrong=False, what=what)
            if fields:
                for text, body, wrong in requests(fields, required, found.known, shared):
                    await sender.send(method, good, token, body, wrong=wrong, what=text)
            else:
                for text, body in VALUES.items():
                    await sender.send(method, good, token, body, wrong=False, what=text)
            await sender.send(method, f"{good}?colour=1&colour=2", token, wrong=True, what="twice")
    counts = ", ".join(f"{code} {count}" for code, count in sender.outcomes.most_common())
    return (
        f"{sender.outcomes.total()} requests over REST: {counts}; "
        f"slowest {sender.slowest * 1000:.0f} ms"
    )


def _plain(value: str) -> str:
    """A JSON value as it stands in a URL."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found.encode(errors="replace").decode() if isinstance(found, str) else value


# -- whole bodies -----------------------------------------------------------------------------

KEYS = json.dumps({f"k{n}": n for n in range(100_000)})

BODIES: dict[str, bytes] = {
    "lists 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "lists 100,000 deep and open": b"[" * 100_000,
    "objects 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a field 100,000 deep": b'{"members":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 keys": KEYS[:1_040_000].rpartition(",")[0].encode() + b"}",
    "100,000 keys in a field": b'{"streams":'
    + KEYS[:1_030_000].rpartition(",")[0].encode()
    + b"}}",
    "300,000 elements": b'{"members":[' + b",".join([b"0"] * 300_000) + b"]}",
    "an integer of 1,000,000 digits": b'{"version":' + b"9" * 1_000_000 + b"}",
    "a text of 1,000,000 characters": b'{"title":"' + b"x" * 1_000_000 + b'"}',
    "a body one byte too large": b'{"title":"' + b"x" * (1024 * 1024 - 11) + b'"}',
    "2 MiB": b" " * (2 * 1024 * 1024),
    "no JSON": b"<xml/>",
    "no UTF-8": b'{"title":"\xff\xfe"}',
    "UTF-16": '{"title":"x"}'.encode("utf-16"),
    "NUL": b"\0",
    "half an object": b'{"title":',
    "NaN": b'{"title":NaN}',
    "gzip": gzip.compress(b"{}"),
}


async def bodies_over_limits(target: Target) -> str:
    outcomes: Counter[int] = Counter()
    slowest = 0.0
    async with Api(target.server.url) as api, aiohttp.ClientSession() as http:
        found = await scene(api)
        paths = (
            ("POST", "/conversations"),
            ("POST", "/sync"),
            ("POST", "/auth/login"),
            ("POST", f"/conversations/{found.known['conversation']}/messages"),
            ("PATCH", f"/messages/{found.known['message']}"),
        )
        for (method, path), (text, body) in itertools.product(paths, BODIES.items()):
            for chunked in (False, True):
                watch = Stopwatch(target.server.pid)
                status, answer = await _bring(
                    http, method, f"{api.url}/api/v1{path}", found.ann.token, body, chunked=chunked
                )
                took = watch.seconds()
                slowest = max(slowest, took)
                outcomes[status] += 1
                what = f"{method} {path} with {text}: {status} {short(answer.decode())}"
                assert took < WITHIN, f"{took:.2f} s: {what}"
                assert status in {400, 401, 413}, what
                assert json.loads(answer)["code"] in CODES, what
    counts = ", ".join(f"{code} {count}" for code, count in outcomes.most_common())
    return f"{outcomes.total()} bodies: {counts}; slowest {slowest * 1000:.0f} ms"


async def _bring(
    http: aiohttp.ClientSession, method: str, url: str, token: str, body: bytes, *, chunked: bool
) -> tuple[int, bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = pieces() if chunked else body
    async with http.request(method, url, data=data, headers=headers) as reply:
        return reply.status, await reply.read()


# -- the tests --------------------------------------------------------------------------------


async def test_wrong_values_in_every_socket_command(target: Target) -> None:
    await withstand(target, wrong_values_over_sockets)


async def test_wrong_values_in_every_rest_route(target: Target) -> None:
    await withstand(target, wrong_values_over_rest)


async def test_bodies_over_every_limit(target: Target) -> None:
    await withstand(target, bodies_over_limits)
