"""What is measured: each scenario's traffic, its unit, and what must be reached."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CONNECTIONS = 1000
ROOM = 10
PAYLOAD = 128

Size = Literal["small", "full"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how often is measured."""

    rounds: int
    seconds: float
    probe: float
    connects: int


SCALES: Mapping[Size, Scale] = {
    "small": Scale(rounds=3, seconds=3.0, probe=0.6, connects=2000),
    "full": Scale(rounds=5, seconds=10.0, probe=1.0, connects=4000),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load."""

    name: str
    title: str
    unit: str
    load: Literal["volatile", "acked", "connect", "idle", "history"]
    """What the load generator does."""
    connections: int
    rooms_each: int
    """Rooms a connection is in."""
    room_size: int
    windows: tuple[int, ...] = (1,)
    """Events in flight in each room; the one that suits a server best is found in warm-up."""
    namespaces: tuple[str, ...] = ("/messages",)
    less_is_better: bool = False

    def value(self, result: Mapping[str, Any]) -> float:
        """The scenario's figure, of one result of the load generator."""
        if self.load == "idle":
            return float(result["bytes_per_connection"]) / 1000
        if self.load == "connect":
            return float(result["connections"] / result["server_cpu_seconds"])
        if self.load == "history":
            return float(result["pages"] / result["server_cpu_seconds"])
        return float(result["deliveries"] / result["server_cpu_seconds"])


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="broadcast",
        title="Volatile event, one room of 1000",
        unit="deliveries/CPU-s",
        load="volatile",
        connections=CONNECTIONS,
        rooms_each=1,
        room_size=CONNECTIONS,
        windows=(4, 16, 64),
    ),
    Scenario(
        name="rooms10",
        title="Volatile event, 100 rooms of 10",
        unit="deliveries/CPU-s",
        load="volatile",
        connections=CONNECTIONS,
        rooms_each=1,
        room_size=ROOM,
        windows=(1, 4, 16),
    ),
    Scenario(
        name="persisted",
        title="Stored and acked message, 100 rooms of 10",
        unit="deliveries/CPU-s",
        load="acked",
        connections=CONNECTIONS,
        rooms_each=1,
        room_size=ROOM,
        windows=(1, 4, 16),
    ),
    Scenario(
        name="connect",
        title="Connect and authenticate",
        unit="connections/CPU-s",
        load="connect",
        connections=0,
        rooms_each=0,
        room_size=ROOM,
    ),
    Scenario(
        name="memory",
        title="Memory per idle connection, three namespaces, ten rooms",
        unit="kB",
        load="idle",
        connections=CONNECTIONS,
        rooms_each=10,
        room_size=ROOM,
        namespaces=("/messages", "/presence", "/reactions"),
        less_is_better=True,
    ),
    Scenario(
        name="history",
        title="History pages of 50 messages over REST",
        unit="pages/CPU-s",
        load="history",
        connections=16,
        rooms_each=1,
        room_size=ROOM,
    ),
)


@dataclass(frozen=True, slots=True)
class Target:
    """What Parley must reach in a scenario: a multiple of a peer's figure, or a figure."""

    scenario: str
    factor: float
    peer: str | None = None

    def goal(self, medians: Mapping[str, float]) -> float | None:
        """The figure to reach, or None if the peer was not measured."""
        if self.peer is None:
            return self.factor
        return None if self.peer not in medians else self.factor * medians[self.peer]


TARGETS: tuple[Target, ...] = (
    Target("broadcast", 5.0, "node"),
    Target("broadcast", 1.3, "centrifuge"),
    Target("broadcast", 15.0, "python"),
    Target("rooms10", 1.1, "node"),
    Target("rooms10", 4.5, "python"),
    Target("persisted", 45_000),
    Target("connect", 1_500),
    Target("memory", 1.0, "node"),
)
