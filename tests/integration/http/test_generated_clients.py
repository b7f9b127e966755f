"""`/openapi.json` is enough to make clients of: every operation has a name, types and examples that hold."""

import asyncio
import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from server.docs.schemas import is_time
from tests.support.node import NODE_DIR, node, run_to_end
from tests.support.rest import PASSWORD, Api
from tests.support.server import ServerProcess

TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { paths } from "./schema";

const client = createClient<paths>({ baseUrl: process.env.PARLEY_URL! });
const registered = await client.POST("/api/v1/auth/register", {
  body: { email: `ts.${Date.now()}@example.com`, password: "Ada likes 2 chat", name: "Ada" },
});
if (!registered.data) throw new Error(registered.error.detail);
const { access_token } = registered.data;
const headers = { Authorization: `Bearer ${access_token}` };
const made = await client.POST("/api/v1/conversations", { headers, body: { kind: "group", title: "Notes", client_id: "1" } });
if (!made.data) throw new Error(made.error.detail);
const conversation: string = made.data.id;
const path = { conversation };
await client.POST("/api/v1/conversations/{conversation}/messages", { headers, params: { path }, body: { body: "Hello!", client_id: "2" } });
const page = await client.GET("/api/v1/conversations/{conversation}/messages", { headers, params: { path, query: { limit: 10 } } });
for (const each of page.data?.items ?? []) console.log(`#${each.seq} ${each.body}`);
const missing = await client.GET("/api/v1/messages/{message}", { headers, params: { path: { message: "none" } } });
console.log(missing.error?.code);
"""

STRICT = {
    "compilerOptions": {
        "strict": True,
        "module": "nodenext",
        "moduleResolution": "nodenext",
        "target": "es2022",
        "lib": ["es2022", "dom"],
        "types": [],
        "skipLibCheck": True,
        "outDir": "out",
    },
    "files": ["client.mts", "process.d.ts"],
}


@pytest.fixture
async def document(api: Api) -> Any:
    return (await api.request("GET", "//openapi.json")).json


def operations(document: Any) -> Iterator[tuple[str, Any]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def fields(schema: Any) -> Iterator[tuple[str, Any]]:
    """All fields that a schema declares, at any depth."""
    if isinstance(schema, dict):
        for name, each in schema.get("properties", {}).items():
            yield name, each
        for each in schema.values():
            yield from fields(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from fields(each)


async def test_names_and_times_are_told(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert all(each.get("title", name) == name for name, each in schemas.items())
    names = Counter(each["operationId"] for _, each in operations(document))
    assert max(names.values()) == 1
    assert document["info"]["license"]["identifier"] == "Apache-2.0"
    described = {each["name"]: each["description"] for each in document["tags"]}
    assert {tag for _, each in operations(document) for tag in each["tags"]} == described.keys()
    assert all(text != name for name, text in described.items())
    times = [each for name, each in fields(schemas) if is_time(name)]
    assert len(times) > 20
    for each in times:
        kinds = [kind for kind in (each, *each.get("anyOf", ())) if kind.get("type") == "string"]
        assert all(kind["format"] == "date-time" for kind in kinds), each


async def test_every_operation_has_examples_that_its_schemas_allow(document: Any) -> None:
    registry: Registry = Registry().with_resource(
        "urn:document", Resource.from_contents(document, default_specification=DRAFT202012)
    )

    def check(schema: Any, example: Any, where: str) -> None:
        whole = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
        errors = list(Draft202012Validator(whole, registry=registry).iter_errors(example))
        assert not errors, f"{where}: {errors[0].message}"

    for where, operation in operations(document):
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [each.get("content", {}) for each in operation["responses"].values()]
        for content in contents:
            if told := content.get("application/json"):
                check(told["schema"], told["example"], where)
        for each in operation["parameters"]:
            if each["in"] == "path":
                check(each["schema"], each["example"], where)
    problem = document["components"]["responses"]["Problem"]["content"]["application/problem+json"]
    check(problem["schema"], problem["example"], "Problem")


async def test_a_generated_python_client(
    server: ServerProcess, document: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")
    command = (sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none")
    paths = ("--path", "openapi.json", "--output-path", "generated", "--config", "config.yaml")
    output = await run_to_end(*command, *paths, "--fail-on-warning", cwd=tmp_path)
    assert "WARNING" not in output
    monkeypatch.syspath_prepend(tmp_path)
    made = [path.stem for path in (tmp_path / "generated" / "api").rglob("*.py")]
    for _, operation in operations(document):
        assert re.sub(r"\W", "_", operation["operationId"]) in made
    try:
        await asyncio.to_thread(_use_the_python_client, server.url)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "generated"]:
            del sys.modules[name]


def _use_the_python_client(url: str) -> None:
    def api(name: str) -> Any:
        return importlib.import_module(f"generated.api.{name}")

    generated: Any = importlib.import_module("generated")
    models: Any = importlib.import_module("generated.models")
    with generated.Client(base_url=url) as nobody:
        body = models.AuthRegisterBody(
            email=f"gen.{id(nobody)}@example.com", password=PASSWORD, name="Gen"
        )
        tokens = api("auth.auth_register").sync(client=nobody, body=body)
    with generated.AuthenticatedClient(base_url=url, token=tokens.access_token) as client:
        group = api("conversation.conversation_create").sync(
            client=client,
            body=models.ConversationCreateBody.from_dict({"kind": "group", "client_id": "g"}),
        )
        sent = api("message.message_send").sync(
            group.id,
            client=client,
            body=models.MessageSendBody.from_dict({"body": "Hello!", "client_id": "1"}),
        )
        assert sent.created_at.tzinfo is not None
        page = api("message.message_history").sync(group.id, client=client, limit=10)
        assert [each.body for each in page.items] == ["Hello!"]
        assert [each.id for each in api("conversation.conversation_list").sync(client=client).items]
        missing = api("message.message_get").sync("none", client=client)
        assert missing.code.value == "not_found"


async def test_a_generated_typescript_client(
    server: ServerProcess, document: Any, tmp_path: Path
) -> None:
    (tmp_path / "node_modules").symlink_to(NODE_DIR / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "tsconfig.json").write_text(json.dumps(STRICT))
    (tmp_path / "client.mts").write_text(TYPESCRIPT.replace('"./schema"', '"./schema.js"'))
    (tmp_path / "process.d.ts").write_text(
        "declare const process: { env: Record<string, string | undefined> };"
    )
    modules = NODE_DIR / "node_modules"
    generator = modules / "openapi-typescript" / "bin" / "cli.js"
    await run_to_end(node(), generator, "openapi.json", "-o", "schema.d.ts", cwd=tmp_path)
    await run_to_end(node(), modules / "typescript" / "bin" / "tsc", "-p", ".", cwd=tmp_path)
    output = await run_to_end(
        node(), "out/client.mjs", cwd=tmp_path, environment={"PARLEY_URL": server.url}
    )
    assert re.search(r"#\d+ Hello!\nnot_found", output)
