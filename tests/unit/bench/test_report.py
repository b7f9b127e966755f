"""The README shows the medians of the run whose whole table stands on the benchmarks' page."""

import re
from pathlib import Path

import pytest

from bench import growth
from bench.__main__ import PEERS, arguments, make_peers
from bench.report import (
    END,
    SHORT_END,
    SHORT_START,
    START,
    Environment,
    Report,
    write_between_markers,
)
from bench.scenarios import SCENARIOS
from tests.support.server import ROOT

README = ROOT / "README.md"
PAGE = ROOT / "docs" / "benchmarks.md"


def report() -> Report:
    environment = Environment("2026-01-02 03:04", "a CPU", "6.1", {}, 3, 1.0, 0.0)
    found = Report(environment, SCENARIOS, make_peers(PEERS, ROOT))
    for n, row in enumerate(found.rows()):
        for peer in found.peers[1:]:
            for value in (100.0 + n, 900.0, 300.0 + n):
                found.add(row, peer, value, {})
    return found


def rows(text: str, start: str, end: str) -> list[list[str]]:
    table = text.partition(start)[2].partition(end)[0].strip().partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.parametrize(
    ("path", "start", "end"), [(README, SHORT_START, SHORT_END), (PAGE, START, END)]
)
def test_the_documents_have_a_place_for_the_tables(
    tmp_path: Path, path: Path, start: str, end: str
) -> None:
    copy = tmp_path / "copy.md"
    copy.write_text(path.read_text())
    assert write_between_markers(copy, report().short(), start, end)
    assert report().short() in copy.read_text()


def test_the_short_table_is_ten_lines_of_medians() -> None:
    head, _, *lines = rows(f"<{report().short()}>", "<", ">")
    assert len(lines) == 10
    assert lines[3] == [*lines[3][:2], "n/a", *["303"] * (len(head) - 3)]


def test_the_readme_tells_of_the_run_that_the_page_shows() -> None:
    short = rows(README.read_text(), SHORT_START, SHORT_END)
    whole = rows(PAGE.read_text(), START, END)
    assert short == [[re.sub(r" \([^()]*–[^()]*\)$", "", cell) for cell in row] for row in whole]


def test_the_commands_of_the_page_are_understood() -> None:
    commands = re.findall(
        r"^make bench(?: ARGS=\"(.*?)\"| FULL=1)? ", PAGE.read_text(), re.MULTILINE
    )
    assert len(commands) == 9
    for command in commands:
        words = command.split()
        if words[:1] == ["growth"]:
            growth.arguments(words[1:])
        else:
            arguments(words)
