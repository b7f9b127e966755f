"""Taking connections from sockets that listen, also when file descriptors run out.

The event loops' own servers do not do: when there are no descriptors left, uvloop's says nothing,
and whoever has taken the last ones leaves none to the store.
"""

import asyncio
import errno
import resource
import socket
import time
from collections.abc import Callable
from typing import cast

import structlog

from server.http.door import Door, Visitor

log = structlog.get_logger(__name__)

BATCH = 64
"""Connections taken in one turn of the loop."""

RESERVE = 64
"""File descriptors that connections leave for the store, uploads, and the ways to other nodes."""

PAUSE_SECONDS = 0.2
"""Until the next attempt after descriptors or memory ran out; who comes waits in the backlog."""

LOG_SECONDS = 60.0
"""Between two log entries of that."""

LAST_SECONDS = 1.0
"""For somebody who is refused to read why, then the connection is cut."""

MAX_REFUSING = 256
"""Connections that may wait for that at a time; further ones are closed at once."""

_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Listens until it is closed.

    Args:
        sockets: bound and listening; they belong to this object from now on.
        make: makes the protocol of a connection, a `Visitor` if there is a door.
        door: who may come in; None: everybody.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        make: Callable[[], asyncio.BaseProtocol],
        door: Door | None = None,
    ) -> None:
        self.sockets = sockets
        self._make = make
        self._door = door
        self._files = 0
        """Descriptors from this number on are not for connections."""
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._refusing: set[_Refusal] = set()
        self._waiting: set[asyncio.TimerHandle] = set()
        self._logged: float | None = None
        self._not_logged = 0
        for each in sockets:
            each.setblocking(False)
            self._loop.add_reader(each, self._accept, each)

    def close(self) -> None:
        """Take no more connections; those that are there stay."""
        for handle in self._waiting:
            handle.cancel()
        for each in self.sockets:
            if each.fileno() >= 0:
                self._loop.remove_reader(each)
                each.close()

    def _accept(self, listening: socket.socket) -> None:
        most = file_limit()
        self._files = most - min(RESERVE, most // 4)
        for _ in range(BATCH):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SHORT:
                    self._wait(listening, error)
                    return
                continue  # this one left before it was taken
            self._open(connection, peer[0])

    def _open(self, connection: socket.socket, address: str) -> None:
        connection.setblocking(False)
        door = self._door
        if connection.fileno() >= self._files:
            self._tell("file descriptors run out")
            if door is None or not door.make_room():
                if door is not None:
                    door.refuse("files", address)
                connection.close()
                return
        protocol = self._make()
        visitor = None if door is None else cast(Visitor, protocol)
        if (
            door is not None
            and visitor is not None
            and (refused := door.enter(visitor, address) or b"")
        ):
            self._refuse(connection, refused)
            return
        self._begin(connection, protocol, visitor)

    def _refuse(self, connection: socket.socket, answer: bytes) -> None:
        if len(self._refusing) >= MAX_REFUSING:
            connection.close()
        else:
            self._begin(connection, _Refusal(answer, self._refusing), None)

    def _begin(
        self,
        connection: socket.socket,
        protocol: asyncio.BaseProtocol,
        visitor: Visitor | None,
    ) -> None:
        task = self._loop.create_task(self._connect(connection, protocol, visitor))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(
        self,
        connection: socket.socket,
        protocol: asyncio.BaseProtocol,
        visitor: Visitor | None,
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError as error:
            connection.close()
            if self._door is not None and visitor is not None:
                self._door.leave(visitor)
            log.debug("connection_not_begun", reason=error.strerror)

    def _wait(self, listening: socket.socket, error: OSError) -> None:
        """Try again a little later: the socket stays readable, and looking at it would take all
        the time there is.
        """
        self._tell(error.strerror or str(error))
        if self._door is not None:
            for _ in range(BATCH):
                if not self._door.make_room():
                    break
        self._loop.remove_reader(listening)

        def again() -> None:
            self._waiting.discard(handle)
            self._loop.add_reader(listening, self._accept, listening)

        handle = self._loop.call_later(PAUSE_SECONDS, again)
        self._waiting.add(handle)

    def _tell(self, reason: str) -> None:
        now = time.monotonic()
        if self._logged is not None and now - self._logged < LOG_SECONDS:
            self._not_logged += 1
            return
        log.error(
            "connections_not_taken",
            reason=reason,
            limit=file_limit(),
            not_logged=self._not_logged,
            hint="raise LimitNOFILE (ulimit -n), or lower PARLEY_MAX_CONNECTIONS",
        )
        self._logged, self._not_logged = now, 0


class _Refusal(asyncio.Protocol):
    """Says why somebody is not let in, and goes."""

    def __init__(self, answer: bytes, all_of_them: "set[_Refusal]") -> None:
        self._answer = answer
        self._all = all_of_them
        self._timer: asyncio.TimerHandle | None = None
        all_of_them.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods but not the base class.
        transport = cast(asyncio.Transport, transport)
        transport.write(self._answer)
        # What comes is read and passed over: left unread, it would make the kernel reset the
        # connection, and the peer might lose the answer.
        transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(LAST_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        if self._timer is not None:
            self._timer.cancel()


def file_limit() -> int:
    """How many file descriptors this process may have."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 30 if limit == resource.RLIM_INFINITY else limit


def raise_file_limit(wanted: int) -> None:
    """Have this process be allowed so many file descriptors, or as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
