"""What all sessions of one transport share."""

import asyncio
from typing import Protocol, TypeVar

from fanout.hub import Hub
from server.transport.application import Application
from server.transport.arriving import Arriving
from server.transport.heartbeat import Heartbeat
from server.transport.large import Places
from server.transport.options import TransportCounters, TransportOptions
from server.transport.pressure import Pressure
from server.transport.refusals import Refusals

SessionT_contra = TypeVar("SessionT_contra", contravariant=True)
"""What a session is: it knows this module, which does not know it."""


class Services(Protocol[SessionT_contra]):
    """The transport, as a session sees it."""

    application: Application
    hub: Hub
    options: TransportOptions
    counters: TransportCounters
    pressure: Pressure
    heartbeat: Heartbeat
    places: Places
    arriving: Arriving
    refusals: Refusals
    loop: asyncio.AbstractEventLoop

    def new_id(self) -> str:
        """A fresh, unguessable id."""
        ...

    def forget(self, session: SessionT_contra) -> None:
        """The session is over: no request finds it any more."""
        ...

    def claim(self, session: SessionT_contra, user: str) -> bool:
        """The session is a user's; False: the user has too many."""
        ...

    def release(self, session: SessionT_contra) -> None:
        """The session has no connection left: nobody knows whose it is."""
        ...

    def settled(self, session: SessionT_contra) -> None:
        """What a session that is over had taken in is handled."""
        ...
