"""Changes that are tried anew when what they were decided on changes at the same moment."""

from domain.errors import Conflict

ATTEMPTS = 8
"""Times a change is tried."""


def busy(what: str = "conversation") -> Conflict:
    """The error when all of them were in vain."""
    return Conflict(f"Others are changing this {what} at the same moment.")
