"""Pings for all sessions from one timer.

All sessions wait equally long for their next ping, so a queue in order of arrival is in order of
time, and the timer is set for its head. The same holds for answers that are due.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from server.transport.packets import PING_FRAME

if TYPE_CHECKING:
    from server.transport.session import Session

MIN_WAIT_SECONDS = 0.005
"""Sessions due within this time of one another share a wake-up."""


class Heartbeat:
    """Sends a ping `interval` seconds after the last answer, ends a session `timeout` after a ping.

    A session from which nothing is read because its application is behind is alive.
    """

    def __init__(self, interval: float, timeout: float, time: Callable[[], float]) -> None:
        self._interval = interval
        self._timeout = timeout
        self._time = time
        self._pings: deque[tuple[float, Session]] = deque()
        self._answers: deque[tuple[float, Session]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, session: "Session") -> None:
        """Begin with a session's pings."""
        self._pings.append((self._time() + self._interval, session))
        if self._timer is None:
            self._set_timer()

    def pong(self, session: "Session") -> None:
        """The session answered its ping."""
        session.pong_due = 0.0
        self.add(session)

    def expired(self, session: "Session") -> bool:
        """Whether the session's answer is overdue, even if the timer has not come round yet."""
        return bool(session.pong_due) and self._time() >= session.pong_due

    def stop(self) -> None:
        """End all pings."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pings.clear()
        self._answers.clear()

    def _set_timer(self) -> None:
        due = min([queue[0][0] for queue in (self._pings, self._answers) if queue], default=0.0)
        if due:
            wait = max(due - self._time(), MIN_WAIT_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(wait, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self._time()
        answers = self._answers
        while answers and answers[0][0] <= now:
            due, session = answers.popleft()
            if session.pong_due != due:
                continue
            if session.blocked:
                session.pong_due = now + self._timeout
                answers.append((session.pong_due, session))
            else:
                session.lost("ping timeout")
        pings = self._pings
        while pings and pings[0][0] <= now:
            due, session = pings.popleft()
            if session.closing:
                continue
            session.pong_due = due + self._timeout
            answers.append((session.pong_due, session))
            session.send_frame(PING_FRAME)
        self._set_timer()
