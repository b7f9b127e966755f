"""`/openapi.json`: OpenAPI 3.1, made of the declared commands."""

from collections.abc import Mapping, Sequence
from typing import Any

from domain.errors import ParleyError
from handlers.command import Command, Registry, Route
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


def openapi(registry: Registry, version: str, extra: Mapping[str, Mapping[str, Any]]) -> Schema:
    """The document.

    Args:
        extra: paths of routes that are no commands (file transfer), as OpenAPI path items.
    """
    commands = [each for each in registry.commands if each.routes]
    requests, shared = gather(
        {each.name: each.request for each in commands}, "validation", _REFERENCE
    )
    answers, more = gather(
        {each.name: each.response for each in commands}, "serialization", _REFERENCE
    )
    paths: dict[str, dict[str, Any]] = {}
    for each in commands:
        for route in each.routes:
            item = paths.setdefault(PREFIX + route.path, {})
            item[route.method.lower()] = _operation(
                each, route, _inline(requests[each.name], shared), answers[each.name]
            )
    for path, methods in extra.items():
        paths.setdefault(PREFIX + path, {}).update(methods)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parley",
            "version": version,
            "description": "REST side of Parley. The socket side is in /asyncapi.json.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token from /auth/login, or an API key.",
                }
            },
            "schemas": {**shared, **more, "Problem": PROBLEM},
            "responses": {
                "Problem": {
                    "description": "What went wrong.",
                    "content": {CONTENT_TYPE: {"schema": {"$ref": _REFERENCE + "Problem"}}},
                }
            },
        },
    }


def _inline(schema: Schema, shared: Mapping[str, Schema]) -> Schema:
    reference = schema.get("$ref")
    return shared[reference.removeprefix(_REFERENCE)] if reference else schema


def _operation(command: Command, route: Route, request: Schema, answer: Schema) -> Schema:
    properties: dict[str, Schema] = request.get("properties", {})
    required: Sequence[str] = request.get("required", ())
    in_path = set(route.parameters)
    operation: Schema = {
        "operationId": f"{command.name}.{route.method.lower()}"
        if len(command.routes) > 1
        else command.name,
        "tags": [command.name.partition(".")[0]],
        "summary": command.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": properties.get(name, {})}
            for name in route.parameters
        ],
        "responses": {
            str(route.status): {"description": "Done."}
            if route.status == NO_CONTENT
            else {
                "description": "Done.",
                "content": {"application/json": {"schema": answer}},
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
        body: Schema = {"type": "object", "properties": rest, "additionalProperties": False}
        needed = [name for name in required if name in rest]
        if needed:
            body["required"] = needed
        operation["requestBody"] = {
            "required": bool(needed),
            "content": {"application/json": {"schema": body}},
        }
    return operation
