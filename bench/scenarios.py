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
    warm: float
    connects: int


SCALES: Mapping[Size, Scale] = {
    "small": Scale(rounds=3, seconds=3.0, warm=0.6, connects=2000),
    "full": Scale(rounds=5, seconds=10.0, warm=1.0, connects=4000),
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
    windows: tuple[int, ...] = ()
    """Events in flight in each room: one measurement, and one row of the table, for each."""
    warm_up: int = 0
    """Connections opened before the measured ones."""
    namespaces: tuple[str, ...] = ("/messages",)
    less_is_better: bool = False

    def rows(self) -> list["Row"]:
        """The rows of the table that this scenario fills."""
        if not self.windows:
            return [Row(self.name, self.title, self.unit, self.less_is_better)]
        return [self._row(window) for window in self.windows]

    def _row(self, window: int) -> "Row":
        title = f"{self.title}, {window} in flight"
        if self.room_size < self.connections:
            title += " in each"
        return Row(f"{self.name}-{window}", title, self.unit, self.less_is_better)

    def figures(self, output: Any) -> list[tuple["Row", float, dict[str, Any]]]:
        """What the load generator answered, by row: the figure and the whole result."""
        results = output if isinstance(output, list) else [output]
        return [
            (row, self._figure(result), result)
            for row, result in zip(self.rows(), results, strict=True)
        ]

    def _figure(self, result: Mapping[str, Any]) -> float:
        if self.load == "idle":
            return float(result["bytes_per_connection"]) / 1000
        counted = {"connect": "connections", "history": "pages"}.get(self.load, "deliveries")
        return float(result[counted]) / float(result["server_cpu_seconds"])


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    unit: str
    less_is_better: bool


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="broadcast",
        title="Volatile event, one room of 1000",
        unit="deliveries/CPU-s",
        load="volatile",
        connections=CONNECTIONS,
        rooms_each=1,
        room_size=CONNECTIONS,
        windows=(1, 4, 16),
    ),
    Scenario(
        name="rooms10",
        title="Volatile event, 100 rooms of 10",
        unit="deliveries/CPU-s",
        load="volatile",
        connections=CONNECTIONS,
        rooms_each=1,
        room_size=ROOM,
        windows=(1, 4),
    ),
    Scenario(
        name="persisted",
        title="Stored and acked message, 100 rooms of 10",
        unit="deliveries/CPU-s",
        load="acked",
        connections=CONNECTIONS,
        rooms_each=1,
        room_size=ROOM,
        windows=(1, 4),
    ),
    Scenario(
        name="connect",
        title="Connect and authenticate",
        unit="connections/CPU-s",
        load="connect",
        connections=0,
        rooms_each=0,
        room_size=ROOM,
        warm_up=300,
    ),
    Scenario(
        name="memory",
        title="Memory per idle connection, three namespaces, ten rooms",
        unit="kB",
        load="idle",
        connections=CONNECTIONS + 500,
        rooms_each=10,
        room_size=ROOM,
        warm_up=500,
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
    """What Parley must reach in a scenario: a multiple of a peer's figure, or a figure.

    A scenario of several windows must reach it in each.
    """

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
