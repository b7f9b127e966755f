"""The polling transport: what one HTTP request brings or fetches."""

import asyncio

from aiohttp import web

from server.transport.large import HEAD, MAX_PASSED_OVER, PREFIX, Place
from server.transport.packets import SEPARATOR, MalformedPacket, decode_base64
from server.transport.session import Session

MAX_PACKETS = 64
"""Of a request beyond `max_frame`; clients send one, or those that connect their namespaces."""


class PollingError(Exception):
    """A request that is refused; the session is ended by it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


async def fetch(session: Session, request: web.Request) -> bytes:
    """The body of a GET: what the session has to send, as soon as there is something.

    Raises PollingError if the client already has such a request waiting.
    """
    if session.out.poll_waiting:
        session.lost("transport error")
        raise PollingError("two requests wait for packets at once")
    if session.upgrading is None:
        await session.out.wait()
    if request.transport is None or request.transport.is_closing():
        # What is queued would be lost with the response.
        session.lost("transport close")
        session.finish()
        raise PollingError("the client left")
    body = session.out.fetch()
    if session.closing and not session.out.queued:
        session.finish()
    return body


async def bring(session: Session, request: web.Request) -> None:
    """Take in the packets of a POST, and return when the session has room for the next.

    Raises PollingError for a body that is too large, malformed or late, or a second POST at once.
    """
    if session.posting:
        session.lost("transport error")
        raise PollingError("two requests bring packets at once")
    session.posting = True
    reading = _Reading(session, request)
    try:
        body = await reading.read()
        if session.closing:
            raise PollingError("the session has ended")
        try:
            if reading.passed_over is not None:
                session.refuse_large(reading.passed_over)
                return
            large = len(body) > session.options.max_frame
            if large and body.count(SEPARATOR) >= MAX_PACKETS:
                raise MalformedPacket("too many packets in a large request")
            for packet in body.split(SEPARATOR):
                if len(packet) > session.options.max_frame and packet[:2] != PREFIX:
                    raise MalformedPacket("a packet too large behind a CONNECT")
                if packet[:1] == b"b":
                    session.receive(True, decode_base64(packet[1:]))
                else:
                    session.receive(False, packet)
        except MalformedPacket as error:
            session.fail(str(error))
            raise PollingError(str(error)) from None
        await session.has_room()
    finally:
        session.posting = False
        reading.leave()


class _Reading:
    """The body of a POST as it comes in."""

    def __init__(self, session: Session, request: web.Request) -> None:
        self._session = session
        self._request = request
        self._place: Place | None = None
        self._body = bytearray()
        self.passed_over: bytes | None = None
        """The beginning of a body that was passed over."""

    async def read(self) -> bytes:
        """The body; raises PollingError if it is too large or late."""
        session, content = self._session, self._request.content
        size = self._request.content_length or 0
        came = 0
        silence = session.options.ping_interval + session.options.ping_timeout
        try:
            async with asyncio.timeout(silence):
                self._check(size)
                while chunk := await content.readany():
                    came += len(chunk)
                    if self.passed_over is None:
                        self._body += chunk
                    self._check(max(size, came))
        except TimeoutError:
            session.fail("a request's body did not come")
            raise PollingError("the body did not come", status=408) from None
        except MalformedPacket as error:
            session.fail(str(error))
            raise PollingError(str(error)) from None
        return bytes(self._body)

    def _check(self, size: int) -> None:
        session = self._session
        if size <= session.options.max_frame:
            return
        begins = self.passed_over or self._body
        if size > MAX_PASSED_OVER or not PREFIX.startswith(begins[:2]):
            session.fail("request too large")
            raise PollingError("too large", status=413)
        if self.passed_over is None and len(begins) >= HEAD:
            self._place = session.admit_large(size, self._place)
            if self._place is None:
                self.passed_over = bytes(begins[:HEAD])
                self._body.clear()

    def leave(self) -> None:
        """The packets are handled, or nearly."""
        if self._place is not None:
            self._place.leave()
            self._place = None
