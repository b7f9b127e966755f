"""The polling transport: what one HTTP request brings or fetches."""

import asyncio

from aiohttp import web

from server.transport.arriving import Crowded
from server.transport.large import ANSWERED, HEAD, MAX_PASSED_OVER, PREFIX, Place
from server.transport.packets import SEPARATOR, MalformedPacket, decode_base64
from server.transport.session import Session
from server.transport.unpacking import Body


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
    """Take in the packets of a POST as they come, and return when the session has room for more.

    Raises PollingError for a body that is too large, malformed or late, or a second POST at once.
    """
    if session.posting:
        session.lost("transport error")
        raise PollingError("two requests bring packets at once")
    session.posting = True
    reading = _Reading(session)
    try:
        await reading.read(request)
        await session.has_room()
    except Crowded as error:
        session.lost("transport error")
        raise PollingError(str(error), status=503) from None
    except MalformedPacket as error:
        session.fail(str(error))
        raise PollingError(str(error)) from None
    except web.RequestPayloadError:
        session.fail("a request's body cannot be unpacked")
        raise
    finally:
        session.posting = False
        reading.leave()


class _Reading:
    """The body of a POST, packet by packet: what a client kept while it was offline may come at
    once, and no more of it is held here than one packet.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._share = session.arriving()
        self._place: Place | None = None
        """Of a large CONNECT that is coming."""
        self._packet = bytearray()
        """What there is of the next packet; if it is passed over, its beginning."""
        self._passed = 0
        """Bytes of the next packet, if it is passed over."""

    async def read(self, request: web.Request) -> None:
        """Take in the body.

        Raises PollingError if it is too large or late, MalformedPacket for what breaks the
        protocol, Crowded if too much is on its way already, of all clients together.
        """
        session, body = self._session, Body(request)
        came = request.content_length or 0
        self._bound(came)
        came = 0
        silence = session.options.ping_interval + session.options.ping_timeout
        try:
            async with asyncio.timeout(silence) as limit:
                while chunk := await body.read():
                    came += len(chunk)
                    self._bound(came)
                    *ended, rest = chunk.split(SEPARATOR)
                    for part in ended:
                        self._add(part)
                        self._end()
                        if session.blocked:
                            left = (limit.when() or 0.0) - asyncio.get_running_loop().time()
                            limit.reschedule(None)
                            self._share.hold(len(chunk))
                            await session.has_room()
                            limit.reschedule(asyncio.get_running_loop().time() + left)
                    self._add(rest)
                    if not body.came:
                        self._share.hold(len(self._packet))
        except TimeoutError:
            session.fail("a request's body did not come")
            raise PollingError("the body did not come", status=408) from None
        self._end()

    def _bound(self, size: int) -> None:
        if size > MAX_PASSED_OVER:
            raise self._too_large()

    def _too_large(self) -> PollingError:
        self._session.fail("request too large")
        return PollingError("too large", status=413)

    def _add(self, part: bytes) -> None:
        """More of the next packet."""
        if self._passed:
            self._passed += len(part)
            return
        packet, session = self._packet, self._session
        packet += part
        size = len(packet)
        if packet[:1] == b"b":
            if size <= _encoded(session.options.max_frame):
                return
            if not session.attaching:
                raise self._too_large()
        elif size <= session.options.max_frame:
            return
        elif packet[:2] == PREFIX:
            self._place = session.admit_large(size, self._place)
            if self._place is not None:
                return
        elif packet[:2] not in ANSWERED:
            raise self._too_large()
        self._passed = size
        del packet[HEAD:]

    def _end(self) -> None:
        """The packet is whole."""
        session = self._session
        if session.closing and not session.out.queued:
            raise PollingError("the session has ended")
        # While last words wait for their fetch, what comes is passed over: refused, the client would
        # give the session up without having heard them.
        packet, passed, place = bytes(self._packet), self._passed, self._place
        self._packet.clear()
        self._passed = 0
        self._place = None
        if packet[:1] == b"b":
            content = b"" if passed else decode_base64(packet[1:])
            if content is None:
                session.pass_over_unreadable()
            elif passed or len(content) > session.options.max_frame:
                session.pass_over(True, b"", passed or len(content))
            else:
                session.receive(True, content)
        elif passed:
            session.pass_over(False, packet, passed)
        else:
            session.receive(False, packet, place)

    def leave(self) -> None:
        """The request is over; a large packet that did not come whole takes no place."""
        self._share.leave()
        if self._place is not None:
            self._place.leave()
            self._place = None


def _encoded(size: int) -> int:
    """Characters of so many bytes in base64, with line breaks."""
    return size * 3 // 2 + 16
