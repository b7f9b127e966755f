"""What all sessions of one transport share."""

import asyncio
from typing import TYPE_CHECKING, Protocol

from fanout.hub import Hub
from server.transport.application import Application
from server.transport.heartbeat import Heartbeat
from server.transport.large import Places
from server.transport.options import TransportCounters, TransportOptions
from server.transport.pressure import Pressure
from server.transport.refusals import Refusals

if TYPE_CHECKING:
    from server.transport.session import Session


class Services(Protocol):
    """The transport, as a session sees it."""

    application: Application
    hub: Hub
    options: TransportOptions
    counters: TransportCounters
    pressure: Pressure
    heartbeat: Heartbeat
    places: Places
    refusals: Refusals
    loop: asyncio.AbstractEventLoop

    def new_id(self) -> str:
        """A fresh, unguessable id."""
        ...

    def forget(self, session: "Session") -> None:
        """The session is over: no request finds it any more."""
        ...

    def connected(self, session: "Session") -> None:
        """The session has a connection that was accepted: it is no stranger."""
        ...

    def settled(self, session: "Session") -> None:
        """What a session that is over had taken in is handled."""
        ...
