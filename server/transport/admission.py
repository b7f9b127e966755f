"""Which sessions there may be: so many in all, of one network address, of one user.

When there is no more room, whoever has most makes it: one address or one account that opens
sessions without end takes the places of its own, and keeps nobody out.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

from server.transport.crowd import Crowd
from server.transport.options import TransportCounters, TransportOptions
from server.transport.session import Session

STRANGER_SECONDS = 2.0
"""What a session has to connect to a namespace in before it may be ended for another's sake."""

FEW = 10
"""Nobody who has no more sessions than this is asked for room because of their number."""

LOOKED_AT = 16
"""Strangers looked at for one that may be ended."""

LEAVING = 64
"""Sessions ended for others' sake that may still hear of it; beyond, they end without."""

FULL = "Too many sessions"
SAME_ADDRESS = "Too many connections from this address"


class Admission:
    """Counts sessions, those of strangers by their address and others by their user."""

    def __init__(
        self,
        options: TransportOptions,
        counters: TransportCounters,
        time: Callable[[], float],
    ) -> None:
        self._options = options
        self._counters = counters
        self._time = time
        self._sessions = 0
        self._addresses: Counter[str] = Counter()
        """All sessions by address."""
        self._ages: dict[Session, float] = {}
        """Sessions of strangers and since when they are; oldest first."""
        self._strangers: Crowd[Session] = Crowd()
        self._users: Crowd[Session] = Crowd()
        self._leaving: dict[Session, None] = {}
        """Ended for others' sake: their places are given away already."""

    def refusal(self, address: str) -> str | None:
        """Why there may be no further session of this address, after whoever has most has made
        room; None: there may.
        """
        network = self._options.network(address)
        limited = not self._options.unlimited(address)
        if (
            limited
            and self._addresses[network] >= self._options.max_sessions_per_address
            and not self._end_silent(self._strangers.of(network))
        ):
            return SAME_ADDRESS
        if self._sessions >= self._options.max_sessions and not self._make_room(network):
            return FULL
        return None

    def enter(self, session: Session) -> None:
        """A session begins, and nobody knows whose it is."""
        self._sessions += 1
        if not self._options.unlimited(session.caller.address):
            self._addresses[self._options.network(session.caller.address)] += 1
        self._add_stranger(session)

    def claim(self, session: Session, user: str) -> bool:
        """The session is a user's. False: the user has too many, and it stays a stranger's. One
        that is somebody's already stays theirs.
        """
        if not session.owner:
            if self._users.count(user) >= self._options.max_sessions_per_user:
                return False
            self._remove_stranger(session)
            session.owner = user
            self._users.add(user, session)
        return True

    def release(self, session: Session) -> None:
        """The session has no connection left: it is a stranger's again."""
        if session.owner:
            self._users.remove(session.owner, session)
            session.owner = ""
            self._add_stranger(session)

    def leave(self, session: Session) -> None:
        """The session is over."""
        if session in self._leaving:
            del self._leaving[session]
        else:
            self._sessions -= 1
        if not self._options.unlimited(session.caller.address):
            network = self._options.network(session.caller.address)
            self._addresses[network] -= 1
            if not self._addresses[network]:
                del self._addresses[network]
        if session.owner:
            self._users.remove(session.owner, session)
        else:
            self._remove_stranger(session)

    def _party(self, session: Session) -> str:
        address = session.caller.address
        # Whoever comes from where many are together is nobody's like.
        return session.id if self._options.unlimited(address) else self._options.network(address)

    def _add_stranger(self, session: Session) -> None:
        self._ages[session] = self._time()
        self._strangers.add(self._party(session), session)

    def _remove_stranger(self, session: Session) -> None:
        if self._ages.pop(session, None) is not None:
            self._strangers.remove(self._party(session), session)

    def _make_room(self, network: str) -> bool:
        """End the session of a stranger, of the address that has most before any other, or one of
        the user who has most.
        """
        most = self._strangers.largest()
        if most is not None:
            crowd = self._strangers.count(most)
            flood = crowd > FEW and crowd > self._strangers.count(network) + 1
            if self._end_silent(self._strangers.of(most), at_once=flood):
                return True
        return self._end_silent(self._ages) or self._end_one_of_many()

    def _end_silent(self, strangers: Iterable[Session], *, at_once: bool = False) -> bool:
        """End the oldest session of somebody who opened it and never said who it is: such sessions
        cost nothing to make, and must not keep others out.
        """
        now = self._time()
        for session in islice(strangers, LOOKED_AT):
            if not at_once and now - self._ages[session] < STRANGER_SECONDS:
                return False
            if not session.connections:
                self._counters.evicted["stranger"] += 1
                session.silent("never connected, and others wait")
                session.finish()
                return True
        return False

    def _end_one_of_many(self) -> bool:
        most = self._users.largest()
        if most is None or self._users.count(most) <= FEW:
            return False
        session = next(self._users.of(most))
        self._counters.evicted["user"] += 1
        self._users.remove(most, session)
        self._sessions -= 1
        self._leaving[session] = None
        session.close("too_many_connections", reconnect=True)
        if len(self._leaving) > LEAVING:
            next(iter(self._leaving)).finish()
        return True
