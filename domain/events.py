"""Event types and the envelope every event travels in."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson
from typing_extensions import TypedDict

from domain.delivery import Delivery

ActorKind = Literal["user", "agent", "system"]


class Actor(NamedTuple):
    """Who made something happen."""

    id: str
    kind: ActorKind = "user"


SYSTEM = Actor("system", "system")

_DATA = b',"data":'

CLIENT_ID = "client_id"
"""A field of an event's `data` that only its actor's own connections are shown."""

VEILED = "veiled"
"""A field of an event's `data` that nobody is shown: ids of users who are told of the event otherwise,
because they have deleted what it carries."""

_KEY = b',"client_id":"'
_OWN = re.compile(rb',"client_id":"(?:[^"\\]|\\.)*"')
"""Nothing within a text looks like it: there each quote has a backslash before it."""

_VEIL = b',"veiled":['
_ALL_VEILED = re.compile(rb',"veiled":(\[[^\]]*\])')


class ActorView(TypedDict):
    """An actor on the wire."""

    id: str
    kind: ActorKind


@dataclass(frozen=True, slots=True)
class EventType:
    """Declares one event: its name, where it is seen, how it travels and what it carries."""

    name: str
    """`noun.participle`, the Socket.IO event's name."""
    namespace: str
    """Without slash: the first part of the streams and rooms it is published to."""
    delivery: Delivery
    data: type
    """The TypedDict of the envelope's `data`."""
    summary: str


class StoredEvent:
    """A durable event as the log has it. `data` is JSON text, encoded once for good."""

    __slots__ = ("_payload", "_public", "actor", "at", "data", "epoch", "seq", "stream", "type")

    def __init__(
        self, stream: str, epoch: str, seq: int, type: str, at: str, actor: Actor, data: bytes
    ) -> None:
        self.stream = stream
        self.epoch = epoch
        self.seq = seq
        self.type = type
        self.at = at
        self.actor = actor
        self.data = data
        self._payload: bytes | None = None
        self._public: bytes | None = None

    @classmethod
    def from_payload(cls, payload: bytes) -> "StoredEvent":
        """The event whose `payload` another node made; its bytes are kept as they are.

        Raises:
            ValueError: it is no such payload.
        """
        try:
            told = orjson.loads(payload)
            actor = Actor(told["actor"]["id"], told["actor"]["kind"])
            # What stands before it has no text of users.
            data = payload[payload.index(_DATA) + len(_DATA) : -1]
            event = cls(
                told["stream"], told["epoch"], told["seq"], told["type"], told["at"], actor, data
            )
        except (KeyError, TypeError) as error:
            raise ValueError("no durable event") from error
        event._payload = payload
        return event

    @property
    def payload(self) -> bytes:
        """The whole envelope as JSON, as nodes tell it each other."""
        if self._payload is None:
            self._payload = (
                (
                    f'{{"stream":"{self.stream}","epoch":"{self.epoch}","seq":{self.seq},'
                    f'"type":"{self.type}","at":"{self.at}",'
                    f'"actor":{{"id":"{self.actor.id}","kind":"{self.actor.kind}"}},"data":'
                ).encode()
                + self.data
                + b"}"
            )
        return self._payload

    @property
    def public(self) -> bytes:
        """The envelope as others than its actor hear it: what goes on the wire under the type's
        name, without the actor's own `client_id`.
        """
        if self._public is None:
            payload = self.own
            # Most have none, and are not searched twice.
            self._public = payload if _KEY not in payload else _OWN.sub(b"", payload, count=1)
        return self._public

    @property
    def own(self) -> bytes:
        """The envelope as its actor hears it."""
        payload = self.payload
        return payload if _VEIL not in payload else _ALL_VEILED.sub(b"", payload, count=1)

    @property
    def veiled(self) -> Sequence[str]:
        """Users who are told of it otherwise."""
        found = _ALL_VEILED.search(self.data) if _VEIL in self.data else None
        return orjson.loads(found[1]) if found is not None else ()

    def told_to(self, user: str) -> bytes:
        """The envelope as a user hears it."""
        return self.own if user == self.actor.id else self.public

    def content(self) -> Any:
        """`data`, decoded, without what nobody is shown."""
        data = self.data
        return orjson.loads(data if _VEIL not in data else _ALL_VEILED.sub(b"", data, count=1))

    def __repr__(self) -> str:
        return f"<{self.type} {self.stream}#{self.seq}>"


def envelope(type: str, at: str, actor: Actor, data: Any, stream: str | None = None) -> bytes:
    """A latest or volatile event as JSON: the durable one's form without place in a log."""
    wire: dict[str, Any] = {
        "type": type,
        "at": at,
        "actor": {"id": actor.id, "kind": actor.kind},
        "data": data,
    }
    if stream is not None:
        wire["stream"] = stream
    return orjson.dumps(wire)
