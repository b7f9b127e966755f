"""One client in one namespace, as the application sees it."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from domain.delivery import Delivery
from fanout.hub import Hub, Outgoing
from server.transport import packets
from server.transport.caller import Caller
from server.transport.options import TransportOptions
from server.transport.outbound import Outbound

HELD_SECONDS = 0.001


class Owner(Protocol):
    """The session that a connection is one of."""

    id: str
    caller: Caller
    out: Outbound
    direct: Callable[[bytes], object] | None
    """How its connections are written to; None: through `deliver`."""

    @property
    def hub(self) -> Hub:
        """The rooms its connections are in."""
        ...

    @property
    def options(self) -> TransportOptions:
        """The transport's limits."""
        ...

    @property
    def transport(self) -> str:
        """`websocket` or `polling`."""
        ...

    def claim(self, user: str) -> bool:
        """It is this user's. False: the user has too many sessions."""
        ...

    def overflow_soon(self) -> None:
        """The client takes too little; close the session when the loop turns next."""
        ...

    def close(self, code: str, *, reconnect: bool) -> None:
        """Say `closing`, send what is queued, end."""
        ...


class ClientConnection:
    """Implements `application.Connection` for the application, `hub.Subscriber` for the hub."""

    __slots__ = (
        "_held",
        "_held_size",
        "_session",
        "accepted",
        "closed",
        "direct",
        "id",
        "namespace",
        "state",
    )

    def __init__(self, session: Owner, connection_id: str, namespace: str) -> None:
        self.id = connection_id
        self.namespace = namespace
        self.state: Any = None
        self.direct: Callable[[bytes], object] | None = None
        self.closed = False
        self.accepted = False
        """Whether the CONNECT reply has left."""
        self._session = session
        self._held: list[Outgoing] | None = []
        """What was sent before the CONNECT reply, to follow it."""
        self._held_size = 0

    @property
    def session_id(self) -> str:
        return self._session.id

    @property
    def transport(self) -> str:
        return self._session.transport

    @property
    def remote(self) -> str:
        return self._session.caller.address

    @property
    def user_agent(self) -> str:
        return self._session.caller.user_agent

    def claim(self, user: str) -> bool:
        return self._session.claim(user)

    def emit(
        self,
        event: str,
        *args: Any,
        delivery: Delivery = Delivery.DURABLE,
        key: str | None = None,
    ) -> None:
        if self.closed:
            return
        frames = packets.encode_arguments(packets.EVENT, self.namespace, b"", (event, *args))
        full_key = (self.namespace, event, key or "") if delivery is Delivery.LATEST else None
        self.send(Outgoing(frames, delivery, full_key))

    def acknowledge(self, ack: bytes, args: Collection[Any]) -> None:
        """Answer an event that asked for it; raises TypeError if `args` cannot be sent."""
        if self.closed:
            return
        frames = packets.encode_arguments(packets.ACK, self.namespace, ack, tuple(args))
        self.send(Outgoing(frames, Delivery.DURABLE, None))

    def send(self, event: Outgoing) -> None:
        """Send to this connection alone, after what its rooms have published so far."""
        self._session.hub.send(self, event)

    def deliver(self, events: Collection[Outgoing]) -> None:
        if self.closed:
            return
        if self._held is None:
            self._session.out.deliver(events)
            return
        self._held.extend(events)
        self._held_size += sum([len(event.data) for event in events])
        options = self._session.options
        if self._held_size > options.max_queue + options.max_held:
            self._session.overflow_soon()

    def accept(self) -> None:
        """Send the CONNECT reply, then what was held for it."""
        reply = packets.connected(self.namespace, self.id)
        self._session.out.send(Outgoing(reply, Delivery.DURABLE, None))
        self.accepted = True
        if self._held:
            # In a read of its own: a client that sets up its listeners on the reply, as the
            # official test suite does, would miss what comes in the same one.
            asyncio.get_running_loop().call_later(HELD_SECONDS, self._release)
        else:
            self._release()

    def _release(self) -> None:
        held, self._held = self._held or [], None
        if not self.closed:
            self._session.out.replay(held, self._held_size)
            self.direct = self._session.direct

    def close(self, code: str, *, reconnect: bool) -> None:
        self._session.close(code, reconnect=reconnect)

    @property
    def holding(self) -> bool:
        """Whether the connection still holds events back."""
        return self._held is not None

    def flush(self) -> None:
        """Send what its rooms have for it and what it holds, so that what comes next is later."""
        self._session.hub.settle(self)
        if self.accepted and self._held is not None:
            self._release()

    def end(self) -> None:
        """Nothing is sent to it any more."""
        self.closed = True
        self.direct = None
        self._session.hub.drop(self)
