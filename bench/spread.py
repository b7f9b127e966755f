"""What growth is measured at: how many nodes, and where the members of a room are."""

from dataclasses import dataclass

from bench.scenarios import Size

NODES = (1, 2, 4, 8)
"""Nodes of a cluster, one size after the other: what is there already runs on."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much load there is, how long and how often it is measured: the same for every size."""

    rounds: int
    seconds: float
    warm: float
    rooms: int
    rate: float
    """Events published per second, in all rooms together."""
    limit: float
    """Seconds that a whole run may take at most."""

    def seconds_of(self, events: int) -> float:
        """How long publishing so many events takes."""
        return events / self.rate


PACES: dict[Size, Pace] = {
    # Parley's nodes look at the store and renew what they say of themselves every five seconds.
    "small": Pace(rounds=1, seconds=5.0, warm=1.0, rooms=40, rate=200.0, limit=1200.0),
    "full": Pace(rounds=3, seconds=15.0, warm=2.0, rooms=80, rate=200.0, limit=3600.0),
}


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the members of rooms are."""

    name: str
    title: str
    homes: int
    """Nodes that each room has members on, where there are so many."""
    spare: bool
    """Whether the last of several nodes is left without any member."""

    def node_of(self, room: int, member: int, nodes: int) -> int:
        """The node that a room's member is connected to, counted from 0."""
        return (room + member % self.homes) % self.used(nodes)

    def used(self, nodes: int) -> int:
        """How many of the nodes have members."""
        return nodes - 1 if self.spare and nodes > 1 else nodes


PAIR = Spread("pair", "The members of each room on two nodes", homes=2, spare=False)
OWN = Spread(
    "own", "The members of each room on one node, the last node without any", homes=1, spare=True
)

SPREADS = (PAIR, OWN)
"""In this order nodes that are without members in the second have had some in the first."""


def spreads(nodes: int) -> tuple[Spread, ...]:
    """The spreads that differ in a cluster of this size."""
    return SPREADS if nodes > 1 else (OWN,)
