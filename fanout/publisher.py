"""Publishing: to those connected here, and through the bus to the nodes where others are.

Only actions call this, and only with what the store has acknowledged.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from domain.delivery import Delivery
from domain.events import SYSTEM, Actor, EventType, StoredEvent, envelope
from domain.tracing import Tracing
from fanout.bus import Bus
from fanout.hub import Hub, Subscriber
from fanout.sequencer import Sequencer

_STORED = b'{"delivery":"durable"}\n'
"""A message of the bus is a line of JSON that says how its event travels, then the envelope."""


class Publisher:
    """The way out for every event."""

    def __init__(
        self,
        hub: Hub,
        sequencer: Sequencer,
        bus: Bus | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`bus`: how other nodes are told. Without one, or with one that is alone, there are none.
        `tracing`: how what is published is followed, to other nodes too.
        """
        self._tracing = tracing
        self._hub = hub
        self._sequencer = sequencer
        self._bus = None if bus is None or bus.alone else bus

    def stored(self, events: Iterable[StoredEvent]) -> None:
        """Publish durable events that an append returned."""
        bus, tracing = self._bus, self._tracing
        if tracing is not None and tracing.context() is not None:
            self._stored_traced(events, tracing)
            return
        for event in events:
            self._sequencer.publish(event)
            if bus is not None:
                bus.publish(event.stream, _STORED + event.payload)

    def _stored_traced(self, events: Iterable[StoredEvent], tracing: Tracing) -> None:
        for event in events:
            with tracing.span("publish", "producer", stream=event.stream, type=event.type):
                self._sequencer.publish(event)
                if self._bus is not None:
                    told = orjson.dumps({"delivery": "durable", "trace": tracing.context()})
                    self._bus.publish(event.stream, told + b"\n" + event.payload)

    def emit(
        self,
        kind: EventType,
        room: str,
        at: str,
        data: Any,
        *,
        actor: Actor = SYSTEM,
        stream: str | None = None,
        key: str | None = None,
    ) -> None:
        """Publish a latest or volatile event to a room: that of a stream on all nodes, others, in
        which every node tells what it finds out itself, on this one.

        Args:
            stream: named in the envelope where the event belongs to one.
            key: for latest ones, what the value is of: a newer one replaces an older that waits.
        """
        payload = envelope(kind.name, at, actor, data, stream)
        self._hub.publish(room, kind.name, payload, kind.delivery, key)
        if self._bus is not None and stream is not None:
            told = {"delivery": kind.delivery, "type": kind.name, "key": key}
            if self._tracing is not None and (trace := self._tracing.context()) is not None:
                told["trace"] = trace
            self._bus.publish(
                room,
                orjson.dumps(told) + b"\n" + payload,
                delivery=kind.delivery,
                key=f"{kind.name} {key or ''}",
            )

    def receive(self, room: str, message: bytes) -> None:
        """Hand on what another node published to a room.

        Raises:
            ValueError: it is no such message.
        """
        if message.startswith(_STORED):
            self._receive_stored(room, message[len(_STORED) :])
            return
        head, _, payload = message.partition(b"\n")
        told = orjson.loads(head)
        try:
            if self._tracing is None or "trace" not in told:
                self._receive(room, told, payload)
            else:
                with self._tracing.span("receive", "consumer", told["trace"], stream=room):
                    self._receive(room, told, payload)
        except (KeyError, TypeError) as error:
            raise ValueError("no event") from error

    def _receive(self, room: str, told: Mapping[str, Any], payload: bytes) -> None:
        delivery = Delivery(told["delivery"])
        if delivery is Delivery.DURABLE:
            self._receive_stored(room, payload)
        else:
            self._hub.publish(room, told["type"], payload, delivery, told["key"])

    def _receive_stored(self, room: str, payload: bytes) -> None:
        event = StoredEvent.from_payload(payload)
        if event.stream != room:
            raise ValueError("an event of another stream")
        self._sequencer.publish(event)

    def send(
        self,
        kind: EventType,
        subscribers: Iterable[Subscriber],
        at: str,
        data: Any,
        *,
        actor: Actor = SYSTEM,
        stream: str | None = None,
        key: str | None = None,
    ) -> None:
        """Send a latest or volatile event to some connections."""
        payload = envelope(kind.name, at, actor, data, stream)
        self._hub.publish_to(
            subscribers, "/" + kind.namespace, kind.name, payload, kind.delivery, key
        )

    def replay(self, subscriber: Subscriber, events: Iterable[StoredEvent], user: str) -> None:
        """Send one connection, which is this user's, what it missed."""
        for event in events:
            namespace = "/" + event.stream.partition("/")[0]
            self._hub.publish_to(
                (subscriber,), namespace, event.type, event.told_to(user), Delivery.DURABLE
            )
