"""JSON Schemas of requests, answers and events, gathered under one `components`."""

import re
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

Schema = dict[str, Any]

TIMES = frozenset({"at", "since", "until", "last_seen", "server_time"})
"""Fields that are times, besides all that end in `_at`."""


def gather(
    types: dict[str, Any], mode: JsonSchemaMode, prefix: str
) -> tuple[dict[str, Schema], Schema]:
    """The schemas of many types, with what they share named once.

    A shared schema's title is its name, so that no two have the same: generators of clients name
    their types by it, and leave out whatever comes second. Fields have none.

    Args:
        types: by a key of the caller's.
        prefix: of references, e.g. `#/components/schemas/`.

    Returns:
        The schema of each key, and the shared definitions.
    """
    inputs = [(key, mode, TypeAdapter(each)) for key, each in types.items()]
    schemas, shared = TypeAdapter.json_schemas(inputs, ref_template=prefix + "{model}")
    named = {
        _name(name): {**_told(schema, prefix), "title": _name(name)}
        for name, schema in shared.get("$defs", {}).items()
    }
    return {key: _told(schema, prefix) for (key, _), schema in schemas.items()}, named


def is_time(field: str) -> bool:
    """Whether a field of this name is an RFC 3339 time where it is a string."""
    return field in TIMES or field.endswith("_at")


def _name(model: str) -> str:
    """`Page_Message_`, which stands for `Page[Message]`, is called `MessagePage`."""
    return re.sub(r"^(\w+?)_(\w+)_$", r"\2\1", model)


def _told(schema: Schema, prefix: str) -> Schema:
    """The schema without the titles that repeat a field's name, with names and times as they are meant."""
    told: Schema = {}
    for key, value in schema.items():
        if key == "title":
            continue
        if key == "$ref":
            told[key] = prefix + _name(value.removeprefix(prefix))
        elif key in ("properties", "$defs"):
            told[key] = {name: _field(name, each, prefix) for name, each in value.items()}
        elif isinstance(value, dict) and key not in ("default", "const"):
            told[key] = _told(value, prefix)
        elif isinstance(value, list):
            told[key] = [_told(each, prefix) if isinstance(each, dict) else each for each in value]
        else:
            told[key] = value
    return told


def _field(name: str, schema: Schema, prefix: str) -> Schema:
    told = _told(schema, prefix)
    if is_time(name):
        for each in (told, *told.get("anyOf", ())):
            if each.get("type") == "string":
                each["format"] = "date-time"
    return told
