"""What the server sends, held against what it declares: no other form, no undeclared field."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from domain.delivery import Delivery
from domain.events import ActorView, EventType
from server.features import EVENTS
from server.node import PLAIN_EVENTS

_EVENTS: dict[tuple[str, str], tuple[EventType, TypeAdapter[Any]]] = {
    (f"/{each.namespace}", each.name): (each, TypeAdapter(each.data)) for each in EVENTS
}
_PLAIN: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(kind) for name, (kind, _) in PLAIN_EVENTS.items()
}
_ACTOR: TypeAdapter[Any] = TypeAdapter(ActorView)
_ENVELOPE = {"type", "at", "actor", "data"}
_PLACE = {"stream", "epoch", "seq"}


def check_event(namespace: str, name: str, data: Any) -> None:
    """Hold one event against its declaration.

    Raises:
        AssertionError: it is not declared, or not of the declared form.
    """
    if name in _PLAIN:
        _same(f"{namespace} {name}", _PLAIN[name], data)
        return
    assert (namespace, name) in _EVENTS, f"{name} is not declared in {namespace}: {data}"
    declared, adapter = _EVENTS[namespace, name]
    fields = set(data)
    if declared.delivery is Delivery.DURABLE:
        assert fields == _ENVELOPE | _PLACE, f"{name} has the fields {fields}"
        assert data["stream"].startswith(f"{declared.namespace}/"), data["stream"]
    else:
        assert fields in (_ENVELOPE, _ENVELOPE | {"stream"}), f"{name} has the fields {fields}"
    assert data["type"] == name
    _same(f"{name}'s actor", _ACTOR, data["actor"])
    _same(f"{name}'s data", adapter, data["data"])


def _same(what: str, adapter: TypeAdapter[Any], data: Any) -> None:
    try:
        valid = adapter.validate_python(data, strict=True)
    except ValidationError as error:
        raise AssertionError(f"{what} is not as declared: {error}") from None
    assert valid == data, f"{what} has undeclared fields: {data} instead of {valid}"
