"""What growth costs, as tables on the terminal, in Markdown and in JSON."""

import json
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.clusters import Clustered
from bench.meter import Spent
from bench.report import Environment, markdown_table, number, text_table
from bench.spread import OWN, SPREADS, Pace, Spread, spreads

LATE = 0.5
"""Seconds that the last delivery may come after the last event was published."""
SLOW = 1.1
"""How many times as long as it should publishing may take."""


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What one node spent on its connections to Redis, and on everything."""

    members: int
    """Connections to it."""
    spent: Spent


@dataclass(frozen=True, slots=True)
class Measurement:
    """One cluster of one size, with its clients spread in one way."""

    server: str
    spread: str
    seconds: float
    nodes: Sequence[NodeCost]
    redis: Spent
    load: dict[str, Any]
    """What the load generator says of it."""

    def slowness(self, pace: Pace) -> float:
        """How many times as long as it should publishing took."""
        return float(self.load["publishing_seconds"]) / pace.seconds_of(self.load["published"])

    def steady(self, pace: Pace) -> bool:
        """Whether the load was constant: neither generator nor nodes fell behind."""
        return self.load["seconds_behind"] <= LATE and self.slowness(pace) <= SLOW

    @property
    def received(self) -> float:
        """Bytes per second that all nodes together received from Redis."""
        return sum(node.spent.bytes_received for node in self.nodes) / self.seconds

    @property
    def sent(self) -> float:
        """Bytes per second that all nodes together sent to Redis."""
        return sum(node.spent.bytes_sent for node in self.nodes) / self.seconds

    @property
    def cpu(self) -> float:
        """Cores that all nodes together used."""
        return sum(node.spent.cpu_seconds for node in self.nodes) / self.seconds

    @property
    def redis_cpu(self) -> float:
        """Cores that Redis used."""
        return self.redis.cpu_seconds / self.seconds

    @property
    def spare(self) -> NodeCost | None:
        """The node that nobody is connected to, if there is one."""
        return next((node for node in self.nodes if not node.members), None)

    @property
    def spare_received(self) -> float:
        """Bytes per second that the node without members received from Redis."""
        return self.spare.spent.bytes_received / self.seconds if self.spare else float("nan")

    @property
    def spare_cpu(self) -> float:
        """Cores that the node without members used."""
        return self.spare.spent.cpu_seconds / self.seconds if self.spare else float("nan")


Value = Callable[[Measurement], float]


@dataclass(slots=True)
class GrowthReport:
    """The figures of one run."""

    environment: Environment
    pace: Pace
    counts: Sequence[int]
    """How many nodes, one size after the other."""
    kinds: Sequence[Clustered]
    measurements: list[Measurement] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, found: Measurement) -> None:
        """Take one measurement in."""
        self.measurements.append(found)

    def of(self, server: str, spread: Spread, nodes: int) -> list[Measurement]:
        """All rounds of a server in one size; one node alone has but one spread."""
        name = spread.name if spread in spreads(nodes) else OWN.name
        return [
            each
            for each in self.measurements
            if (each.server, each.spread, len(each.nodes)) == (server, name, nodes)
        ]

    def line(self, found: Measurement) -> str:
        """What is shown while the run goes on."""
        title = next(kind.title for kind in self.kinds if kind.name == found.server)
        return (
            f"{len(found.nodes)} nodes, {found.spread:5} {title:36}"
            f" from Redis {kilobytes(found.received):>6} kB/s"
            f"  CPU {percent(found.cpu):>5} %  Redis {percent(found.redis_cpu):>5} %"
            f"  delivered {delivered([found])}"
        )

    def table(self, spread: Spread) -> list[list[str]]:
        """What each server costs in each size, the first row being the head."""
        rows = [
            ["", "nodes", "from Redis, each node, kB/s", "all nodes", "to Redis, all nodes",
                "CPU, each node, %", "CPU, all nodes", "CPU, Redis", "delivered"]
        ]  # fmt: skip
        if spread.spare:
            rows[0] += ["node without members: from Redis, B/s", "its CPU"]
        for kind in self.kinds:
            for count in self.counts:
                found = self.of(kind.name, spread, count)
                if found:
                    used = spread.used(count)
                    rows.append([kind.title, str(count), *self._cells(found, used, spread)])
        return rows

    def _cells(self, found: list[Measurement], used: int, spread: Spread) -> list[str]:
        received, cpu = middle(found, lambda m: m.received), middle(found, lambda m: m.cpu)
        spare_received = middle(found, lambda m: m.spare_received)
        spare_cpu = middle(found, lambda m: m.spare_cpu)
        spared = found[0].spare is not None
        if spared:
            received_each, cpu_each = (received - spare_received) / used, (cpu - spare_cpu) / used
        else:
            received_each, cpu_each = received / used, cpu / used
        cells = [
            kilobytes(received_each),
            kilobytes(received),
            kilobytes(middle(found, lambda m: m.sent)),
            percent(cpu_each),
            percent(cpu),
            percent(middle(found, lambda m: m.redis_cpu)),
            delivered(found),
        ]
        if spread.spare:
            cells += [number(spare_received), percent(spare_cpu)] if spared else ["", ""]
        return cells

    def growth(self) -> list[list[str]]:
        """The largest size divided by the smallest of several nodes; the first row is the head."""
        several = [count for count in self.counts if count > 1]
        if len(several) < 2:
            return []
        first, last = several[0], several[-1]
        rows = [[f"{last} nodes divided by {first}", *(kind.title for kind in self.kinds)]]
        values: list[tuple[str, Value]] = [
            ("bytes from Redis", lambda m: m.received),
            ("CPU of all nodes", lambda m: m.cpu),
            ("CPU of Redis", lambda m: m.redis_cpu),
        ]
        for spread in SPREADS:
            for title, value in values:
                cells = [f"{spread.title}: {title}"]
                for kind in self.kinds:
                    few = self.of(kind.name, spread, first)
                    many = self.of(kind.name, spread, last)
                    ratio = middle(many, value) / middle(few, value) if few and many else None
                    cells.append("n/a" if ratio is None else f"{ratio:.2f}")
                rows.append(cells)
        return rows

    def notes(self) -> list[str]:
        """What a reader must know of single figures."""
        notes = [f"Failed: {failure}" for failure in self.failures]
        notes += self.environment.notes()
        titles = {kind.name: kind.title for kind in self.kinds}
        for found in self.measurements:
            if not found.steady(self.pace):
                notes.append(
                    f"{titles[found.server]}, {len(found.nodes)} nodes, spread {found.spread}: the load"
                    f" was not constant. Publishing took {found.slowness(self.pace):.1f} times as long"
                    f" as it should, deliveries ended {found.load['seconds_behind']:.1f} s after it."
                )
        return notes

    def titled(self) -> list[tuple[str, list[list[str]]]]:
        """All tables, with what stands above each."""
        tables = [(spread.title, self.table(spread)) for spread in SPREADS]
        tables.append(("How it grows", self.growth()))
        return [(title, table) for title, table in tables if len(table) > 1]

    def text(self) -> str:
        """The tables for a terminal."""
        parts = [f"{title}:\n{text_table(table)}" for title, table in self.titled()]
        return "\n\n".join([*parts, *(["\n".join(notes)] if (notes := self.notes()) else [])])

    def markdown(self) -> str:
        """The fragment that goes into the documentation."""
        where = self.environment
        parts = [f"{title}:\n\n{markdown_table(table)}" for title, table in self.titled()]
        rounds = "One round" if where.rounds == 1 else f"Median of {where.rounds} rounds"
        parts.append(
            f"{self.pace.rate:g} events per second in {self.pace.rooms} rooms of 10, whatever the "
            f"number of nodes. {rounds} of {where.seconds:g} seconds, {where.date}, on {where.cpu}, "
            f"Linux {where.kernel}. {'; '.join(where.versions.values())}."
        )
        if notes := self.notes():
            parts.append("\n".join(f"- {note}" for note in notes))
        return "\n\n".join(parts) + "\n"

    def write(self, directory: Path) -> Path:
        """Write `growth-<date>.json` with every figure and `.md`; gives the first one's path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"growth-{re.sub(r'[^0-9]', '', self.environment.date)}.json"
        whole = {
            "environment": asdict(self.environment),
            "pace": asdict(self.pace),
            "failures": self.failures,
            "measurements": [asdict(each) for each in self.measurements],
        }
        path.write_text(json.dumps(whole, indent=1))
        path.with_suffix(".md").write_text(self.markdown())
        return path


def middle(found: Sequence[Measurement], value: Value) -> float:
    """The median of a figure over all rounds."""
    return statistics.median(value(each) for each in found)


def delivered(found: Sequence[Measurement]) -> str:
    """How much of what was published arrived."""
    arrived = sum(each.load["deliveries"] for each in found)
    expected = sum(each.load["expected"] for each in found)
    return "all" if arrived == expected else f"{arrived:,} of {expected:,}"


def kilobytes(bytes_per_second: float) -> str:
    """In thousands."""
    return number(bytes_per_second / 1000)


def percent(cores: float) -> str:
    """Of one core."""
    return f"{100 * cores:.1f}"
