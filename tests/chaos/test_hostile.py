"""Malformed input at every layer of a real server: a clear answer within a second, everybody else
undisturbed, nothing left behind.
"""

import asyncio
import contextlib
import gzip
import itertools
import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from tests.chaos.control import Control
from tests.chaos.values import VALUES, Schema, beyond, is_wrong, request, resolved, short, valid
from tests.integration.transport.clients import Closed, RawSocket
from tests.support.rest import PASSWORD, Account, Api
from tests.support.server import ServerProcess

WITHIN = 1.0
"""Seconds until an answer or the end."""

STALL = 0.1
"""Seconds that others may wait longer than they do anyway."""

TRIES = 3
"""Times an attack is repeated before a wait is put down to the server and not to the machine."""

ADMIN = "admin@example.com"

CODES = {
    "invalid",
    "unauthenticated",
    "forbidden",
    "not_found",
    "conflict",
    "too_large",
    "rate_limited",
}


class Field(NamedTuple):
    name: str
    schema: Schema


class Target:
    """The server, and what it says it takes."""

    def __init__(self, server: ServerProcess, control: Control) -> None:
        self.server = server
        self.control = control
        self.asyncapi: dict[str, Any] = _fetch(server, "/asyncapi.json")
        self.openapi: dict[str, Any] = _fetch(server, "/openapi.json")
        self._numbers = itertools.count()

    def commands(self) -> Iterator[tuple[str, str, list[Field], set[str]]]:
        """Every command of every namespace, with its fields and those it must have."""
        shared = self.asyncapi["components"]["schemas"]
        for name, channel in self.asyncapi["channels"].items():
            for operation in self.asyncapi["operations"].values():
                if operation["action"] != "receive":
                    continue
                if not operation["channel"]["$ref"].endswith(f"/{name}"):
                    continue
                command = operation["messages"][0]["$ref"].rpartition("/")[2]
                schema = resolved(channel["messages"][command]["payload"], shared)
                fields = [Field(*each) for each in schema.get("properties", {}).items()]
                yield channel["address"], command, fields, set(schema.get("required", ()))


def _fetch(server: ServerProcess, path: str) -> Any:
    with urllib.request.urlopen(server.url + path) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory: Path = tmp_path_factory.mktemp("hostile")
    admin = {"ADMIN_EMAIL": ADMIN, "ADMIN_PASSWORD": PASSWORD}
    with ServerProcess(directory, admin) as server:
        token, conversation = asyncio.run(_quiet_person(server))
        with Control(server.url, token, conversation) as control:
            yield Target(server, control)


async def _quiet_person(server: ServerProcess) -> tuple[str, str]:
    async with Api(server.url) as api:
        person = await api.register("Quiet")
        body = {"kind": "group", "members": [], "client_id": "quiet"}
        return person.token, (await person.api.post("/conversations", body, 201))["id"]


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


Attack = Callable[[Target], Awaitable[str]]


async def withstand(target: Target, attack: Attack) -> None:
    """Carry out an attack, and hold the server to its promises."""
    normal = (await asyncio.to_thread(target.control.wait, 0.7))[:]
    median = normal[len(normal) // 2]
    worst = 0.0
    for _ in range(TRIES):
        started = time.monotonic()
        report = await attack(target)
        took = time.monotonic() - started
        await asyncio.to_thread(target.control.wait)
        waits = target.control.since(started)
        worst = waits[-1]
        print(
            f"\n{report}; {took:.1f} s; others: {len(waits)} round trips, median "
            f"{waits[len(waits) // 2] * 1000:.1f} ms, worst {worst * 1000:.1f} ms "
            f"(in peace {median * 1000:.1f} ms)"
        )
        if worst < median + STALL:
            break
    else:
        pytest.fail(f"others waited {worst:.3f} s, {TRIES} times")
    await nothing_is_left(target)


async def nothing_is_left(target: Target, seconds: float = 5.0) -> None:
    """No session but the control client's, nothing that went wrong inside."""
    async with Api(target.server.url) as api:
        async with asyncio.timeout(seconds):
            while True:
                metrics = (await api.request("GET", "//metrics")).body.decode()
                if _number(metrics, "parley_sessions") == 1:
                    break
                await asyncio.sleep(0.05)
    assert 'outcome="internal"' not in metrics
    assert not re.findall(r'^parley_http_requests_total\{.*status="500"\}.*', metrics, re.M)
    assert "Traceback" not in target.server.log()
    assert "[error" not in target.server.log()


def _number(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", metrics, re.M)
    assert found, f"no {name} in the metrics"
    return float(found[1])


# -- commands over sockets --------------------------------------------------------------------


class Caller:
    """Sends commands as raw text; connects anew when it was thrown out for one."""

    def __init__(self, port: int, namespace: str, token: str) -> None:
        self.slowest = 0.0
        self._port = port
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
        started = time.monotonic()
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
            self.slowest = max(self.slowest, time.monotonic() - started)
        answer: dict[str, Any] = json.loads(text[len(head) - 1 :])[0]
        return answer

    def abort(self) -> None:
        if self._raw is not None:
            self._raw.abort()
            self._raw = None


MALFORMED = ("a lone surrogate", "deep", "10^400", "1e400")
"""Parts of the names of values that may be no JSON to the server: the connection is closed."""


async def wrong_values_over_sockets(target: Target) -> str:
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    shared = target.asyncapi["components"]["schemas"]
    async with Api(target.server.url) as api:
        for namespace, command, fields, required in target.commands():
            found = await scene(api)
            caller = Caller(target.server.port, namespace, found.ann.token)
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

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.outcomes: Counter[int] = Counter()
        self.slowest = 0.0
        self._url = url
        self._http = http

    async def send(
        self, method: str, path: str, token: str, body: str | None = None, *, wrong: bool, what: str
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        started = time.monotonic()
        async with self._http.request(
            method,
            URL(self._url + path, encoded=True),
            data=None if body is None else body.encode("utf-8", "surrogatepass"),
            headers=headers,
            allow_redirects=False,
        ) as reply:
            content = await reply.read()
        took = time.monotonic() - started
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


def _operations(target: Target) -> Iterator[tuple[str, str, list[Field], set[str], list[Any]]]:
    for path, methods in target.openapi["paths"].items():
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
    shared = target.openapi["components"]["schemas"]
    async with Api(target.server.url) as api, aiohttp.ClientSession() as http:
        sender = Sender(target.server.url, http)
        for method, path, fields, required, parameters in _operations(target):
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
                started = time.monotonic()
                status, answer = await _bring(
                    http, method, f"{api.url}/api/v1{path}", found.ann.token, body, chunked=chunked
                )
                took = time.monotonic() - started
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


# -- connecting -------------------------------------------------------------------------------


async def hostile_connects(target: Target) -> str:
    """CONNECT with every value for every part of `auth`."""
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    async with Api(target.server.url) as api:
        ann = await api.register("Ann")
        token = json.dumps(ann.token)
        auths = {f"auth: {text}": value for text, value in VALUES.items()}
        auths |= {f"token: {text}": f'{{"token":{value}}}' for text, value in VALUES.items()}
        for text, value in VALUES.items():
            auths[f"resume: {text}"] = f'{{"token":{token},"resume":{value}}}'
            auths[f"resume of a stream: {text}"] = (
                f'{{"token":{token},"resume":{{"messages/x":{value}}}}}'
            )
            for field in ("epoch", "seq"):
                place = request({"epoch": '"e"', "seq": "1", field: value})
                auths[f"{field}: {text}"] = f'{{"token":{token},"resume":{{"messages/x":{place}}}}}'
        for namespace, (text, auth) in itertools.product(("/messages", "/presence"), auths.items()):
            raw = await RawSocket.open(target.server.port)
            started = time.monotonic()
            raw.send(f"40{namespace},{auth}")
            try:
                reply = await raw.receive()
            except Closed:
                outcomes["closed"] += 1
            else:
                what = f"{namespace} with {text}: {short(reply)}"
                assert reply.startswith((f"40{namespace},", f"44{namespace},")), what
                if reply.startswith("44"):
                    code = json.loads(reply[3 + len(namespace) :])["data"]["code"]
                    assert code in CODES, what
                    outcomes[code] += 1
                else:
                    outcomes["ok"] += 1
            slowest = max(slowest, time.monotonic() - started)
            raw.abort()
            assert slowest < WITHIN
    counts = ", ".join(f"{code} {count}" for code, count in outcomes.most_common())
    return f"{outcomes.total()} CONNECTs: {counts}; slowest {slowest * 1000:.0f} ms"


async def connects_without_token(target: Target, count: int) -> str:
    """Many connections at once that are nobody's: each is refused in time."""
    slowest = 0.0
    gate = asyncio.Semaphore(100)

    async def one() -> None:
        nonlocal slowest
        async with gate:
            raw = await RawSocket.open(target.server.port)
            started = time.monotonic()
            raw.send("40/messages,{}")
            reply = await raw.receive()
            slowest = max(slowest, time.monotonic() - started)
            assert json.loads(reply.partition(",")[2])["data"]["code"] == "unauthenticated"
            raw.abort()

    await asyncio.gather(*(one() for _ in range(count)))
    assert slowest < WITHIN
    return f"{count} connections without a token; slowest refusal {slowest * 1000:.0f} ms"


# -- below: HTTP and TCP ----------------------------------------------------------------------

GARBAGE: dict[str, bytes] = {
    "TLS": bytes.fromhex("16030100f1010000ed0303") + b"\x55" * 230,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9,
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no request line": b"\0\1\2\3\r\n\r\n",
    "an endless request line": b"GET /" + b"a" * 200_000,
    "an endless header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 200_000,
    "100,000 headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: \0\r\n\r\n",
    "no length": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a huge length": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: "
    + b"9" * 40
    + b"\r\n\r\n{}",
    "two lengths": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Content-Length: 3\r\n\r\n{}",
    "length and chunks": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a wrong chunk": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "an unknown encoding": b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: brotli\r\n\r\n{}",
    "a wrong method": b"\xc3\x28 / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a half-escaped path": b"GET /%zz%e0%80%80/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "an absolute path": b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a wrong websocket key": b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n",
    "a websocket over HTTP/1.0": b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.0\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "a session that is none": b"GET /socket.io/?EIO=4&transport=polling&sid=%00%ff HTTP/1.1\r\n"
    b"Host: x\r\nConnection: close\r\n\r\n",
    "a token of NUL": b"GET /api/v1/users/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Authorization: Bearer \xff\xfe\r\n\r\n",
}


async def garbage_for_http(target: Target) -> str:
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for text, garbage in GARBAGE.items():
        reader, writer = await asyncio.open_connection("127.0.0.1", target.server.port)
        started = time.monotonic()
        writer.write(garbage)
        answer = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                await writer.drain()
                answer = await reader.read(65536)
        took = time.monotonic() - started
        slowest = max(slowest, took)
        what = f"{text}: {short(answer.decode(errors='replace'))}"
        assert took < WITHIN, f"{took:.2f} s: {what}"
        assert b"Traceback" not in answer, what
        status = answer.split()[1].decode() if answer.startswith(b"HTTP/") else "closed"
        assert status == "closed" or int(status) < 500, what
        outcomes[status] += 1
        writer.transport.abort()
    counts = ", ".join(f"{code} {count}" for code, count in outcomes.most_common())
    return f"{len(GARBAGE)} kinds of garbage: {counts}; slowest {slowest * 1000:.0f} ms"


SLOW: dict[str, tuple[bytes, bytes]] = {
    "a request line": (b"GET /", b"a"),
    "headers": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n"),
    "a body": (
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100000\r\n\r\n",
        b" ",
    ),
    "a handshake": (
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n",
        b"X: y\r\n",
    ),
    "a websocket": (
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff",
        b"",
    ),
    "nothing": (b"", b""),
    "nothing but line ends": (b"", b"\r\n"),
}


async def slow_requests(target: Target, count: int, seconds: float) -> str:
    """Connections that say what they want one byte at a time, or never."""
    begun: list[tuple[asyncio.StreamWriter, bytes]] = []
    for _, (head, drip) in zip(range(count), itertools.cycle(SLOW.values()), strict=False):
        _, writer = await asyncio.open_connection("127.0.0.1", target.server.port)
        writer.write(head)
        begun.append((writer, drip))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for writer, drip in begun:
            if drip and not writer.is_closing():
                writer.write(drip)
        await asyncio.sleep(0.2)
    for writer, _ in begun:
        writer.transport.abort()
    return f"{count} slow requests of {len(SLOW)} kinds for {seconds:g} s"


# -- the tests --------------------------------------------------------------------------------

pytestmark = pytest.mark.timeout(300)


async def test_wrong_values_in_every_socket_command(target: Target) -> None:
    await withstand(target, wrong_values_over_sockets)


async def test_wrong_values_in_every_rest_route(target: Target) -> None:
    await withstand(target, wrong_values_over_rest)


async def test_bodies_over_every_limit(target: Target) -> None:
    await withstand(target, bodies_over_limits)


async def test_hostile_connects(target: Target) -> None:
    await withstand(target, hostile_connects)


async def test_thousands_of_connects_without_a_token(target: Target, full: bool) -> None:
    await withstand(target, lambda at: connects_without_token(at, 5000 if full else 1000))


async def test_garbage_instead_of_http(target: Target) -> None:
    await withstand(target, garbage_for_http)


async def test_slow_requests(target: Target, full: bool) -> None:
    count, seconds = (1000, 20.0) if full else (300, 3.0)
    await withstand(target, lambda at: slow_requests(at, count, seconds))
