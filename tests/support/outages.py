"""What a node's log may say of an outage that it mends by itself."""

import re
from collections import Counter

_ENTRY = re.compile(r"^\S+ \[(?P<level>\w+) *\] (?P<event>\S+)", re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def told(log: str) -> Counter[tuple[str, str]]:
    """How often each thing was told: by level and event. `log` is a server's, in the form `console`."""
    return Counter(
        (found["level"], found["event"]) for found in _ENTRY.finditer(_COLOURS.sub("", log))
    )


def check_no_error(log: str) -> None:
    """Nothing of it is an error."""
    assert "Traceback" not in log, log
    assert "never retrieved" not in log, log
    assert not {event for level, event in told(log) if level in {"error", "critical"}}, log


def check_told(log: str, begins: Counter[str], ends: set[str]) -> None:
    """An outage was told when it began and when it ended, in warnings that do not come again and
    again, and is nobody's error.

    Args:
        begins: how often each warning may come.
        ends: what says that it is over.
    """
    check_no_error(log)
    entries = told(log)
    warnings = Counter({event: n for (level, event), n in entries.items() if level == "warning"})
    assert warnings, "nothing was told"
    assert not warnings - begins, warnings - begins
    assert ends <= {event for level, event in entries if level == "info"}, ends
