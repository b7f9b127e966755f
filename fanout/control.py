"""What one node tells all others: that a user's rights changed, a session ended, somebody is blocked.

The bus may lose an order, so a node's orders are numbered and it says now and then how many there
were. Who finds that one is missing, or could not hear for a while, looks after what orders would
have changed (`on_missed`).
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import structlog

from domain.delivery import Delivery
from domain.ids import new_id
from fanout.bus import Bus

log = structlog.get_logger(__name__)

CHANNEL = "control"
BEAT_EVERY = 1.0
"""Seconds between two words about how many orders there were, after one was given."""

RESTLESS = 5
"""As often it is said so soon."""

BEAT_IN_REST = 10.0
"""Seconds between two such words while there are no new orders."""

FORGET_AFTER = 600.0
"""Seconds without a word after which another node is forgotten."""

Act = Callable[[dict[str, Any]], None]


class Control:
    """Runs an order here at once and on every other node soon."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._acts: dict[str, Act] = {}
        self._node = new_id()
        self._sent = 0
        self._beats = 0
        """How often it was said since the last order."""
        self._ordered = asyncio.Event()
        self._heard: dict[str, tuple[int, float]] = {}
        """By node: the number of its last order, and when it was last heard of."""
        self.missed = 0
        """How often orders were, or may have been, missed."""
        self.on_missed: list[Callable[[], None]] = []
        """Called when orders of other nodes may not have come."""

    def on(self, topic: str, act: Act) -> None:
        """Declare what an order of this topic does on a node."""
        if topic in self._acts:
            raise ValueError(f"{topic} is declared twice")
        self._acts[topic] = act

    def send(self, topic: str, **order: Any) -> None:
        """Have every node carry out an order."""
        self._acts[topic](order)
        if not self._bus.alone:
            self._sent += 1
            self._beats = 0
            self._ordered.set()
            self._bus.publish(
                CHANNEL,
                orjson.dumps(
                    {"node": self._node, "number": self._sent, "topic": topic, "order": order}
                ),
            )

    # -- hearing ------------------------------------------------------------------------------

    def receive(self, message: bytes) -> None:
        """Carry out another node's order.

        Raises:
            ValueError: it is none.
        """
        told = orjson.loads(message)
        try:
            if "node" in told:
                self._count(told["node"], told["number"], "topic" in told)
            if "topic" not in told:
                return
            act = self._acts.get(told["topic"])
            if act is None:
                # Of a newer version, in the middle of an upgrade.
                log.warning("control_unknown", topic=told["topic"])
                return
            act(told["order"])
        except (KeyError, TypeError) as error:
            raise ValueError("no order") from error

    def _count(self, node: str, number: int, is_order: bool) -> None:
        known = self._heard.get(node)
        last = max(number, known[0]) if known is not None else number
        self._heard[node] = (last, asyncio.get_running_loop().time())
        if known is not None and number > known[0] + is_order:
            log.info("control_missed", orders=number - known[0] - is_order)
            self.may_have_missed()

    def may_have_missed(self) -> None:
        """Orders of other nodes may not have come."""
        self.missed += 1
        for callback in self.on_missed:
            callback()

    async def run(self) -> None:
        """Say now and then how many orders there were, for as long as the node runs."""
        loop = asyncio.get_running_loop()
        while True:
            beat = orjson.dumps({"node": self._node, "number": self._sent})
            self._bus.publish(CHANNEL, beat, delivery=Delivery.VOLATILE)
            oldest = loop.time() - FORGET_AFTER
            self._heard = {node: each for node, each in self._heard.items() if each[1] > oldest}
            await self._until_next_beat()

    async def _until_next_beat(self) -> None:
        if self._beats < RESTLESS:
            self._beats += 1
            await asyncio.sleep(BEAT_EVERY)
            return
        self._ordered.clear()
        try:
            async with asyncio.timeout(BEAT_IN_REST):
                await self._ordered.wait()
            await asyncio.sleep(BEAT_EVERY)
        except TimeoutError:
            pass
