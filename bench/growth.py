"""`python -m bench growth`: what nodes cost as they are added to a cluster, at constant load."""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.clusters import CLUSTERED, Account, Backends, Clustered, Nodes, redis_server
from bench.growth_report import GrowthReport, Measurement, NodeCost
from bench.meter import sample, spent
from bench.options import names, sizes
from bench.peers import LOGS, OUT, ROOT, build_go, needs, output, scratch
from bench.process import LOAD_CORE, BenchError, Load
from bench.report import environment, write_between_markers
from bench.scenarios import PAYLOAD, ROOM
from bench.spread import NODES, PACES, Pace, Spread, spreads

LOADGEN = OUT / "bin/loadgen"
CONNECT_LIMIT = 180.0
IN_FLIGHT = 32
"""Connections being opened at a time."""
MARGIN = 1.5
"""Seconds that a node is given to stop hearing a room, besides its linger."""
AFTERMATH = 0.1
"""Seconds that nodes are given for what the last delivery leaves to do."""
ATTEMPTS = 3
"""How often one measurement is made before the last is taken in which the load was not constant."""
START, END = "<!-- growth:start -->", "<!-- growth:end -->"
DOCUMENT = ROOT / "docs/benchmarks.md"


class OutOfTime(BenchError):
    """The run took longer than it may."""


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    add = parser.add_argument
    full = os.environ.get("FULL", "") not in {"", "0"}
    add("--full", action="store_true", default=full,
        help="more and longer rounds, more rooms (also FULL=1)")  # fmt: skip
    known = tuple(kind.name for kind in CLUSTERED)
    add("--only", type=names(known), default=list(known), metavar="SERVERS",
        help=f"servers, separated by commas: {', '.join(known)}")  # fmt: skip
    add("--nodes", type=sizes, default=NODES, metavar="SIZES",
        help=f"sizes of the cluster (default: {','.join(map(str, NODES))})")  # fmt: skip
    add("--rounds", type=int, help="how often each is measured")
    add("--seconds", type=float, help="how long each is measured")
    add("--rooms", type=int, help="rooms of ten, all nodes together")
    add("--rate", type=float, help="events per second, all rooms together")
    add("--limit", type=float, help="seconds after which the run is given up")
    add("--write-docs", action="store_true",
        help="put the tables between the markers of docs/benchmarks.md")  # fmt: skip
    return parser.parse_args(argv)


def pace(options: argparse.Namespace) -> Pace:
    """The load that was asked for."""
    chosen = PACES["full" if options.full else "small"]
    named = {
        name: value
        for name in ("rounds", "seconds", "rooms", "rate", "limit")
        if (value := getattr(options, name)) is not None
    }
    return replace(chosen, **named)


def run(options: argparse.Namespace) -> None:
    """Build, measure, report.

    Raises:
        BenchError: anything that keeps a figure from being measured.
    """
    chosen = pace(options)
    if (os.cpu_count() or 1) < 2:
        raise BenchError("two cores are needed, one for the nodes and one for the load")
    # Debian keeps ss where only an administrator's shell looks.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    needs("taskset", "go", "redis-server", "ss")
    LOGS.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind in CLUSTERED if kind.name in options.only]
    print(f"building the load generator and {', '.join(kind.title for kind in kinds)}", flush=True)
    build_go(ROOT / "bench/loadgen", LOADGEN)
    for kind in kinds:
        kind.build()
    versions = {kind.name: kind.version() for kind in kinds}
    versions["redis"] = f"Redis {output('redis-server', '--version').split()[2].removeprefix('v=')}"
    report = GrowthReport(
        environment(versions, chosen.rounds, chosen.seconds), chosen, options.nodes, kinds
    )
    deadline = time.monotonic() + chosen.limit
    with on_core(LOAD_CORE):
        for turn in range(chosen.rounds):
            print(f"\nround {turn + 1} of {chosen.rounds}", flush=True)
            for kind in kinds:
                attempt(kind, chosen, options.nodes, report, deadline)
    print(f"\n{report.text()}\n")
    print(f"written to {report.write(OUT).relative_to(ROOT)}")
    if report.failures:
        raise BenchError("not everything was measured; the documentation stays as it is")
    if options.write_docs:
        if not write_between_markers(DOCUMENT, report.markdown(), START, END):
            raise BenchError(f"{DOCUMENT.relative_to(ROOT)} has no markers for the tables")
        print(f"written to {DOCUMENT.relative_to(ROOT)}")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Have this process, and what it starts without a core of its own, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def attempt(
    kind: Clustered, chosen: Pace, counts: Sequence[int], report: GrowthReport, deadline: float
) -> None:
    """Measure a server in all sizes; one that fails is noted and does not end the run.

    Raises:
        OutOfTime: it is after the deadline (of the monotonic clock).
    """
    try:
        with scratch() as directory:
            for found in measure(kind, chosen, counts, directory, deadline):
                report.add(found)
                print(report.line(found), flush=True)
    except OutOfTime:
        raise
    except BenchError as error:
        report.failures.append(f"{kind.name}: {str(error).splitlines()[-1]}")
        print(f"{kind.title} failed: {error}", flush=True)


def measure(
    kind: Clustered, chosen: Pace, counts: Sequence[int], directory: Path, deadline: float
) -> Iterator[Measurement]:
    """Start a cluster, let it grow, and measure each size in each spread.

    Raises:
        OutOfTime: it is after the deadline.
        BenchError: something failed.
    """
    with ExitStack() as stack:
        redis_pid, redis_port = stack.enter_context(redis_server(directory / "redis"))
        store = stack.enter_context(kind.store(directory))
        backends = Backends(f"redis://127.0.0.1:{redis_port}/0", store)
        nodes = stack.enter_context(Nodes(kind, backends, directory))
        nodes.grow(counts[0])
        accounts = kind.accounts(nodes.running[0].port, chosen.rooms)
        trial = Trial(kind, chosen, accounts, nodes, redis_pid, redis_port)
        for count in counts:
            nodes.grow(count)
            for spread in spreads(count):
                if time.monotonic() > deadline:
                    raise OutOfTime(f"the run took longer than {chosen.limit:.0f} s")
                yield trial.run(spread)


class Trial:
    """Measures a cluster as it stands."""

    def __init__(
        self,
        kind: Clustered,
        chosen: Pace,
        accounts: Sequence[Account],
        nodes: Nodes,
        redis_pid: int,
        redis_port: int,
    ) -> None:
        self._kind = kind
        self._pace = chosen
        self._accounts = accounts
        self._nodes = nodes
        self._redis_pid = redis_pid
        self._redis_port = redis_port
        self._silent_at = 0.0
        """From when on no node hears a room for the clients of the measurement before."""

    def run(self, spread: Spread) -> Measurement:
        """Connect all clients, spread over the nodes, and measure.

        Raises:
            BenchError: a node or the load generator failed.
        """
        running = self._nodes.running
        homes = [spread.node_of(*divmod(i, ROOM), len(running)) for i in range(len(self._accounts))]
        try:
            with Load([str(LOADGEN)], LOGS / "growth-load.log") as load:
                load.ask(self._spec(homes), CONNECT_LIMIT)
                self._publish(load, self._pace.warm)
                time.sleep(max(0.0, self._silent_at - time.monotonic()))
                found = self._measure(load, spread, homes)
                for _ in range(1, ATTEMPTS):
                    if found.steady(self._pace):
                        break
                    found = self._measure(load, spread, homes)
        finally:
            self._silent_at = time.monotonic() + self._kind.linger + MARGIN
        return found

    def _measure(self, load: Load, spread: Spread, homes: Sequence[int]) -> Measurement:
        running = self._nodes.running
        everybody = [*(node.pid for node in running), self._redis_pid]
        time.sleep(AFTERMATH)
        before = sample(everybody, self._redis_port)
        told = self._publish(load, self._pace.seconds)
        time.sleep(AFTERMATH)
        after = sample(everybody, self._redis_port)
        return Measurement(
            server=self._kind.name,
            spread=spread.name,
            seconds=after.at - before.at,
            nodes=[
                NodeCost(homes.count(number), spent(node.pid, before, after))
                for number, node in enumerate(running)
            ],
            redis=spent(self._redis_pid, before, after),
            load=told,
        )

    def _spec(self, homes: Sequence[int]) -> dict[str, Any]:
        running = self._nodes.running
        return {
            "protocol": self._kind.protocol,
            "scenario": "paced",
            "namespaces": ["/messages"],
            "payload": PAYLOAD,
            "in_flight": IN_FLIGHT,
            "clients": [
                {"token": account.token, "rooms": [account.room], "port": running[home].port}
                for account, home in zip(self._accounts, homes, strict=True)
            ],
        }

    def _publish(self, load: Load, seconds: float) -> dict[str, Any]:
        told: dict[str, Any] = load.ask(
            {"rate": self._pace.rate, "seconds": seconds}, 10 * seconds + 60
        )
        return told
