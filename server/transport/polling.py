"""The polling transport: what one HTTP request brings or fetches."""

import asyncio

from aiohttp import web

from server.transport.packets import SEPARATOR, MalformedPacket, decode_base64
from server.transport.session import Session


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
    try:
        body = await _read(session, request)
        if session.closing:
            raise PollingError("the session has ended")
        try:
            for packet in body.split(SEPARATOR):
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


async def _read(session: Session, request: web.Request) -> bytes:
    limit = session.options.max_frame
    if (request.content_length or 0) > limit:
        session.fail("request too large")
        raise PollingError("too large", status=413)
    body = bytearray()
    silence = session.options.ping_interval + session.options.ping_timeout
    try:
        async with asyncio.timeout(silence):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > limit:
                    session.fail("request too large")
                    raise PollingError("too large", status=413)
    except TimeoutError:
        session.fail("a request's body did not come")
        raise PollingError("the body did not come", status=408) from None
    return bytes(body)
