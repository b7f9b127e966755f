"""The benchmark of growth: what is measured is what is said."""

import os
import shutil
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bench.clusters import CLUSTERED
from bench.growth import DOCUMENT, END, START, arguments, pace
from bench.growth_report import GrowthReport, Measurement, NodeCost
from bench.meter import Spent, cpu_seconds, sample, spent
from bench.process import BenchError
from bench.report import Environment, write_between_markers
from bench.scenarios import ROOM
from bench.spread import NODES, OWN, PACES, PAIR, Spread, spreads

ENVIRONMENT = Environment("2026-01-02 03:04", "a CPU", "6.1", {"parley": "Parley 1"}, 1, 4.0, 0.0)


def homes(spread: Spread, rooms: int, nodes: int) -> list[set[int]]:
    """The nodes on which each room has members."""
    return [{spread.node_of(r, m, nodes) for m in range(ROOM)} for r in range(rooms)]


@pytest.mark.parametrize("nodes", NODES)
def test_spreads_leave_no_node_out_but_the_one_they_should(nodes: int) -> None:
    for spread in spreads(nodes):
        found = homes(spread, PACES["small"].rooms, nodes)
        assert {len(each) for each in found} == {min(spread.homes, nodes)}
        assert set().union(*found) == set(range(spread.used(nodes)))
    assert OWN.used(nodes) == max(1, nodes - 1)
    assert PAIR.used(nodes) == nodes


def test_members_are_spread_evenly() -> None:
    rooms, nodes = PACES["small"].rooms, 8
    members = Counter(PAIR.node_of(r, m, nodes) for r in range(rooms) for m in range(ROOM))
    assert set(members.values()) == {rooms * ROOM // nodes}


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss (iproute2) is not installed")
def test_bytes_on_connections_are_counted_exactly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server, _ = listener.accept()
            with server:
                before = sample([os.getpid()], port)
                client.sendall(b"x" * 1234)
                server.sendall(b"y" * 56789)
                assert len(server.recv(1234, socket.MSG_WAITALL)) == 1234
                assert len(client.recv(56789, socket.MSG_WAITALL)) == 56789
                after = sample([os.getpid()], port)
                found = spent(os.getpid(), before, after)
                assert (found.bytes_sent, found.bytes_received) == (1234, 56789)
        gone = sample([os.getpid()], port)
        with pytest.raises(BenchError, match="closed 1 connection"):
            spent(os.getpid(), after, gone)


def test_processor_time_is_that_of_the_process() -> None:
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) == before:
        pass
    assert cpu_seconds(os.getpid()) >= sum(os.times()[:2]) - 0.02


def measurement(server: str, spread: Spread, nodes: int, received: int) -> Measurement:
    """One in which each node that has members received so much in a second."""
    used = spread.used(nodes)
    costs = [
        NodeCost(10, Spent(0.1, 500, received)) if number < used else NodeCost(0, Spent(0.01, 5, 7))
        for number in range(nodes)
    ]
    load = {
        "published": 1000,
        "deliveries": 90,
        "expected": 90,
        "seconds_behind": 0.0,
        "publishing_seconds": 5.0,
    }
    return Measurement(server, spread.name, 1.0, costs, Spent(0.02, 0, 0), load)


def report() -> GrowthReport:
    found = GrowthReport(ENVIRONMENT, PACES["small"], (1, 2, 4), CLUSTERED)
    for kind in CLUSTERED:
        for count in (1, 2, 4):
            for spread in spreads(count):
                found.add(measurement(kind.name, spread, count, 1000 * count))
    return found


def test_the_node_without_members_is_shown_apart_from_the_others() -> None:
    head, *rows = report().table(OWN)
    four = dict(zip(head, next(r for r in rows if r[0] == "Parley" and r[1] == "4"), strict=True))
    assert four["from Redis, each node, kB/s"] == "4.0"
    assert four["node without members: from Redis, B/s"] == "7.0"
    one = next(r for r in rows if r[0] == "Parley" and r[1] == "1")
    assert one[-2:] == ["", ""]


def test_growth_is_that_of_all_nodes_together() -> None:
    head, *rows = report().growth()
    assert head[0] == "4 nodes divided by 2"
    assert rows[0][1:] == ["4.00"] * len(CLUSTERED)  # 4 of 4000 bytes, 2 of 2000


def test_what_was_not_delivered_or_came_late_is_told() -> None:
    found = report()
    late = found.measurements[-1]
    load = {**late.load, "deliveries": 80, "seconds_behind": 2.0}
    found.measurements[-1] = replace(late, load=load)
    assert "80 of 90" in found.markdown()
    assert not found.measurements[-1].steady(found.pace)
    assert any("2.0 s after" in note for note in found.notes())
    assert len(found.notes()) == 1


def test_the_document_has_a_place_for_the_tables(tmp_path: Path) -> None:
    copy = tmp_path / "copy.md"
    copy.write_text(DOCUMENT.read_text())
    assert write_between_markers(copy, report().markdown(), START, END)
    assert report().markdown() in copy.read_text()
    assert write_between_markers(copy, "", START, END)
    assert "a CPU" not in copy.read_text()


def test_what_is_asked_for_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FULL", raising=False)
    asked = arguments(["--nodes", "4,1", "--rate", "50", "--only", "parley"])
    assert asked.nodes == (1, 4)
    assert asked.only == ["parley"]
    assert pace(asked) == replace(PACES["small"], rate=50.0)
    assert pace(arguments(["--full"])) == PACES["full"]
    with pytest.raises(SystemExit):
        arguments(["--nodes", "0"])
