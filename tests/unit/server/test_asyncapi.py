"""`/asyncapi.json` describes everything that goes over sockets, and holds together."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from domain.delivery import Delivery
from handlers.accounts.auth import AuthCommands
from handlers.command import Registry
from handlers.messaging.messages import MessageCommands
from handlers.messaging.reactions import ReactionCommands
from handlers.streams.streams import StreamCommands
from server.docs.asyncapi import CONNECTION, asyncapi
from server.features import EVENTS, NAMESPACES
from server.node import PLAIN_EVENTS

UNUSED = cast(Any, None)
"""In place of the actions: nothing is carried out."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    sets = (
        StreamCommands(UNUSED),
        AuthCommands(UNUSED, UNUSED),
        MessageCommands(UNUSED),
        ReactionCommands(UNUSED),
    )
    return Registry(sets, NAMESPACES)


@pytest.fixture(scope="module")
def document(registry: Registry) -> dict[str, Any]:
    return asyncapi(registry, EVENTS, PLAIN_EVENTS, "1.2.3")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            if name == "$ref":
                yield each
            else:
                yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    return found


def test_every_event_has_its_schema_and_delivery_class(document: dict[str, Any]) -> None:
    for event in EVENTS:
        message = document["channels"][event.namespace]["messages"][event.name]
        assert message["x-delivery"] == event.delivery.value
        payload = message["payload"]
        placed = {"stream", "epoch", "seq"} <= set(payload["required"])
        assert placed == (event.delivery is Delivery.DURABLE)
        assert payload["additionalProperties"] is False
        data = payload["properties"]["data"]
        declared = resolve(document, data["$ref"]) if "$ref" in data else data
        assert declared["additionalProperties"] is False, event.name
    for namespace in NAMESPACES:
        messages = document["channels"][namespace.removeprefix("/")]["messages"]
        assert {messages[name]["x-delivery"] for name in PLAIN_EVENTS} == {CONNECTION}


def test_every_command_and_its_ack_are_there(document: dict[str, Any], registry: Registry) -> None:
    for each in registry.commands:
        for namespace in NAMESPACES:
            channel = namespace.removeprefix("/")
            expected = each.socket and each.namespace in (None, namespace)
            messages = document["channels"][channel]["messages"]
            assert (each.name in messages) == (f"{each.name}.ack" in messages) == expected
            assert (f"{channel}.{each.name}" in document["operations"]) == expected


def test_schemas_are_valid_and_references_lead_somewhere(document: dict[str, Any]) -> None:
    assert document["asyncapi"] == "3.0.0"
    for reference in references(document):
        assert resolve(document, reference)
    for channel in document["channels"].values():
        for message in channel["messages"].values():
            Draft202012Validator.check_schema(message["payload"])
