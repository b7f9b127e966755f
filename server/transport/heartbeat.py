"""Pings for all sessions from one timer.

All sessions wait equally long for their next ping, so a queue in order of arrival is in order of
time, and the timer is set for its head. The same holds for answers that are due.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from server.transport.packets import PING_FRAME

MIN_WAIT_SECONDS = 0.005
"""Sessions due within this time of one another share a wake-up."""

STOOD_STILL_SECONDS = 0.25
"""A wake-up later than this was kept by a process that stood still, or nearly."""

READING_SECONDS = 1.0
"""What comes in while a process stands still is read within this time after it."""


class Pinged(Protocol):
    """A session, as its pings see it."""

    closing: bool
    pong_due: float
    """When the answer to the last ping must have come; 0 if none is owed."""

    @property
    def blocked(self) -> bool:
        """Whether nothing is read from it until its application has caught up."""
        ...

    def send_frame(self, frame: bytes) -> None:
        """Send a frame."""
        ...

    def lost(self, reason: str) -> None:
        """It is silent: end it."""
        ...


class Heartbeat:
    """Sends a ping `interval` seconds after the last answer, ends a session `timeout` after a ping.

    A session from which nothing is read because its application is behind is alive. So is one
    whose answer may be there and unread because this process stood still: that time does not
    count.
    """

    def __init__(self, interval: float, timeout: float, time: Callable[[], float]) -> None:
        self._interval = interval
        self._timeout = timeout
        self._time = time
        # By session, so that one that is over is let go at once, not when it would be its turn.
        self._pings: OrderedDict[Pinged, float] = OrderedDict()
        self._answers: OrderedDict[Pinged, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_up = 0.0
        """When the timer is due."""

    def add(self, session: Pinged) -> None:
        """Begin with a session's pings."""
        self._pings[session] = self._time() + self._interval
        if self._timer is None:
            self._set_timer()

    def pong(self, session: Pinged) -> None:
        """The session answered its ping."""
        session.pong_due = 0.0
        self._answers.pop(session, None)
        self.add(session)

    def forget(self, session: Pinged) -> None:
        """The session is over."""
        self._pings.pop(session, None)
        self._answers.pop(session, None)

    def expired(self, session: Pinged) -> bool:
        """Whether the session's answer is overdue, even if the timer has not come round yet."""
        now = self._time()
        if not session.pong_due or now < session.pong_due:
            return False
        return now - self._wake_up < STOOD_STILL_SECONDS

    def stop(self) -> None:
        """End all pings."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pings.clear()
        self._answers.clear()

    def _set_timer(self) -> None:
        heads = [next(iter(queue.values())) for queue in (self._pings, self._answers) if queue]
        if heads:
            wait = max(min(heads) - self._time(), MIN_WAIT_SECONDS)
            self._wake_up = self._time() + wait
            self._timer = asyncio.get_running_loop().call_later(wait, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self._time()
        if now - self._wake_up >= STOOD_STILL_SECONDS:
            self._give_time(now, now - self._wake_up)
        answers = self._answers
        while answers and (first := next(iter(answers.items())))[1] <= now:
            session = first[0]
            del answers[session]
            if session.blocked:
                session.pong_due = answers[session] = now + self._timeout
            elif not session.closing:
                session.lost("ping timeout")
        pings = self._pings
        while pings and (first := next(iter(pings.items())))[1] <= now:
            session, due = first
            del pings[session]
            if session.closing:
                continue
            # Nobody can answer what was not sent yet.
            sent = now if now - due >= STOOD_STILL_SECONDS else due
            session.pong_due = answers[session] = sent + self._timeout
            session.send_frame(PING_FRAME)
        self._set_timer()

    def _give_time(self, now: float, seconds: float) -> None:
        """The process stood still for so long, or longer: those who owe an answer get it on top,
        and in any case the time to have it read.
        """
        least = now + min(self._timeout, READING_SECONDS)
        for session, due in self._answers.items():
            session.pong_due = self._answers[session] = max(due + seconds, least)
