"""`/openapi.json`: OpenAPI 3.1, made of the declared commands."""

from collections.abc import Mapping, Sequence
from typing import Any

from domain.errors import ParleyError
from handlers.command import Command, Registry, Route
from server.docs import examples
from server.docs.schemas import Schema, gather
from server.http.problems import CONTENT_TYPE
from server.http.rest import PREFIX

NO_CONTENT = 204

_REFERENCE = "#/components/schemas/"
_HTTP_METHODS = {"GET": "query", "DELETE": "query"}

PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457 problem document.",
    "required": ["type", "title", "status", "code", "detail", "errors", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "enum": sorted(e.code for e in ParleyError.__subclasses__())},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
        "request_id": {"type": "string"},
        "retry_after": {"type": "number", "description": "Seconds."},
        "data": {"type": "object"},
    },
}

PROBLEM_EXAMPLE = {
    "type": "about:blank",
    "title": "Not Found",
    "status": 404,
    "code": "not_found",
    "detail": "no such conversation",
    "errors": [],
    "request_id": "019a3b5e7c007d3a",
}

TAGS: Mapping[str, str] = {
    "api_key": "Keys by which programs come in.",
    "auth": "Registering, logging in and out.",
    "connection": "Who is connected, for administrators.",
    "contact": "The address book, and who is blocked.",
    "conversation": "Direct conversations, groups and channels.",
    "invite": "Invitations to the organization.",
    "member": "Who is in a conversation.",
    "message": "Messages, their history, and how far each member has read.",
    "organization": "Organizations, and who belongs to them.",
    "pin": "Messages that a conversation shows first.",
    "presence": "Who is there.",
    "reaction": "Emoji on messages.",
    "session": "Where one is logged in, and new tokens for it.",
    "stream": "What was missed, for clients that hold no socket.",
    "upload": "Files: sent, fetched, removed.",
    "user": "One's own profile, and other people.",
    "unread": "How much there is still to read.",
}
"""What the operations of a tag are about."""


def openapi(
    registry: Registry, version: str, extra: Mapping[str, Mapping[str, Any]], base_path: str = ""
) -> Schema:
    """The document.

    Args:
        extra: paths of routes that are no commands (file transfer), as OpenAPI path items.
        base_path: what the paths are below, for those who come from outside.
    """
    commands = [(each, each.route) for each in registry.commands if each.route is not None]
    requests, shared = gather(
        {each.name: each.request for each, _ in commands}, "validation", _REFERENCE
    )
    answers, more = gather(
        {each.name: each.response for each, _ in commands}, "serialization", _REFERENCE
    )
    schemas: Schema = {**shared, **more, "Problem": PROBLEM}
    paths: dict[str, dict[str, Any]] = {}
    for each, route in commands:
        item = paths.setdefault(PREFIX + route.path, {})
        item[route.method.lower()] = _operation(
            each, route, _inline(requests[each.name], shared), answers[each.name], schemas
        )
    for path, methods in extra.items():
        for method, operation in methods.items():
            paths.setdefault(PREFIX + path, {})[method] = _with_examples(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parley",
            "version": version,
            "description": "REST side of Parley. The socket side is in asyncapi.json beside this.",
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_path or "/"}],
        "security": [{"bearer": []}],
        "tags": [
            {"name": name, "description": TAGS.get(name, name)} for name in sorted(_tags(paths))
        ],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token from /auth/login, or an API key.",
                }
            },
            "schemas": schemas,
            "responses": {
                "Problem": {
                    "description": "What went wrong.",
                    "content": {
                        CONTENT_TYPE: {
                            "schema": {"$ref": _REFERENCE + "Problem"},
                            "example": PROBLEM_EXAMPLE,
                        }
                    },
                }
            },
        },
    }


def _inline(schema: Schema, shared: Mapping[str, Schema]) -> Schema:
    reference = schema.get("$ref")
    return shared[reference.removeprefix(_REFERENCE)] if reference else schema


def _tags(paths: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {tag for item in paths.values() for each in item.values() for tag in each["tags"]}


def _with_examples(operation: Schema, schemas: Mapping[str, Schema]) -> Schema:
    """A route that is no command, with examples of the JSON it answers and of its parameters."""
    answers = {}
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if told := content.get("application/json"):
            told = {**told, "example": examples.answer(told["schema"], schemas)}
            content = {**content, "application/json": told}
        answers[status] = {**answer, "content": content} if content else answer
    parameters = [
        {**each, "example": examples.answer(each["schema"], schemas, each["name"])}
        if each["in"] == "path"
        else each
        for each in operation.get("parameters", ())
    ]
    return {**operation, "responses": answers, "parameters": parameters}


def _operation(
    command: Command, route: Route, request: Schema, answer: Schema, schemas: Mapping[str, Schema]
) -> Schema:
    properties: dict[str, Schema] = request.get("properties", {})
    required: Sequence[str] = request.get("required", ())
    in_path = set(route.parameters)
    operation: Schema = {
        "operationId": command.name,
        "tags": [command.name.partition(".")[0]],
        "summary": command.summary,
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": properties.get(name, {}),
                "example": examples.answer(properties.get(name, {"type": "string"}), schemas, name),
            }
            for name in route.parameters
        ],
        "responses": {
            str(route.status): {"description": "Done."}
            if route.status == NO_CONTENT
            else {
                "description": "Done.",
                "content": {
                    "application/json": {
                        "schema": answer,
                        "example": examples.answer(answer, schemas),
                    }
                },
            },
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if command.description:
        operation["description"] = command.description
    if command.role is None:
        operation["security"] = []
    rest = {name: schema for name, schema in properties.items() if name not in in_path}
    if route.method in _HTTP_METHODS:
        operation["parameters"] += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in rest.items()
        ]
    elif rest:
        body: Schema = {
            "type": "object",
            "properties": rest,
            "additionalProperties": False,
        }
        needed = [name for name in required if name in rest]
        if needed:
            body["required"] = needed
        operation["requestBody"] = {
            "required": bool(needed),
            "content": {
                "application/json": {"schema": body, "example": examples.request(body, schemas)}
            },
        }
    return operation
