"""JSON Schemas of requests, answers and events, gathered under one `components`."""

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

Schema = dict[str, Any]


def gather(
    types: dict[str, Any], mode: JsonSchemaMode, prefix: str
) -> tuple[dict[str, Schema], Schema]:
    """The schemas of many types, with what they share named once.

    Args:
        types: by a key of the caller's.
        prefix: of references, e.g. `#/components/schemas/`.

    Returns:
        The schema of each key, and the shared definitions.
    """
    inputs = [(key, mode, TypeAdapter(each)) for key, each in types.items()]
    schemas, shared = TypeAdapter.json_schemas(inputs, ref_template=prefix + "{model}")
    return {key: schema for (key, _), schema in schemas.items()}, shared.get("$defs", {})
