"""Values that no well-meaning client sends, as JSON text, and requests to hide them in."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

HUGE = "1" + "0" * 400

VALUES: dict[str, str] = {
    "null": "null",
    "true": "true",
    "a number": "7",
    "a negative number": "-1",
    "a fraction": "1.5",
    "a text": '"x"',
    "nothing": '""',
    "a space": '" "',
    "a list": "[]",
    "a list of null": "[null]",
    "lists in a list": "[[[]]]",
    "an object": "{}",
    "a placeholder": '{"_placeholder":true,"num":0}',
    "__proto__": '{"__proto__":{"admin":true},"constructor":{"prototype":{}}}',
    "lists 1,000 deep": "[" * 1000 + "]" * 1000,
    "objects 1,000 deep": '{"a":' * 1000 + "1" + "}" * 1000,
    "lists 20,000 deep": "[" * 20_000 + "]" * 20_000,
    "60,000 characters": '"' + "x" * 60_000 + '"',
    "NUL": '"\\u0000"',
    "control characters": '"a\\u0001\\u001b[31m\\u007f\\u0085\\u2028\\ufeff"',
    "a lone surrogate": '"\\ud800"',
    "no character": '"\\uffff\\ufdd0"',
    "marks on marks": json.dumps("e" + "\u0301" * 5000),
    "10^400": HUGE,
    "-10^400": f"-{HUGE}",
    "10^400 as text": f'"{HUGE}"',
    "2^53 + 1": str(2**53 + 1),
    "2^63": str(2**63),
    "2^64": str(2**64),
    "1e308": "1e308",
    "1e400": "1e400",
    "20,000 elements": "[" + ",".join("0" * 20_000) + "]",
    "2,000 texts": json.dumps([f"{n:08}" for n in range(2000)]),
    "4,000 keys": json.dumps({f"k{n}": n for n in range(4000)}),
    "SQL": json.dumps("' OR 1=1; DROP TABLE users; --"),
    "a path": '"../../../../etc/passwd"',
    "a wildcard": '"%_*?[a-z]"',
    "a search operator": json.dumps('NEAR( " AND OR NOT * ^ : -'),
    "a template": json.dumps("{{7*7}}${7*7}<%= 7*7 %>%s%n{0.__class__}"),
    "a time that is none": '"9999-12-31T23:59:60+99:99"',
    "a time before time": '"0000-00-00T00:00:00Z"',
}


def resolved(schema: Schema, shared: Mapping[str, Schema]) -> Schema:
    """The schema behind a reference."""
    while "$ref" in schema:
        schema = shared[schema["$ref"].rpartition("/")[2]]
    return schema


def kinds(schema: Schema, shared: Mapping[str, Schema]) -> set[str]:
    """The JSON types a schema allows."""
    schema = resolved(schema, shared)
    if "anyOf" in schema or "oneOf" in schema:
        return set().union(
            *(kinds(each, shared) for each in schema.get("anyOf") or schema["oneOf"])
        )
    if "enum" in schema:
        return {_kind(each) for each in schema["enum"]}
    if "const" in schema:
        return {_kind(schema["const"])}
    found = schema.get("type")
    if found is None:
        return {"null", "boolean", "integer", "number", "string", "array", "object"}
    return {found} if isinstance(found, str) else set(found)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    for kind, type_ in (
        ("boolean", bool),
        ("integer", int),
        ("number", float),
        ("string", str),
        ("array", list),
    ):
        if isinstance(value, type_):
            return kind
    return "object"


def is_wrong(text: str, schema: Schema, shared: Mapping[str, Schema]) -> bool:
    """Whether a value is of a type that the schema excludes.

    Texts and numbers that spell a number or a truth value are left open: a query has nothing but
    texts, and a socket is as lenient.
    """
    allowed = kinds(schema, shared)
    kind = "array" if text[0] == "[" else "object" if text[0] == "{" else ""
    if not kind:
        if text[0] == '"':
            kind = "string"
        elif text == "null":
            kind = "null"
        else:
            return allowed <= {"array", "object", "string", "null"}
    if kind == "string":
        return allowed <= {"array", "object", "null"}
    return kind not in allowed


def beyond(schema: Schema, shared: Mapping[str, Schema]) -> Iterator[tuple[str, str]]:
    """Values just beyond the limits a schema declares: what it is, and its JSON."""
    schema = resolved(schema, shared)
    for each in schema.get("anyOf", ()):
        yield from beyond(each, shared)
    if "maxLength" in schema and schema["maxLength"] < 60_000:
        yield "one character too many", json.dumps("x" * (schema["maxLength"] + 1))
    if schema.get("minLength"):
        yield "one character too few", json.dumps("x" * (schema["minLength"] - 1))
    if "maximum" in schema:
        yield "one too much", str(int(schema["maximum"]) + 1)
    if "minimum" in schema:
        yield "one too little", str(int(schema["minimum"]) - 1)
    if "maxItems" in schema and schema["maxItems"] < 6000:
        items = [valid(schema["items"], shared, "") for _ in range(schema["maxItems"] + 1)]
        yield "one element too many", json.dumps(items)
    if "minItems" in schema:
        yield "one element too few", json.dumps([])


def valid(schema: Schema, shared: Mapping[str, Schema], name: str) -> Any:
    """Some value that a schema allows."""
    schema = resolved(schema, shared)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for each in schema.get("anyOf", ()):
        if each.get("type") != "null":
            return valid(each, shared, name)
    match schema.get("type"):
        case "string":
            return "x" * max(1, schema.get("minLength", 0))
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return False
        case "array":
            count = schema.get("minItems", 0)
            return [valid(schema["items"], shared, name) for _ in range(count)]
        case _:
            found = schema.get("properties", {})
            return {each: valid(found[each], shared, each) for each in schema.get("required", ())}


def request(fields: Mapping[str, str]) -> str:
    """A JSON object of fields whose values are JSON text."""
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"


def short(text: str) -> str:
    """The start of a value, to be shown."""
    return re.sub(r"\s+", " ", text[:60])
