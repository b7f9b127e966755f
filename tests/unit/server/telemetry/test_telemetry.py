"""What is said when a setting asks for what is not installed, or cannot be used; and messages of
nodes that trace, at one that does not.
"""

import sys
from typing import Any, cast

import orjson
import pytest

from config.settings import Settings
from domain.events import StoredEvent
from fanout.hub import Hub
from fanout.publisher import Publisher
from server.telemetry.telemetry import INSTALL, NoTelemetry, telemetry


async def refusal(**settings: Any) -> str:
    with pytest.raises(NoTelemetry) as refused:
        async with telemetry(Settings(**settings), "node"):
            pass
    return str(refused.value)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("server.telemetry.reports", "sentry_dsn", "http://key@127.0.0.1:9/7"),
        ("server.telemetry.tracing", "otlp_endpoint", "http://127.0.0.1:9"),
    ],
)
async def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, value: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert await refusal(**{name: value}) == f"PARLEY_{name.upper()} needs {INSTALL}"


async def test_an_address_that_is_none_of_sentrys_is_named() -> None:
    assert (await refusal(sentry_dsn="http://127.0.0.1:9")).startswith("PARLEY_SENTRY_DSN: ")


async def test_without_settings_nothing_is_traced() -> None:
    async with telemetry(Settings(), "node") as tracing:
        assert tracing is None


class Taken:
    """A sequencer that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []

    def publish(self, event: StoredEvent) -> None:
        self.events.append(event)


def test_a_node_that_does_not_trace_understands_those_that_do() -> None:
    taken = Taken()
    publisher = Publisher(cast("Hub", None), cast("Any", taken))
    payload = orjson.dumps(
        {
            "stream": "messages/c",
            "epoch": "e",
            "seq": 3,
            "type": "message.created",
            "at": "2026-01-01T00:00:00.000Z",
            "actor": {"id": "u", "kind": "user"},
            "data": {},
        }
    )
    head = orjson.dumps({"delivery": "durable", "trace": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"})
    publisher.receive("messages/c", head + b"\n" + payload)
    assert [event.seq for event in taken.events] == [3]
    with pytest.raises(ValueError, match="another stream"):
        publisher.receive("messages/d", head + b"\n" + payload)
