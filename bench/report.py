"""What was measured, as a table on the terminal, in Markdown and in JSON."""

import json
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.peers import Peer
from bench.scenarios import TARGETS, Row, Scenario, Target

START = "<!-- bench:start -->"
END = "<!-- bench:end -->"
SHORT_START = "<!-- bench-short:start -->"
SHORT_END = "<!-- bench-short:end -->"


@dataclass(slots=True)
class Cell:
    """All rounds of one server in one scenario."""

    values: list[float] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and with what was measured."""

    date: str
    cpu: str
    kernel: str
    versions: Mapping[str, str]
    rounds: int
    seconds: float
    load_before: float
    """Load average of the minute before: above zero, others had a share of the cores."""

    def notes(self) -> list[str]:
        """What a reader must know of it."""
        if self.load_before <= 0.5:
            return []
        return [
            "The machine had other work to do (load average "
            f"{self.load_before:.1f} before the run), which adds noise."
        ]


def environment(versions: Mapping[str, str], rounds: int, seconds: float) -> Environment:
    """Where this run measures, and with what; `versions` by server."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return Environment(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        cpu=models[0] if models else platform.machine(),
        kernel=platform.release(),
        versions=versions,
        rounds=rounds,
        seconds=seconds,
        load_before=os.getloadavg()[0],
    )


@dataclass(slots=True)
class Report:
    """The figures of one run."""

    environment: Environment
    scenarios: Sequence[Scenario]
    peers: Sequence[Peer]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    """By row and peer."""
    failures: list[str] = field(default_factory=list)

    def add(self, row: Row, peer: Peer, value: float, result: dict[str, Any]) -> None:
        """Take one figure in."""
        cell = self.cells.setdefault((row.name, peer.name), Cell())
        cell.values.append(value)
        cell.results.append(result)

    def medians(self, row: Row) -> dict[str, float]:
        """The median of each peer that was measured."""
        return {
            peer.name: self.cells[row.name, peer.name].median
            for peer in self.peers
            if (row.name, peer.name) in self.cells
        }

    def rows(self) -> list[Row]:
        """All rows, in order."""
        return [row for scenario in self.scenarios for row in scenario.rows()]

    def table(self) -> list[list[str]]:
        """Rows of cells, the first row being the head."""
        rows = [["", "unit", *(peer.title for peer in self.peers)]]
        for row in self.rows():
            cells = (self.cells.get((row.name, peer.name)) for peer in self.peers)
            rows.append([row.title, row.unit, *(figure(cell) for cell in cells)])
        return rows

    def ratios(self) -> list[list[str]]:
        """Parley's medians divided by each peer's, the first row being the head."""
        others = [peer for peer in self.peers if peer.name != "parley"]
        rows = [["Parley divided by", *(peer.title for peer in others)]]
        for row in self.rows():
            medians = self.medians(row)
            ours = medians.pop("parley", None)
            if ours is not None and medians:
                shares = (
                    f"{ours / medians[peer.name]:.2f}" if medians.get(peer.name) else "n/a"
                    for peer in others
                )
                rows.append([row.title, *shares])
        return rows if len(rows) > 1 else []

    def verdicts(self) -> list[list[str]]:
        """Each target with what was reached, the first row being the head."""
        rows = [["Target", "to reach", "reached", ""]]
        for scenario in self.scenarios:
            for target in TARGETS:
                if target.scenario == scenario.name:
                    rows += [
                        found for row in scenario.rows() if (found := self._judge(target, row))
                    ]
        return rows if len(rows) > 1 else []

    def _judge(self, target: Target, row: Row) -> list[str] | None:
        medians = self.medians(row)
        goal = target.goal(medians)
        if goal is None or "parley" not in medians:
            return None
        reached = medians["parley"]
        met = reached <= goal if row.less_is_better else reached >= goal
        bound = "at most" if row.less_is_better else "at least"
        if target.peer is None:
            what = f"{bound} {number(target.factor)} {row.unit}"
        else:
            title = next(peer.title for peer in self.peers if peer.name == target.peer)
            what = f"{bound} {target.factor:g} times {title}"
        verdict = "met" if met else f"missed: {reached / goal:.0%} of it"
        return [f"{row.title}: {what}", number(goal), number(reached), verdict]

    def notes(self) -> list[str]:
        """What a reader must know of single figures."""
        notes = [f"Failed: {failure}" for failure in self.failures]
        notes += self.environment.notes()
        for (row, peer), cell in self.cells.items():
            loads = [
                r["generator_cpu_seconds"] / r["wall_seconds"]
                for r in cell.results
                if "wall_seconds" in r
            ]
            busy = [
                r["server_cpu_seconds"] / r["wall_seconds"]
                for r in cell.results
                if "wall_seconds" in r
            ]
            if busy and min(busy) < 0.9:
                notes.append(
                    f"{row}, {peer}: the server used {min(busy):.0%} to {max(busy):.0%} of its core"
                    f" (the generator {max(loads):.0%} of its own)."
                )
            missing = sum(r.get("missing", 0) for r in cell.results)
            if missing:
                expected = sum(r["expected"] for r in cell.results)
                notes.append(f"{row}, {peer}: {missing} of {expected} deliveries were dropped.")
        return notes

    def markdown(self) -> str:
        """The fragment that goes into the documentation."""
        where = self.environment
        versions = "; ".join(where.versions.values())
        parts = [
            markdown_table(self.table()),
            f"Median of {where.rounds} rounds, smallest and largest in brackets. Measured {where.date} on "
            f"{where.cpu}, Linux {where.kernel}, server and load on one core each. {versions}.",
        ]
        parts += [markdown_table(table) for table in (self.ratios(), self.verdicts()) if table]
        if notes := self.notes():
            parts.append("\n".join(f"- {note}" for note in notes))
        return "\n\n".join(parts) + "\n"

    def short(self) -> str:
        """The fragment that goes into the README: the medians alone."""
        rows = [["", "unit", *(peer.title for peer in self.peers)]]
        for row in self.rows():
            medians = self.medians(row)
            cells = (medians.get(peer.name) for peer in self.peers)
            rows.append(
                [row.title, row.unit, *("n/a" if cell is None else number(cell) for cell in cells)]
            )
        return (
            f"{markdown_table(rows)}\n\nMedians, measured {self.environment.date.split()[0]}. The ranges, how it was "
            "measured, and what is not reached: [docs/benchmarks.md](docs/benchmarks.md).\n"
        )

    def text(self) -> str:
        """The tables for a terminal."""
        tables = [self.table(), self.ratios(), self.verdicts()]
        parts = [text_table(table) for table in tables if table]
        return "\n\n".join([*parts, *(["\n".join(notes)] if (notes := self.notes()) else [])])

    def write(self, directory: Path) -> Path:
        """Write `<date>.json` with every result and `<date>.md`; gives the first one's path."""
        directory.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^0-9]", "", self.environment.date)
        path = directory / f"{stem}.json"
        path.write_text(
            json.dumps(
                {
                    "environment": asdict(self.environment),
                    "failures": self.failures,
                    "results": [
                        {
                            "row": row,
                            "peer": peer,
                            "values": cell.values,
                            "rounds": cell.results,
                        }
                        for (row, peer), cell in self.cells.items()
                    ],
                },
                indent=1,
            )
        )
        path.with_suffix(".md").write_text(self.markdown())
        return path


def number(value: float) -> str:
    """Three significant digits, with thousands separated."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.{0 if value >= 100 else 1}f}"


def figure(cell: Cell | None) -> str:
    """A cell's median and range."""
    if cell is None:
        return "n/a"
    if len(cell.values) == 1:
        return number(cell.median)
    return f"{number(cell.median)} ({number(min(cell.values))}–{number(max(cell.values))})"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The same in Markdown."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def write_between_markers(path: Path, fragment: str, start: str, end: str) -> bool:
    """Replace what stands between two markers of a document; False if it has them not."""
    before, found, rest = path.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        return False
    path.write_text(f"{before}{start}\n{fragment}{end}{after}")
    return True
