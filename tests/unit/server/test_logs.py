"""What is written to a terminal."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from server.logs import configure


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_what_strangers_write_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(level="info", json=False)
    logging.getLogger("anything").warning("odd \x1b]0;title\x07 and \x9b2J")
    structlog.get_logger("tests").info("request", path="/\x1b[2J\rfake\n\u202eline")
    written = capsys.readouterr().err
    for steering in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\r", "\u202e"):
        assert steering not in written
    assert "\\x1b]0;title" in written
    assert len(written.strip().splitlines()) == 2


@pytest.mark.parametrize("library", [False, True])
def test_what_strangers_write_into_an_error_does_not_either(
    capsys: pytest.CaptureFixture[str], library: bool
) -> None:
    configure(level="info", json=False)
    try:
        try:
            raise KeyError("inner \x1b[31m")
        except KeyError as error:
            raise ValueError("odd \x1b]0;title\x07\x9b2J\r\u202e\n2026 [info] a lie") from error
    except ValueError as error:
        error.add_note("noted \x1b[2J")
        if library:
            logging.getLogger("anything").exception("failed")
        else:
            structlog.get_logger("tests").exception("failed", stack_info=True)
    written = capsys.readouterr().err
    for steering in ("\x1b", "\x07", "\x9b", "\r", "\u202e"):
        assert steering not in written
    assert "\\x1b]0;title" in written
    assert "Traceback (most recent call last)" in written
    lines = written.strip("\n").splitlines()
    assert len(lines) > 5
    assert [line for line in lines if not line.startswith("  ")] == lines[:1]
