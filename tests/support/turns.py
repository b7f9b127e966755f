"""Turns between the processes of one test run: tests side by side, or one alone."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(directory: Path, *, alone: bool) -> Iterator[None]:
    """Wait for a turn, and hold it for the block.

    Args:
        directory: which the processes have in common.
        alone: whether nobody else's block may run meanwhile.
    """
    with (directory / "gate").open("ab") as gate, (directory / "floor").open("ab") as floor:
        # Who waits for the floor keeps the gate shut: otherwise one who wants to be alone might
        # wait for ever for a moment in which nobody is there.
        fcntl.flock(gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(floor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # Not left to closing: a process forked meanwhile may have the file open too.
            fcntl.flock(floor, fcntl.LOCK_UN)
