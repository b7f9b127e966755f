"""How often something may be asked for, as it stands with what is asked for.

A limit is counted per user, or per network address for those who are nobody yet. As many requests
as it says may come at once; then they come back evenly over the period.
"""

from typing import NamedTuple

SECOND, MINUTE, HOUR = 1.0, 60.0, 3600.0


class Rate(NamedTuple):
    """So many requests per period; as many may come at once."""

    limit: int
    period: float
    """Seconds."""


DEFAULT = Rate(100, SECOND)
"""What is declared without a limit of its own."""
