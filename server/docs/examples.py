"""Examples of requests and answers, made of their schemas and of what fields are called."""

from collections.abc import Mapping
from typing import Any

from server.docs.schemas import Schema, is_time

ID = "019a3b5e-7c00-7d3a-9e41-3f5b8c2d1e60"

BY_NAME: Mapping[str, Any] = {
    "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmF0dXJl",
    "body": "Hi Ben, is the release out?",
    "client_id": "6a1f0c9e",
    "code": "not_found",
    "content_type": "image/png",
    "cursor": "eyJzZXEiOjQyfQ",
    "current_password": "Ada likes 2 chat",
    "email": "ada@example.com",
    "emoji": "\U0001f44d",
    "epoch": "684589f6ad01",
    "expires_in": 900,
    "filename": "plan.png",
    "key": "parley_019a3b5e_c2VjcmV0",
    "kind": "group",
    "limit": 50,
    "name": "Ada",
    "next": None,
    "password": "Ada likes 2 chat",
    "q": "release",
    "remote": "203.0.113.7",
    "seq": 42,
    "size": 48213,
    "stream": f"messages/{ID}",
    "streams": {f"messages/{ID}": {"epoch": "684589f6ad01", "seq": 15}},
    "title": "Release",
    "token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmF0dXJl",
    "topic": "What goes out on Friday",
    "type": "message.created",
    "user_agent": "Mozilla/5.0",
    "version": 1,
}
"""What stands for a field of this name, where its schema allows it."""

SHOWN = frozenset({"body", "title", "name", "description", "q"})
"""Fields that a request's example has although they may be left out."""

TIME = "2026-01-31T12:00:00.000Z"


def answer(schema: Schema, shared: Mapping[str, Schema], name: str = "") -> Any:
    """A value that the schema allows, with every field.

    Args:
        schema: of what is shown; references lead into `shared` by their last part.
        name: of the field it is for.
    """
    if "$ref" in schema:
        return answer(shared[schema["$ref"].rpartition("/")[2]], shared, name)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        told = BY_NAME.get(name)
        return told if told in schema["enum"] else schema["enum"][0]
    if "anyOf" in schema:
        return _of_several(schema["anyOf"], shared, name)
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, shared, name)
    if kind == "array":
        return [answer(schema.get("items", {}), shared, name.removesuffix("s"))]
    return _plain(schema, kind, name)


def request(schema: Schema, shared: Mapping[str, Schema]) -> dict[str, Any]:
    """A body that the schema allows: what it needs, and what makes it clear; of a change, one field."""
    properties: dict[str, Schema] = schema["properties"]
    chosen = [name for name in properties if name in SHOWN or name in schema.get("required", ())]
    chosen = chosen or list(properties)[:1]
    return {name: answer(properties[name], shared, name) for name in chosen}


def _of_several(several: list[Schema], shared: Mapping[str, Schema], name: str) -> Any:
    nullable = any(each.get("type") == "null" for each in several)
    if nullable and (BY_NAME.get(name, "") is None or name.startswith(("deleted", "revoked"))):
        return None
    return answer(next(each for each in several if each.get("type") != "null"), shared, name)


def _object(schema: Schema, shared: Mapping[str, Schema], name: str) -> Any:
    if "properties" in schema:
        return {key: answer(each, shared, key) for key, each in schema["properties"].items()}
    values = schema.get("additionalProperties")
    if not isinstance(values, dict) or not values:
        return {}
    key = "\U0001f44d" if name in ("reactions", "counts") else f"messages/{ID}"
    return {key: answer(values, shared)}


def _plain(schema: Schema, kind: str | None, name: str) -> Any:
    told = BY_NAME.get(name)
    match kind:
        case "string":
            return TIME if is_time(name) else told if isinstance(told, str) else ID
        case "integer":
            number: int = told if isinstance(told, int) else schema.get("default") or 1
            return max(number, int(schema.get("minimum", number)))
        case "number":
            return 1.5
        case "boolean":
            return bool(schema.get("default", True))
    return {} if kind is None else None
