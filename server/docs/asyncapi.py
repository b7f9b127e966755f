"""`/asyncapi.json`: AsyncAPI 3.0, made of the declared commands and events.

One channel per namespace. A client sends commands and gets their acks as replies; the server
sends events.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from domain.delivery import Delivery
from domain.errors import ParleyError
from domain.events import ActorView, EventType
from handlers.command import Registry
from server.docs.schemas import Schema, gather

_REFERENCE = "#/components/schemas/"

CONNECTION = "connection"
"""In place of a delivery class, of events about the connection itself: never dropped, and not sent
again, because another connection has its own.
"""

_ERROR: Schema = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "string", "enum": sorted(e.code for e in ParleyError.__subclasses__())},
        "message": {"type": "string"},
        "retry_after": {"type": "number", "description": "Seconds."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
        "data": {"type": "object"},
    },
}


def asyncapi(
    registry: Registry,
    events: Sequence[EventType],
    plain: Mapping[str, tuple[Any, str]],
    version: str,
    base_path: str = "",
) -> Schema:
    """The document.

    Args:
        events: all that travel in an envelope.
        plain: events that every namespace has and that have no envelope: name -> (type, summary).
        base_path: what `/socket.io/` is below, for those who come from outside.
    """
    requests, shared = gather(
        {each.name: each.request for each in registry.commands if each.socket},
        "validation",
        _REFERENCE,
    )
    carried: dict[str, Any] = {f"{each.namespace}/{each.name}": each.data for each in events}
    carried |= {f"plain/{name}": kind for name, (kind, _) in plain.items()}
    carried |= {f"ack/{each.name}": each.response for each in registry.commands if each.socket}
    carried["actor"] = ActorView
    answers, more = gather(carried, "serialization", _REFERENCE)
    document = _Document(requests, answers, plain)
    for namespace in registry.namespaces:
        document.add_namespace(namespace, registry, events)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Parley",
            "version": version,
            "description": f"Socket side of Parley: Socket.IO (protocol 5) at {base_path}/socket.io/. "
            "Connect to a namespace with auth {token, resume?}.",
        },
        "servers": {
            "parley": {
                "host": "{host}",
                "pathname": f"{base_path}/socket.io/",
                "protocol": "ws",
                "description": "Socket.IO, over websocket or polling; wss where TLS ends before it.",
                "variables": {
                    "host": {
                        "default": "127.0.0.1:8000",
                        "description": "Name and port by which clients reach the server.",
                    }
                },
            }
        },
        "defaultContentType": "application/json",
        "channels": document.channels,
        "operations": document.operations,
        "components": {"schemas": {**shared, **more, "Error": _ERROR}},
    }


class _Document:
    def __init__(
        self,
        requests: Mapping[str, Schema],
        answers: Mapping[str, Schema],
        plain: Mapping[str, tuple[Any, str]],
    ) -> None:
        self._requests = requests
        self._answers = answers
        self._plain = plain
        self.channels: Schema = {}
        self.operations: Schema = {}

    def add_namespace(
        self, namespace: str, registry: Registry, events: Sequence[EventType]
    ) -> None:
        """One channel with its messages and operations."""
        channel = namespace.removeprefix("/")
        messages: Schema = {}
        for each in registry.commands:
            if each.socket and each.namespace in (None, namespace):
                messages[each.name] = {
                    "name": each.name,
                    "summary": each.summary,
                    "description": each.description,
                    "payload": self._requests[each.name],
                }
                messages[f"{each.name}.ack"] = {
                    "name": f"{each.name}.ack",
                    "summary": f"The ack of {each.name}.",
                    "payload": self._ack(each.name),
                }
                self._operation(channel, each.name, "receive", each.summary, reply=True)
        for name, (_, summary) in self._plain.items():
            payload = self._answers[f"plain/{name}"]
            messages[name] = {
                "name": name,
                "summary": summary,
                "payload": payload,
                "x-delivery": CONNECTION,
            }
            self._operation(channel, name, "send", summary)
        for event in events:
            if event.namespace == channel:
                messages[event.name] = {
                    "name": event.name,
                    "summary": event.summary,
                    "payload": self._envelope(event),
                    "x-delivery": event.delivery.value,
                }
                self._operation(channel, event.name, "send", event.summary)
        self.channels[channel] = {"address": namespace, "messages": messages}

    def _operation(
        self, channel: str, name: str, action: str, summary: str, *, reply: bool = False
    ) -> None:
        at = f"#/channels/{channel}"
        operation: Schema = {
            "action": action,
            "channel": {"$ref": at},
            "summary": summary,
            "messages": [{"$ref": f"{at}/messages/{name}"}],
        }
        if reply:
            operation["reply"] = {
                "channel": {"$ref": at},
                "messages": [{"$ref": f"{at}/messages/{name}.ack"}],
            }
        self.operations[f"{channel}.{name}"] = operation

    def _ack(self, name: str) -> Schema:
        good = {"ok": {"const": True}, "data": self._answers[f"ack/{name}"]}
        bad = {"ok": {"const": False}, "error": {"$ref": _REFERENCE + "Error"}}
        return {
            "oneOf": [
                {"type": "object", "required": list(each), "properties": each}
                for each in (good, bad)
            ]
        }

    def _envelope(self, event: EventType) -> Schema:
        properties: Schema = {
            "type": {"const": event.name},
            "at": {"type": "string", "format": "date-time"},
            "actor": self._answers["actor"],
            "data": self._answers[f"{event.namespace}/{event.name}"],
        }
        required = list(properties)
        properties["stream"] = {"type": "string"}
        if event.delivery is Delivery.DURABLE:
            properties["epoch"] = {"type": "string"}
            properties["seq"] = {"type": "integer", "minimum": 1}
            required += ["stream", "epoch", "seq"]
        return {
            "type": "object",
            "required": required,
            "properties": properties,
            "additionalProperties": False,
        }
