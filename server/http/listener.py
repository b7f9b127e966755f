"""Taking connections: a peer has so long to say what it wants, and to take what it asked for."""

import asyncio
import functools
import math
import socket
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from domain.errors import Internal, Invalid
from domain.ids import new_id
from server.http.accepting import Acceptor
from server.http.base_path import below
from server.http.departing import Departing
from server.http.door import Door
from server.http.problems import problem
from server.transport.arriving import Arriving, Crowded, Share

log = structlog.get_logger(__name__)

HEAD_SECONDS = 15.0
"""For a request's head: from the connection's begin, or from its own first bytes on a connection
that has served one. Bodies have limits of their own."""

MAX_HEAD = 64 * 1024
"""Bytes of a request's head that has not come whole: what is longer is no client's."""

MAX_BEHIND = 64 * 1024
"""Bytes that may come behind a request that is being answered: hardly any client sends the next one
before it has the answer, and nobody would read it."""

BUFFER = 32 * 1024
"""Bytes of a body that nobody reads at the time; twice as many, and the connection is read no further."""

KEEP_ALIVE = 75.0
"""Seconds that a connection may be idle between requests: longer than proxies keep theirs."""

STALL_SECONDS = 60.0
"""Within which a peer must take something of a response that waits for it."""

STILL_SECONDS = 3.0
"""While the server stops: within which a body that has not come whole must come further. Nobody who begins
a request and says no more holds a stop up."""

CUT_OFF_SECONDS = 1.0
"""For a request to end that is cut off because the server stops."""

BACKLOG = 4096

EVERY_ADDRESS = "::"
"""The host that stands for all addresses of this machine, of IPv4 too where the system can do both
with one socket."""


@dataclass(slots=True)
class Deadline:
    """By when requests have to be over, in the loop's time; set when the server is told to stop."""

    at: float = math.inf


class HttpConnection(web.RequestHandler):
    """One connection, as long as it speaks HTTP."""

    __slots__ = (
        "_arriving",
        "_begun",
        "_behind",
        "_deadline",
        "_departing",
        "_door",
        "_head_seconds",
        "_head_size",
        "_head_timer",
        "_heard",
        "_share",
        "_stall_seconds",
        "_stall_timer",
        "_still_seconds",
    )

    def __init__(
        self,
        server: web.Server,
        *,
        head_seconds: float = HEAD_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        still_seconds: float = STILL_SECONDS,
        door: Door | None = None,
        arriving: Arriving | None = None,
        departing: Departing | None = None,
        deadline: Deadline | None = None,
        **options: Any,
    ) -> None:
        super().__init__(server, **options)
        self._departing = departing
        self._arriving = arriving
        self._share: Share | None = None
        """Of what is on its way, while a head has not come whole."""
        self._deadline = deadline or Deadline()
        self._door = door
        self._behind = 0
        """Bytes that came behind the request that was answered last, or is."""
        self._begun = 0
        """How many requests had been begun with that one."""
        self._head_size = 0
        """Bytes of a head that has not come whole."""
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._heard = False
        """Whether something came since `_watch_body` looked."""
        self._stall_seconds = stall_seconds
        self._still_seconds = still_seconds
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_head()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what cannot be taken for a request; aiohttp says it in HTML."""
        super().handle_error(request, status, exc, message)
        error = Invalid("This is no HTTP request.") if status < 500 else Internal()
        request_id = new_id()
        response = problem(error, request_id, status)
        response.headers["X-Request-ID"] = request_id
        response.force_close()
        return response

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        self._leave_share()
        self._drained()
        if self._door is not None:
            self._door.leave(self)
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """The server stops: the request that is handled has so many seconds, none beyond the
        deadline, and is cut off then.
        """
        left = max(self._deadline.at - self._loop.time(), 0.1)
        if timeout is not None:
            left = min(left, timeout)
        watching = self._loop.create_task(self._watch_body()) if self._coming else None
        try:
            async with asyncio.timeout(left):
                await super().shutdown(left)
        except TimeoutError:
            await self._cut_off()
        finally:
            if watching is not None:
                watching.cancel()

    async def _cut_off(self) -> None:
        request, task = self._current_request, self._task_handler
        if request is not None:
            log.warning("request_cut_off", method=request.method, path=request.path)
        if self.transport is not None:
            self.transport.abort()  # to close it would wait for a peer that takes nothing
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=CUT_OFF_SECONDS)
        self.force_close()

    @property
    def _coming(self) -> bool:
        """Whether a request is handled whose body has not come whole."""
        request = self._current_request
        return request is not None and not request.content.is_eof()

    async def _watch_body(self) -> None:
        while self._coming:
            self._heard = False
            await asyncio.sleep(self._still_seconds)
            if not self._heard and not self._reading_paused:
                self.force_close()
                return

    def data_received(self, data: bytes) -> None:
        self._heard = True
        heads, idle = self._request_count, self._idle
        if self._answering:
            begun = heads - len(self._messages)
            if begun != self._begun:
                self._begun, self._behind = begun, 0
            self._behind += len(data)
            if self._behind > MAX_BEHIND:
                self.force_close()
                return
        self._parse(data)
        if self._request_count != heads:
            self._stop_waiting()
            self._leave_share()
            self._head_size = 0
        elif idle:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self._refuse_head(b"431 Request Header Fields Too Large")
            elif not self._hold_head():
                self._refuse_head(b"503 Service Unavailable\r\nRetry-After: 1")
            elif self._head_timer is None:
                self._await_head()

    def _parse(self, data: bytes) -> None:
        closing = self._close, self._force_close
        if any(closing) and self._coming and self.transport is not None:
            # The server stops. aiohttp takes nothing more then, and a request whose body is on its
            # way would be waited for and could never be answered.
            self._close = self._force_close = False
            super().data_received(data)
            self._close, self._force_close = closing
        else:
            super().data_received(data)

    @property
    def _answering(self) -> bool:
        """Whether a request is handled that has come whole."""
        request = self._current_request
        return request is not None and request.content.is_eof()

    def _hold_head(self) -> bool:
        """Account for the head that has not come whole; whether there was room for it."""
        if self._arriving is None or not self._head_size:
            return True
        if self._share is None:
            self._share = self._arriving.share(stranger=True)
        try:
            self._share.hold(self._head_size)
        except Crowded:
            return False
        return True

    def _leave_share(self) -> None:
        if self._share is not None:
            self._share.leave()
            self._share = None

    def _refuse_head(self, status: bytes) -> None:
        self._leave_share()
        if self.transport is not None:
            self.transport.write(
                b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status
            )
        self.force_close()

    @property
    def idle(self) -> bool:
        """Whether it waits for a request: none is handled, and none has come whole."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def _idle(self) -> bool:
        """The same, also before it began to wait for its first."""
        return self._request_count == 0 or self.idle

    def end(self) -> None:
        """Close the connection: others need its place, or the room that its answer takes."""
        if self._stall_timer is not None and self.transport is not None:
            self.transport.abort()
        self.force_close()

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self._head_seconds, self._head_late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if self._idle:
            self.force_close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._drained()

    def _watch_writing(self) -> None:
        if self.transport is not None:
            size = self.transport.get_write_buffer_size()
            self._stall_timer = self._loop.call_later(
                self._stall_seconds, self._look_at_writing, size
            )
            if self._departing is not None:
                self._departing.hold(self, size)

    def _look_at_writing(self, before: int) -> None:
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size() >= before:
            transport.abort()
        else:
            self._watch_writing()

    def _drained(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        if self._departing is not None:
            self._departing.leave(self)


async def listen(
    runner: web.AppRunner,
    host: str,
    port: int,
    *,
    base_path: str = "",
    reuse_port: bool = False,
    head_seconds: float = HEAD_SECONDS,
    stall_seconds: float = STALL_SECONDS,
    still_seconds: float = STILL_SECONDS,
    door: Door | None = None,
    arriving: Arriving | None = None,
    departing: Departing | None = None,
    deadline: Deadline | None = None,
) -> Acceptor:
    """Serve the application of a runner that is set up; close what is returned to take no more
    connections. The runner's own cleanup ends those that are there.

    Args:
        base_path: left out of the addresses of requests that have it.
        door: who may come in; None: everybody.
        arriving: where heads are counted that have not come whole; None: nowhere.
        deadline: of what is handled when the runner is cleaned up; None: its own timeout.
        departing: where answers are counted that wait for their peers; None: nowhere.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = runner.server
    assert server is not None
    server.request_factory = below(base_path, server.request_factory)
    loop = asyncio.get_running_loop()
    connection = functools.partial(
        HttpConnection,
        server,
        loop=loop,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE,
        read_bufsize=BUFFER,
        auto_decompress=False,  # who reads a body unpacks it: `server.transport.unpacking`
        head_seconds=head_seconds,
        stall_seconds=stall_seconds,
        still_seconds=still_seconds,
        door=door,
        arriving=arriving,
        departing=departing,
        deadline=deadline,
    )
    return Acceptor(_bind(host, port, reuse_port), connection, door)


def _bind(host: str, port: int, reuse_port: bool) -> list[socket.socket]:
    if host == EVERY_ADDRESS and socket.has_dualstack_ipv6():
        return [
            socket.create_server(
                (host, port),
                family=socket.AF_INET6,
                backlog=BACKLOG,
                reuse_port=reuse_port,
                dualstack_ipv6=True,
            )
        ]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, where in dict.fromkeys((family, where) for family, *_, where in found):
            bound.append(
                socket.create_server(where, family=family, backlog=BACKLOG, reuse_port=reuse_port)
            )
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound
