"""Letting the store's threads have the interpreter when a busy event loop does not let go of it.

A thread that waits for the interpreter's lock is woken each time the event loop lets go of it for
a system call. On a machine with several cores the loop has it back before the other one has woken
up, and the wait starts anew, so that the switch interval never ends: a loop that is never idle can
keep a thread waiting for seconds. So the loop looks now and then whether the writer gets on, and if
not, it waits for it: no longer than the writer needs for its part of a batch.
"""

import threading
import time

CHECK = 0.0025
"""Seconds between two looks, while something waits for the writer."""

STUCK = 0.005
"""Seconds without a commit after which the loop makes way."""

TURN = 0.005
"""Seconds the loop waits at most."""

GLANCE = 0.0002
"""Seconds the loop waits at most for a writer that waits for the disk."""

READ = 0.0005
"""Seconds the loop waits at most for a reader, who may as well be at a long search."""

REST = 0.02
"""Seconds until the next look after one that was of no use."""


class Turns:
    """Shared by the event loop, which gives turns, and the writer, which tells where it is."""

    def __init__(self) -> None:
        self._moved = threading.Event()
        self._away = False
        self._done = False

    def wait_for_lock(self) -> None:
        """The writer asks for the file's lock, which it has at once unless another program has."""
        self._away = True

    def wait_for_disk(self) -> None:
        """The writer has done its part; now it is the disk's."""
        self._away = self._done = True
        self._moved.set()

    def back(self) -> None:
        """The writer needs the interpreter again."""
        self._away = False
        self._moved.set()

    def done(self) -> None:
        """The writer has carried out a batch."""
        self._done = True
        self._moved.set()

    def give(self) -> bool:
        """Make way for the writer: blocks the event loop until it has done its part, for `TURN` at
        most. Returns whether that was of use.
        """
        self._done = False
        self._moved.clear()
        if self._away and not self._moved.wait(GLANCE):
            return False  # it waits for something else than the interpreter
        end = time.monotonic() + TURN
        while not self._done:
            if not self._moved.wait(end - time.monotonic()):
                return False
            self._moved.clear()
        return True
