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
