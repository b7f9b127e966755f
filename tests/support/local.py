"""Clients without a network: what a hub sends to each is kept, decoded."""

from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any

import orjson
from pydantic import TypeAdapter

from actions.connections.clients import Client
from domain.events import EventType, StoredEvent
from domain.ids import new_id
from domain.principals import Principal, Role
from fanout.hub import Outgoing


async def no_log(org: str, stream: str, after: int) -> list[StoredEvent]:
    """A log in which nothing is missing: for a sequencer that has nothing to fetch."""
    return []


@cache
def _adapter(declared: Any) -> TypeAdapter[Any]:
    # Building one takes milliseconds, and a test makes many clients.
    return TypeAdapter(declared)


class TurnedClock:
    """A clock that stands still until it is turned."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def turn(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds


def encode(namespace: str, name: str, payload: bytes) -> bytes:
    """An event as `LocalOutlet` reads it."""
    return orjson.dumps([namespace, name, orjson.Fragment(payload)]) + b"\n"


class LocalOutlet:
    """A connection that keeps what it is sent. Every event is checked against its declaration."""

    def __init__(self, events: Iterable[EventType] = (), session: str | None = None) -> None:
        self.closed = False
        self.state: Any = None
        self.session_id = session or new_id()
        self.transport, self.remote, self.user_agent = "websocket", "127.0.0.1", "test"
        self.received: list[tuple[str, Any]] = []
        """Event names and envelopes, in order."""
        self.closing: str | None = None
        self.direct: Callable[[bytes], object] | None = self._take
        self._declared: dict[str, TypeAdapter[Any]] = {
            each.name: _adapter(each.data) for each in events
        }

    def _take(self, data: bytes) -> None:
        for line in data.splitlines():
            _, name, argument = orjson.loads(line)
            if name in self._declared:
                self._declared[name].validate_python(argument["data"], strict=True)
            self.received.append((name, argument))

    def deliver(self, events: Collection[Outgoing]) -> None:
        for event in events:
            self._take(event.data)

    def emit(self, event: str, *args: Any) -> None:
        self.received.append((event, args[0] if args else None))

    def close(self, code: str, *, reconnect: bool) -> None:
        self.closing = code
        self.closed = True

    def data(self, name: str) -> list[Any]:
        """The data of all events of a name, in order."""
        return [envelope["data"] for each, envelope in self.received if each == name]


def principal(user: str, *, org: str = "org", role: Role = Role.MEMBER) -> Principal:
    """A caller with a login session of its own."""
    return Principal(user, org, role, f"login-{new_id()}", 4e9)


def local_client(
    who: Principal | str,
    namespace: str = "messages",
    *,
    streams: Iterable[str] = (),
    events: Iterable[EventType] = (),
    session: str | None = None,
) -> tuple[Client, LocalOutlet]:
    """A connected client and what it hears through."""
    outlet = LocalOutlet(events, session)
    one = principal(who) if isinstance(who, str) else who
    client = Client(new_id(), namespace, one, outlet)
    outlet.state = client
    client.streams.update(streams)
    return client, outlet
