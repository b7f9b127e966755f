"""Event types and the envelope every event travels in."""

import re
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

_KEY = b',"client_id":"'
_OWN = re.compile(rb',"client_id":"(?:[^"\\]|\\.)*"')
"""Nothing within a text looks like it: there each quote has a backslash before it."""


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
        """The whole envelope as JSON, as nodes tell it each other and its actor hears it."""
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
            payload = self.payload
            # Most have none, and are not searched twice.
            self._public = payload if _KEY not in payload else _OWN.sub(b"", payload, count=1)
        return self._public

    def told_to(self, user: str) -> bytes:
        """The envelope as a user hears it."""
        return self.payload if user == self.actor.id else self.public

    def content(self) -> Any:
        """`data`, decoded."""
        return orjson.loads(self.data)

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
