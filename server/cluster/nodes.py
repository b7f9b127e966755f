"""Which other nodes use this node's store, and whether this node hears them.

Nodes that share a store and are not joined by Redis serve as if nothing were wrong, but their
clients do not hear each other. Nothing fails then, so somebody has to say so. And a node that dies
may take with it what it had to tell the others, so they have to know.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from domain.clock import Clock, parse_timestamp, timestamp
from domain.delivery import Delivery
from domain.errors import ParleyError, Unavailable
from domain.ids import new_id
from fanout.bus import Bus
from server.cluster.clocks import STORE, ClockCheck, distance
from store.cluster.nodes import NodeRepository
from store.engine import Document

log = structlog.get_logger(__name__)

CHANNEL = "nodes"
"""Over which nodes say that they are there."""

EVERY = 5.0
"""Seconds between two looks."""

TOLD_EVERY = 60.0
"""Seconds between two complaints."""

LIVES = 2
"""Looks for which a node counts as living after its row last moved: those of two nodes drift."""

UNHEARD = 4
"""Looks for which a node of a cluster lives and is not heard before it is told of. More than `LIVES`,
so that one that has just died is not taken for it."""

FORGOTTEN = 3600.0
"""Seconds after which the row of a node that died is removed."""


@dataclass(slots=True)
class _Other:
    """Another node, in numbers of looks of this one."""

    beat: int
    heard: int
    """The last look at which it was heard over the bus, or could not be."""
    moved: int | None = None
    """The last look that found another beat than the one before: since then it lives. Clocks of
    nodes do not matter here, and what a dead one left does not move."""
    seen: float = 0.0
    """Seconds by which its clock was ahead of this node's when its row last moved."""
    ahead: float = 0.0
    """The smaller one of the last two such: a row that was long under way to the store looks old."""


class Neighbours:
    """Says that this node is there, in the store and over the bus, and compares what it finds."""

    def __init__(self, nodes: NodeRepository, bus: Bus, clock: Clock, name: str) -> None:
        """`name` is what the other nodes' logs call this one."""
        self._nodes = nodes
        self._bus = bus
        self._clock = clock
        self._name = name
        self.node = new_id()
        self._beat = 0
        self._known: dict[str, _Other] = {}
        self._heard: set[str] = set()
        """Nodes heard over the bus since the last look."""
        self._told_at: float | None = None
        self._looked_at: float | None = None
        """When the last look began, by the clock that never jumps."""
        self.clocks = ClockCheck(clock)
        self._living: set[str] = set()
        """Other nodes that lived at the last look."""
        self.on_died: list[Callable[[], None]] = []
        """Called when another node is found dead: what it had to tell may not have come."""
        self.others = 0
        """Other nodes that live on this store."""
        self.apart = 0
        """Those of them that this node does not hear."""

    def receive(self, message: bytes) -> None:
        """Another node said over the bus that it is there."""
        self._heard.add(message.decode())

    async def look(self) -> None:
        """Say that this node is there, look for others, complain about those that are not heard.

        Raises:
            Unavailable: the store is out of reach.
        """
        self._beat += 1
        now = self._clock.now()
        self._bus.publish(CHANNEL, self.node.encode(), delivery=Delivery.VOLATILE)
        await self._nodes.say(self.node, self._name, self._beat, timestamp(now))
        if not await self._hears():
            self._heard.update(self._known)  # That is told by others.
        rows = {row["id"]: row for row in await self._nodes.all() if row["id"] != self.node}
        apart = self._compare(rows)
        await self._compare_clocks(rows)
        old = timestamp(now - FORGOTTEN)
        if dead := [id for id, row in rows.items() if row["at"] < old and not self._lives(id)]:
            await self._nodes.forget(dead)
        self._complain([rows[id]["name"] for id in apart])

    async def _hears(self) -> bool:
        try:
            await self._bus.check()
        except Unavailable:
            return False
        return True

    def _compare(self, rows: Mapping[str, Document]) -> list[str]:
        """Learn from the rows of the others; returns those that live and are not heard."""
        heard, self._heard = self._heard, set()
        known, self._known = self._known, {}
        for id, row in rows.items():
            other = self._known[id] = known.get(id) or _Other(row["beat"], self._beat)
            if other.beat != row["beat"]:
                other.beat, other.moved = row["beat"], self._beat
            if id in heard:
                other.heard = self._beat
        living = [id for id in rows if self._lives(id)]
        self.others = len(living)
        died = [id for id in self._living if id in rows and id not in living]
        self._living = set(living)
        if died:
            log.info("nodes_died", nodes=sorted(rows[id]["name"] for id in died))
            for callback in self.on_died:
                callback()
        patience = 1 if self._bus.alone else UNHEARD
        return [id for id in living if self._beat - self._known[id].heard >= patience]

    async def _compare_clocks(self, rows: Mapping[str, Document]) -> None:
        read = self._clock.now()
        monotonic = self._clock.monotonic()
        before, self._looked_at = self._looked_at, monotonic
        ahead: dict[str, float] = {}
        for id, row in rows.items():
            other = self._known[id]
            if before is not None and other.moved == self._beat:
                # Written since the last look, and before this one: so a clock that is behind is seen
                # to be so by as much less as lies between two looks, at most.
                seen = distance(parse_timestamp(row["at"]), read - (monotonic - before), read)
                other.ahead = min(seen, other.seen, key=abs)
                other.seen = seen
            if self._lives(id):
                ahead[row["name"]] = other.ahead
        asked = self._clock.now()
        store = await self._nodes.time()
        if store is not None:
            ahead[STORE] = distance(store, asked, self._clock.now())
        self.clocks.compare(ahead)

    def _lives(self, id: str) -> bool:
        moved = self._known[id].moved
        return moved is not None and self._beat - moved <= LIVES

    def _complain(self, apart: list[str]) -> None:
        before, self.apart = self.apart, len(apart)
        if not apart:
            if before:
                log.info("nodes_joined")
                self._told_at = None
            return
        now = self._clock.monotonic()
        if self._told_at is not None and now - self._told_at < TOLD_EVERY:
            return
        self._told_at = now
        log.error(
            "nodes_not_joined",
            nodes=sorted(apart),
            hint="these nodes use the same store and are not heard here, so clients of one do not "
            "hear those of another: all nodes need the same PARLEY_REDIS_URL and "
            "PARLEY_REDIS_PREFIX",
        )

    async def leave(self) -> None:
        """Say that this node ends; but not if it could not tell the others everything: then they are to
        take it for dead.
        """
        if not await self._hears():
            return
        try:
            await self._nodes.forget([self.node])
        except ParleyError as error:
            log.warning("node_not_forgotten", code=error.code)
