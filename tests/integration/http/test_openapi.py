"""Every REST route that `/openapi.json` declares is there, and whatever it is sent, it answers by
the declared rules: never with 500, and refusals are problem documents.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import openapi_spec_validator
import orjson
import pytest
from jsonschema import Draft202012Validator

from tests.support.rest import PASSWORD, Account, Api, Reply
from tests.support.server import ServerProcess

WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**18,
    1.5,
    "",
    "\0",
    "x" * 70_000,
    "\u202e\ufffe",
    "../../etc/passwd",
    "' OR 1=1 --",
    [],
    [[]],
    [None],
    ["\0"],
    {},
    {"x": {"y": []}},
)
"""Sent for each field in turn; some are right for some."""

RAW: tuple[bytes, ...] = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"1",
    b"\xff\xfe",
    b'{"a":NaN}',
    b"[" * 10_000,
    b'{"\\ud800":1}',
)
"""Bodies that are no request."""

ADMIN = "admin@example.com"

LONE_SURROGATE = b'"\\ud800"'
HUGE_INTEGER = b"1" + b"0" * 400

IDS = ("x", "\0", "..", "x" * 300, "\u00e4\U0001f600", "a/b", "%", "' --", "0")


class Operation(NamedTuple):
    """One route as declared."""

    method: str
    path: str
    declared: dict[str, Any]

    @property
    def open(self) -> bool:
        """Whether it needs no token."""
        return self.declared.get("security") == []

    @property
    def body(self) -> dict[str, Any] | None:
        """The schemas of the JSON body's fields; None without one."""
        content = self.declared.get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            return None
        fields: dict[str, Any] = content["application/json"]["schema"].get("properties", {})
        return fields

    @property
    def takes_json(self) -> bool:
        """Whether a body would be read as JSON: a command, and one that reads bodies."""
        multipart = "multipart/form-data" in self.declared.get("requestBody", {}).get("content", {})
        return self.method in {"POST", "PUT", "PATCH"} and not multipart

    def query(self) -> list[str]:
        """The names of the query's fields."""
        found = self.declared.get("parameters", ())
        return [each["name"] for each in found if each["in"] == "query"]

    def at(self, ids: Mapping[str, str] | None = None) -> str:
        """The path below `/api/v1`, with the parameters filled in."""
        names = ids or {}
        return re.sub(
            r"{(\w+)}",
            lambda found: quote(names.get(found[1], "0192"), safe=""),
            self.path.removeprefix("/api/v1"),
        )

    def request(self, ids: Mapping[str, str]) -> dict[str, Any]:
        """A body of the declared form."""
        body = self.body or {}
        content = self.declared.get("requestBody", {}).get("content", {})
        needed = content.get("application/json", {}).get("schema", {}).get("required", ())
        return {name: ids.get(name, sample(body[name])) for name in needed}

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def sample(schema: Mapping[str, Any]) -> Any:
    """A value of a declared form."""
    if "anyOf" in schema:
        return sample(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "string":
            return "Abcdefgh1jklmnop"[: schema.get("maxLength", 16)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return [sample(schema.get("items", {}))] * schema.get("minItems", 0)
        case _:
            return {}


class Stage(NamedTuple):
    """Somebody with rights over everything, and something to have them over."""

    admin: Account
    ids: dict[str, str]
    """What there is, by the names of path parameters and fields."""


async def set_up(api: Api) -> Stage:
    admin = await api.login(ADMIN)
    other = await api.register("Other")
    group = await admin.api.post(
        "/conversations",
        {"kind": "group", "members": [other.id], "client_id": secrets.token_hex(8)},
        201,
    )
    path = f"/conversations/{group['id']}/messages"
    message = await admin.api.post(path, {"client_id": "m", "body": "hello"}, 201)
    return Stage(
        admin,
        {
            "conversation": group["id"],
            "message": message["id"],
            "user": other.id,
            "id": other.id,
            "client_id": secrets.token_hex(8),
            "email": f"{secrets.token_hex(8)}@example.com",
            "password": PASSWORD,
            "kind": "group",
            "role": "member",
        },
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One of its own: strange things are stored in it."""
    settings = {"ADMIN_EMAIL": ADMIN, "ADMIN_PASSWORD": PASSWORD}
    with ServerProcess(tmp_path_factory.mktemp("openapi"), settings) as process:
        yield process


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with Api(server.url) as found:
        yield found


@pytest.fixture
async def operations(api: Api) -> list[Operation]:
    document = (await api.request("GET", "//openapi.json")).expect(200)
    return [
        Operation(method.upper(), path, declared)
        for path, methods in document["paths"].items()
        for method, declared in methods.items()
    ]


async def ask(who: Api, operation: Operation, path: str, body: bytes | None = None) -> Reply:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    return await who.request(operation.method, path, data=body, headers=headers)


def check(operation: Operation, reply: Reply, sent: object) -> None:
    """The answer keeps the rules, whatever was sent."""
    told = f"{operation} with {str(sent)[:200]}: {reply.status} {reply.body[:500]!r}"
    assert reply.status < 500, told
    assert "x-request-id" in reply.headers, told
    if reply.status >= 400:
        assert reply.headers["content-type"] == "application/problem+json", told
        problem = reply.json
        assert problem["status"] == reply.status, told
        assert problem["request_id"] == reply.headers["x-request-id"], told
        assert {"type", "title", "code", "detail", "errors"} <= problem.keys(), told
        assert "Traceback" not in problem["detail"], told


async def test_the_document_is_valid(api: Api) -> None:
    openapi_spec_validator.validate((await api.request("GET", "//openapi.json")).expect(200))


async def test_answers_have_the_declared_form(api: Api, operations: list[Operation]) -> None:
    document = (await api.request("GET", "//openapi.json")).expect(200)
    good = 0
    for each in operations:
        admin, ids = await set_up(api)
        body = orjson.dumps(each.request(ids)) if each.takes_json else None
        reply = await ask(admin.api, each, each.at(ids), body)
        check(each, reply, body)
        if reply.status >= 400:
            continue
        declared = each.declared["responses"].get(str(reply.status))
        assert declared is not None, f"{each}: {reply.status} is not declared"
        if reply.status == 204:
            assert (reply.body, declared.get("content")) == (b"", None)
            continue
        schema = declared["content"]["application/json"]["schema"]
        validator = Draft202012Validator({**schema, "components": document["components"]})
        problems = [
            f"{error.json_path}: {error.message}" for error in validator.iter_errors(reply.json)
        ]
        assert not problems, f"{each}: {problems[:5]}"
        good += 1
    assert good > len(operations) / 2


async def test_operations_have_names_of_their_own(operations: list[Operation]) -> None:
    names = [each.declared["operationId"] for each in operations]
    assert len(names) == len(set(names))
    for each in operations:
        assert each.declared["summary"], each
        declared = (
            {p["name"] for p in each.declared["parameters"] if p["in"] == "path"}
            if ("parameters" in each.declared)
            else set()
        )
        assert all(f"{{{name}}}" in each.path for name in declared), each
        assert each.path.count("{") == len(declared), each


async def test_without_a_token_or_with_a_bad_one_nothing_is_done(
    api: Api, operations: list[Operation]
) -> None:
    stranger = Api(api.url, "no.such.token")
    try:
        for each in operations:
            if each.open:
                continue
            for who in (api, stranger):
                reply = await ask(who, each, each.at())
                check(each, reply, "no token")
                assert reply.status == 401, f"{each}: {reply.status}"
                assert reply.json["code"] == "unauthenticated"
                assert reply.headers["www-authenticate"].startswith("Bearer")
    finally:
        await stranger.close()


async def test_a_method_that_is_not_declared(api: Api, operations: list[Operation]) -> None:
    by_path: dict[str, set[str]] = {}
    for each in operations:
        by_path.setdefault(each.at(), set()).add(each.method)
    for path, methods in by_path.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - methods:
            reply = await api.request(method, path)
            assert reply.status == 405, f"{method} {path}: {reply.status}"
            assert reply.headers["content-type"] == "application/problem+json"
            allowed = {each.strip() for each in reply.headers["allow"].split(",")}
            assert methods <= allowed, f"{method} {path}: {allowed}"


async def test_undeclared_fields_are_refused_by_name(api: Api, operations: list[Operation]) -> None:
    admin, _ = await set_up(api)
    for each in operations:
        if each.takes_json:
            reply = await ask(admin.api, each, each.at(), b'{"nonsense":1}')
        else:
            reply = await ask(admin.api, each, each.at() + "?nonsense=1")
        check(each, reply, "an unknown field")
        assert reply.status == 400, f"{each}: {reply.status} {reply.body[:300]!r}"
        if each.path != "/api/v1/uploads":
            fields = {error["field"] for error in reply.json["errors"]}
            assert "nonsense" in fields, f"{each}: {fields}"


async def test_bodies_that_are_no_requests(api: Api, operations: list[Operation]) -> None:
    for each in operations:
        if not each.takes_json:
            continue
        admin, ids = await set_up(api)
        for body in RAW:
            reply = await ask(admin.api, each, each.at(ids), body)
            check(each, reply, body)
            assert reply.status >= 400 or body == b"", f"{each} took {body!r}"


async def test_a_body_that_is_too_long(api: Api, operations: list[Operation]) -> None:
    admin, ids = await set_up(api)
    for each in operations:
        if each.takes_json:
            reply = await ask(admin.api, each, each.at(ids), b'{"a":"' + b"x" * (1 << 20) + b'"}')
            check(each, reply, "a long body")
            assert reply.status == 413, f"{each}: {reply.status}"


async def test_wrong_values_in_bodies(api: Api, operations: list[Operation]) -> None:
    """One field at a time, the others as declared."""
    values = [orjson.dumps(each) for each in WRONG] + [LONE_SURROGATE, HUGE_INTEGER]
    for each in operations:
        admin, ids = await set_up(api)
        for name in each.body or ():
            others = orjson.dumps({k: v for k, v in each.request(ids).items() if k != name})
            for value in values:
                more = b"," + others[1:] if others != b"{}" else b"}"
                body = b"{" + orjson.dumps(name) + b":" + value + more
                check(each, await ask(admin.api, each, each.at(ids), body), body)


async def test_wrong_values_in_queries(api: Api, operations: list[Operation]) -> None:
    for each in operations:
        admin, ids = await set_up(api)
        for name in each.query():
            for value in ("", "-1", "\0", "x" * 3000, "\u00e4", "1e99", "[]", "9" * 300, "%ff"):
                path = f"{each.at(ids)}?{name}={quote(value, safe='%')}"
                check(each, await ask(admin.api, each, path), path)
            path = f"{each.at(ids)}?{name}=1&{name}=2"
            check(each, await ask(admin.api, each, path), path)


async def test_wrong_ids_in_paths(api: Api, operations: list[Operation]) -> None:
    for each in operations:
        if "{" not in each.path:
            continue
        admin, ids = await set_up(api)
        body = orjson.dumps(each.request(ids)) if each.takes_json else None
        for name in re.findall(r"{(\w+)}", each.path):
            for id in IDS:
                reply = await ask(admin.api, each, each.at({**ids, name: id}), body)
                check(each, reply, id)
                assert reply.status >= 400, f"{each} took {name} {id!r}"


async def test_many_at_once(api: Api, operations: list[Operation]) -> None:
    admin, ids = await set_up(api)
    reads = [each for each in operations if each.method == "GET"]
    replies = await asyncio.gather(*(ask(admin.api, each, each.at(ids)) for each in reads * 5))
    for each, reply in zip(reads * 5, replies, strict=True):
        check(each, reply, "nothing")
