"""The sending half of a session: straight to the socket, or through a bounded queue."""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from domain.delivery import Delivery
from fanout.hub import Outgoing
from server.transport.frames import close_frame
from server.transport.outbox import Outbox
from server.transport.packets import NOOP_FRAME, encode_payload
from server.transport.pressure import Pressure


class Owner(Protocol):
    """The session a sending half belongs to."""

    def set_direct(self, direct: Callable[[bytes], object] | None) -> None:
        """How the session's connections are written to from now on; None: through `deliver`."""
        ...

    def overflow(self) -> None:
        """The client is too slow; the session is to be closed."""
        ...


class _Nobody:
    """The owner of a sending half whose session is over."""

    def set_direct(self, direct: Callable[[bytes], object] | None) -> None:
        """No connection is left."""

    def overflow(self) -> None:
        """It is closed already."""


_NOBODY = _Nobody()


class Outbound:
    """Where a session's frames go.

    With a websocket that takes them, to its transport. Otherwise to a queue: for a websocket
    under back-pressure until the transport has room again, for a polling client until it fetches.
    """

    __slots__ = (
        "_allowance",
        "_ended",
        "_outbox",
        "_overflowed",
        "_owner",
        "_paused",
        "_poll",
        "_pressure",
        "_socket",
    )

    def __init__(self, owner: Owner, pressure: Pressure) -> None:
        self._owner: Owner = owner
        self._pressure = pressure
        self._socket: asyncio.Transport | None = None
        self._outbox: Outbox | None = None
        self._poll: asyncio.Future[None] | None = None
        self._paused = False
        self._allowance = 0
        """Bytes that may wait beyond `max_queue`, until nothing waits."""
        self._overflowed = False
        self._ended: bytes | None = None
        """What goes out last, once the queue is empty; nothing is accepted after it."""

    @property
    def waiting(self) -> int:
        """Bytes not yet handed to the kernel."""
        queued = self._outbox.size if self._outbox is not None else 0
        if self._socket is not None and not self._socket.is_closing():
            queued += self._socket.get_write_buffer_size()
        return queued

    @property
    def polling(self) -> bool:
        """Whether the client fetches what is sent."""
        return self._socket is None

    def attach(self, socket: asyncio.Transport) -> None:
        """Send through a websocket's transport from now on, first what was queued."""
        self._socket = socket
        self.release_poll()
        self._drain()

    def detach(self) -> None:
        """The websocket is gone, or the session is over: nothing is sent any more."""
        self._ended = b""
        self._socket = None
        self._forget()
        self.release_poll()
        self._owner.set_direct(None)
        # The session would be kept by what it keeps.
        self._owner = _NOBODY

    def send(self, event: Outgoing) -> None:
        """Send one event after everything sent before."""
        if self._ended is not None:
            return
        if self._socket is not None and not self._paused and not self._outbox:
            self._socket.write(event.data)
        else:
            self._queue(event)
            self._wake()

    def deliver(self, events: Collection[Outgoing]) -> None:
        """Send a room's events when they cannot be written at once."""
        if self._ended is not None:
            return
        if self._socket is not None and not self._paused and not self._outbox:
            self._socket.write(b"".join([event.data for event in events]))
            return
        for event in events:
            self._queue(event)
        self._wake()

    def replay(self, events: Collection[Outgoing], size: int) -> None:
        """Send what a connection missed, `size` bytes that are bounded where they were gathered:
        a client that comes back for it must not be sent away for their number.
        """
        if self._socket is None or self._paused or self._outbox:
            most = 2 * self._pressure.options.max_held
            self._allowance = min(self._allowance + size, most)
        self.deliver(events)

    def _queue(self, event: Outgoing) -> None:
        outbox = self._outbox
        if outbox is None:
            outbox = self._outbox = Outbox()
        options = self._pressure.options
        pressure = self._paused or outbox.size > options.high_water
        before = outbox.size
        lost = outbox.put(event, pressure=pressure)
        if lost is Delivery.VOLATILE:
            self._pressure.counters.dropped += 1
            return
        if lost is Delivery.LATEST:
            self._pressure.counters.coalesced += 1
        self._pressure.add(self)
        self._pressure.queued(outbox.size - before)
        if outbox.size > options.max_queue + self._allowance and not self._overflowed:
            # Not at once: a room may be in the middle of its members.
            self._overflowed = True
            asyncio.get_running_loop().call_soon(self.overflow)

    def overflow(self) -> None:
        """Give the session up as a slow consumer."""
        self._owner.overflow()

    def pause(self) -> None:
        """The socket's buffer is above its high-water mark."""
        self._paused = True
        self._owner.set_direct(None)
        self._pressure.add(self)

    def resume(self) -> None:
        """The socket's buffer has room again."""
        self._paused = False
        self._drain()

    def _drain(self) -> None:
        socket = self._socket
        if socket is None:
            return
        while self._outbox and not self._paused:
            socket.write(b"".join(self._take(self._pressure.options.high_water)))
        if self._paused or socket.is_closing():
            return
        self._forget()
        if self._ended is None:
            self._owner.set_direct(socket.write)
        elif self._ended:
            socket.write(self._ended)
            self._ended = b""
            if socket.can_write_eof():
                try:
                    socket.write_eof()
                except OSError:
                    # The peer is gone, and the loop has not told us yet.
                    socket.abort()
            else:
                socket.close()

    def _take(self, limit: int) -> list[bytes]:
        assert self._outbox is not None
        before = self._outbox.size
        taken = self._outbox.take(limit)
        self._pressure.queued(self._outbox.size - before)
        return taken

    def _forget(self) -> None:
        if self._outbox is not None:
            self._pressure.queued(-self._outbox.size)
            self._outbox = None
        self._allowance = 0
        self._pressure.remove(self)

    def end(self, last: bytes, code: int, *, flush: bool) -> None:
        """Send `last`, then close: an Engine.IO close, or a websocket close frame with `code`.

        With `flush` it comes after everything queued, otherwise what is queued here is dropped;
        what the socket's own buffer holds stays either way.
        """
        if self._ended is not None:
            return
        if not flush and self._outbox is not None:
            self._pressure.queued(-self._outbox.size)
            self._outbox = None
        if self._socket is None:
            if last:
                self.send(Outgoing(last, Delivery.DURABLE, None))
            # For a client in the middle of its upgrade, which fetches no more.
            self._ended = close_frame(code)
            self.release_poll()
            return
        self._ended = last + close_frame(code)
        self._owner.set_direct(None)
        if not flush:
            self._paused = False
        self._drain()

    # Polling.

    @property
    def poll_waiting(self) -> bool:
        """Whether a request is waiting for something to send."""
        return self._poll is not None

    @property
    def queued(self) -> bool:
        """Whether there is something to fetch."""
        return bool(self._outbox)

    async def wait(self) -> None:
        """Return once there is something to fetch, or `release_poll` is called."""
        if not self._outbox and self._ended is None and self._socket is None:
            self._poll = asyncio.get_running_loop().create_future()
            try:
                await self._poll
            finally:
                self._poll = None

    def fetch(self) -> bytes:
        """The body of a polling response: what is queued, bounded in bytes, or a bare NOOP."""
        if not self._outbox or self._socket is not None:
            return encode_payload([NOOP_FRAME])
        items = self._take(self._pressure.options.max_payload)
        if not self._outbox:
            self._forget()
        return encode_payload(items)

    def release_poll(self) -> None:
        """Let a waiting polling request go."""
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def _wake(self) -> None:
        if self._poll is not None and self._outbox:
            self.release_poll()
