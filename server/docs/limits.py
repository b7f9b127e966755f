"""The documentation of the rate limits, made of their declaration.

`python -m server.docs.limits` prints the table, `--write` puts it between the markers of the page
that shows it, `--check` fails if it is out of date.
"""

import sys

from config.docs import run
from config.values import format_rate
from domain.rates import DEFAULT
from server.features import LIMITS

START, END = "<!-- limits:start -->", "<!-- limits:end -->"


def table() -> str:
    """All buckets with a limit of their own as a Markdown table, and the limit of the others."""
    rows = [
        f"| `{name}` | `{format_rate(rate)}` |" for name, rate in LIMITS.items() if rate != DEFAULT
    ]
    last = f"| any other command | `{format_rate(DEFAULT)}` |"
    return "\n".join(["| Bucket | Limit |", "|---|---|", *rows, last]) + "\n"


if __name__ == "__main__":
    sys.exit(run("server.docs.limits", table(), START, END))
