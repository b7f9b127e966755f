"""Publishing: to those connected here, and through the bus to the nodes where others are.

Only actions call this, and only with what the store has acknowledged.
"""

from collections.abc import Iterable
from typing import Any

from domain.delivery import Delivery
from domain.events import SYSTEM, Actor, EventType, StoredEvent, envelope
from fanout.hub import Hub, Subscriber
from fanout.sequencer import Sequencer


class Publisher:
    """The way out for every event."""

    def __init__(self, hub: Hub, sequencer: Sequencer) -> None:
        self._hub = hub
        self._sequencer = sequencer

    def stored(self, events: Iterable[StoredEvent]) -> None:
        """Publish durable events that an append returned."""
        for event in events:
            self._sequencer.publish(event)

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
        """Publish a latest or volatile event to a room.

        Args:
            stream: named in the envelope where the event belongs to one.
            key: for latest ones, what the value is of: a newer one replaces an older that waits.
        """
        payload = envelope(kind.name, at, actor, data, stream)
        self._hub.publish(room, kind.name, payload, kind.delivery, key)

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

    def replay(self, subscriber: Subscriber, events: Iterable[StoredEvent]) -> None:
        """Send one connection what it missed."""
        for event in events:
            namespace = "/" + event.stream.partition("/")[0]
            self._hub.publish_to(
                (subscriber,), namespace, event.type, event.payload, Delivery.DURABLE
            )
