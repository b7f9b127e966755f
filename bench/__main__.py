"""`python -m bench`: measure the servers in turns and print how they compare.

`python -m bench growth` measures clusters of them as nodes are added, `python -m bench lists` one
with a million messages, `python -m bench appends` the stores alone.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import appends, growth, lists, profile
from bench.options import names
from bench.parley import Parley
from bench.peers import (
    LOGS,
    OUT,
    ROOT,
    Centrifuge,
    Node,
    Peer,
    PythonSocketIO,
    build_go,
    needs,
    scratch,
)
from bench.process import BenchError, run_load
from bench.report import (
    END,
    SHORT_END,
    SHORT_START,
    START,
    Report,
    environment,
    number,
    write_between_markers,
)
from bench.scenarios import PAYLOAD, SCALES, SCENARIOS, Scale, Scenario

LOADGEN = OUT / "bin/loadgen"
LOAD_LIMIT = 300.0
IN_FLIGHT = 32
"""Connections being opened at a time."""
PEERS = ("python", "node", "centrifuge", "parley")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    full = os.environ.get("FULL", "") not in {"", "0"}
    add("--full", action="store_true", default=full, help="more and longer rounds (also FULL=1)")
    add("--only", type=names(PEERS), default=list(PEERS), metavar="PEERS",
        help=f"servers, separated by commas: {', '.join(PEERS)}")  # fmt: skip
    known = tuple(scenario.name for scenario in SCENARIOS)
    add("--scenario", type=names(known), default=list(known), metavar="SCENARIOS",
        help=f"scenarios, separated by commas: {', '.join(known)}")  # fmt: skip
    add("--rounds", type=int, help="how often each is measured")
    add("--seconds", type=float, help="how long each is measured")
    add("--profile", action="store_true",
        help="profile Parley meanwhile (with py-spy), which slows it down")  # fmt: skip
    add("--write-docs", action="store_true",
        help="put the tables between the markers of docs/benchmarks.md and README.md")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run; 0 when everything was measured, 1 with a message when not."""
    if argv[:1] == ["growth"]:
        measure, options = growth.run, growth.arguments(argv[1:])
    elif argv[:1] == ["lists"]:
        measure, options = lists.run, lists.arguments(argv[1:])
    elif argv[:1] == ["appends"]:
        measure, options = appends.run, appends.arguments(argv[1:])
    else:
        measure, options = run, arguments(argv)
    # However it is ended, every server is stopped on the way out: also where the shell started this
    # in the background and so had SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        measure(options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def run(options: argparse.Namespace) -> None:
    """Build, measure all rounds, report.

    Raises:
        BenchError: anything that keeps a figure from being measured.
    """
    if (os.cpu_count() or 1) < 2:
        raise BenchError("two cores are needed, one for the server and one for the load")
    needs("taskset", "go")
    LOGS.mkdir(parents=True, exist_ok=True)
    scale = SCALES["full" if options.full else "small"]
    rounds = options.rounds or (1 if options.profile else scale.rounds)
    seconds = options.seconds or (max(scale.seconds, 8.0) if options.profile else scale.seconds)
    with scratch() as directory:
        peers = make_peers(options.only, directory)
        print(f"building the load generator and {', '.join(peer.title for peer in peers)}")
        build_go(ROOT / "bench/loadgen", LOADGEN)
        for peer in peers:
            peer.build()
        scenarios = [s for s in SCENARIOS if s.name in options.scenario]
        versions = {peer.name: peer.version() for peer in peers}
        report = Report(environment(versions, rounds, seconds), scenarios, peers)
        runner = Runner(scale, seconds, options.profile, report)
        for turn in range(rounds):
            print(f"\nround {turn + 1} of {rounds}", flush=True)
            for scenario in scenarios:
                for peer in peers:
                    if not peer.lacks(scenario):
                        print(runner.attempt(scenario, peer), flush=True)
    print(f"\n{report.text()}\n")
    print(f"written to {report.write(OUT).relative_to(ROOT)}")
    if options.write_docs:
        if report.failures:
            raise BenchError("the documentation stays as it is: not everything was measured")
        write_docs(report)
    if report.failures:
        raise BenchError(f"{len(report.failures)} measurements failed")


def make_peers(chosen: Sequence[str], directory: Path) -> list[Peer]:
    """The servers to measure, in the order they take turns."""
    peers: list[Peer] = [PythonSocketIO(), Node(), Centrifuge(), Parley(directory)]
    return [peer for peer in peers if peer.name in chosen]


class Runner:
    """Measures one server in one scenario at a time."""

    def __init__(self, scale: Scale, seconds: float, profiled: bool, report: Report) -> None:
        self._scale = scale
        self._seconds = seconds
        self._profiled = profiled
        self._report = report

    def attempt(self, scenario: Scenario, peer: Peer) -> str:
        """As `measure`, but a server that fails is noted and does not end the run."""
        try:
            return self.measure(scenario, peer)
        except BenchError as error:
            reason = str(error).splitlines()[-1]
            self._report.failures.append(f"{scenario.name}, {peer.name}: {reason}")
            return f"{scenario.name:12} {peer.title:18} failed: {error}"

    def measure(self, scenario: Scenario, peer: Peer) -> str:
        """Start the server anew, put the load on it, and take its figure; gives a line of text."""
        stacks = OUT / f"profile-{scenario.name}.txt"
        profiled = self._profiled and peer.name == "parley"
        with scratch() as directory:
            clients = peer.clients(scenario, scenario.connections or self._scale.connects)
            with peer.running(scenario, directory) as server:
                spec = {
                    "protocol": peer.protocol,
                    "scenario": scenario.load,
                    "port": server.port,
                    "pid": server.pid,
                    "namespaces": scenario.namespaces,
                    "clients": clients,
                    "payload": PAYLOAD,
                    "seconds": self._seconds,
                    "warm_seconds": self._scale.warm,
                    "windows": scenario.windows,
                    "in_flight": IN_FLIGHT,
                    "warm_up": scenario.warm_up,
                    "collect": peer.collects,
                    "profiler": profile.command(server.pid, stacks) if profiled else [],
                }
                try:
                    output = run_load([str(LOADGEN)], json.dumps(spec), LOAD_LIMIT)
                except BenchError as error:
                    raise BenchError(f"{scenario.name}, {peer.title}: {error}") from error
        lines = []
        for row, value, result in scenario.figures(json.loads(output)):
            self._report.add(row, peer, value, result)
            lines.append(
                f"{row.name:12} {peer.title:18} {number(value):>10} {row.unit:17} {details(result)}"
            )
        if profiled:
            lines.append(profile.summary(stacks))
        return "\n".join(lines)


def details(result: dict[str, Any]) -> str:
    """What helps to judge a figure while the run goes on."""
    parts = []
    if "wall_seconds" in result:
        wall = result["wall_seconds"]
        parts.append(f"server {result['server_cpu_seconds'] / wall:4.0%}")
        parts.append(f"load {result['generator_cpu_seconds'] / wall:4.0%}")
    if "window" in result:
        parts.append(f"latency {result['mean_latency_ms']:.1f} ms")
        parts.append(f"{result['bytes_per_delivery']:.0f} B each")
    return "  ".join(parts)


def write_docs(report: Report) -> None:
    """Put the tables where the documentation shows them: all of it on its page, the medians in the README."""
    shown = (
        (ROOT / "docs/benchmarks.md", report.markdown(), START, END),
        (ROOT / "README.md", report.short(), SHORT_START, SHORT_END),
    )
    for path, fragment, start, end in shown:
        if write_between_markers(path, fragment, start, end):
            print(f"written to {path.relative_to(ROOT)}")
        else:
            raise BenchError(f"{path.relative_to(ROOT)} has no markers for the table")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
