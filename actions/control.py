"""What one node tells all others to do to their clients: close, join, leave."""

from collections.abc import Callable
from typing import Any

import orjson
import structlog

from fanout.bus import Bus

log = structlog.get_logger(__name__)

CHANNEL = "control"

Act = Callable[[dict[str, Any]], None]


class Control:
    """Runs an order here at once and on every other node soon."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._acts: dict[str, Act] = {}

    def on(self, topic: str, act: Act) -> None:
        """Declare what an order of this topic does on a node."""
        if topic in self._acts:
            raise ValueError(f"{topic} is declared twice")
        self._acts[topic] = act

    def send(self, topic: str, **order: Any) -> None:
        """Have every node carry out an order."""
        self._acts[topic](order)
        self._bus.publish(CHANNEL, orjson.dumps({"topic": topic, "order": order}))

    def receive(self, message: bytes) -> None:
        """Carry out another node's order."""
        told = orjson.loads(message)
        act = self._acts.get(told["topic"])
        if act is None:
            log.warning("control_unknown", topic=told["topic"])
            return
        act(told["order"])
