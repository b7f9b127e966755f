"""The websocket transport: a protocol of its own on the connection that aiohttp accepted.

aiohttp reads and routes the handshake request. Then the connection is taken out of its hands:
its request handler, parser and task, 10 kB and more for each connection, are let go, and bytes
come straight to `WebSocket`. See docs/decisions/0002-own-transport.md.
"""

import asyncio
import base64
import hashlib
import socket
from typing import cast

from aiohttp import hdrs, web

from server.transport import frames
from server.transport.arriving import Crowded, Share
from server.transport.frames import FrameError, FrameReader, text_frame
from server.transport.large import ANSWERED, PREFIX, Place
from server.transport.packets import MalformedPacket
from server.transport.session import Session

_UNSENT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
"""The option that bounds what the kernel holds and has not sent yet; in Linux and macOS."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class BadHandshake(Exception):
    """The request asks for a websocket in a way RFC 6455 does not allow."""


def is_upgrade(request: web.Request) -> bool:
    """Whether the request asks to become a websocket."""
    return (
        request.headers.get(hdrs.UPGRADE, "").strip().lower() == "websocket"
        and "upgrade" in request.headers.get(hdrs.CONNECTION, "").lower()
    )


def accept_response(request: web.Request) -> bytes:
    """The bytes that accept a websocket request (RFC 6455, 4.2.2), without extensions.

    Raises BadHandshake for another version or a key that is none.
    """
    if request.headers.get(hdrs.SEC_WEBSOCKET_VERSION) != "13":
        raise BadHandshake("websocket version 13 only")
    key = request.headers.get(hdrs.SEC_WEBSOCKET_KEY, "")
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        valid = False
    if not valid:
        raise BadHandshake("not a websocket key")
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
    )


class Taken(web.StreamResponse):
    """What a handler returns whose connection is no longer aiohttp's: nothing is written."""

    def __init__(self) -> None:
        super().__init__(status=101)

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write no head."""
        return

    async def write_eof(self, data: bytes = b"") -> None:
        """Write no end."""
        return


class _Behind:
    """Stands in as the handler's parser to be given what came behind the handshake request."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Nothing waits for the end."""


def take_over(request: web.Request, protocol: "WebSocket", head: bytes) -> Taken:
    """Write `head` and make `protocol` the connection's protocol instead of aiohttp's.

    Raises ConnectionResetError if the client is already gone.
    """
    handler = request.protocol
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client left during its handshake")
    behind = _Behind()
    handler.set_parser(behind)  # type: ignore[arg-type]
    # Without a transport, the handler's own end does not close the connection.
    handler.transport = None
    transport.set_protocol(protocol)
    handler.connection_lost(None)
    transport.write(head)
    protocol.connection_made(transport)
    if behind.data:
        protocol.data_received(behind.data)
    return Taken()


class WebSocket(asyncio.Protocol):
    """One websocket: the transport of a session, or of one about to be upgraded to it."""

    __slots__ = (
        "_blocked",
        "_place",
        "_probing",
        "_reader",
        "_share",
        "_timer",
        "_transport",
        "session",
    )

    def __init__(self, session: Session, *, probing: bool) -> None:
        self.session: Session | None = session
        self._reader = FrameReader(session.options.max_frame, self._admit)
        self._place: Place | None = None
        """Of a large packet that is coming."""
        self._share: Share | None = None
        """Of what is on its way, while a message has not come whole."""
        self._transport: asyncio.Transport | None = None
        self._probing = probing
        self._blocked = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods but not the base class.
        transport = cast(asyncio.Transport, transport)
        session = self.session
        if session is None:
            transport.abort()
            return
        self._transport = transport
        high = session.options.high_water
        transport.set_write_buffer_limits(high=high, low=high // 4)
        if _UNSENT is not None:
            # Otherwise the kernel takes megabytes for a client that reads nothing, and long goes
            # by before anybody notices.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _UNSENT, high)
        if self._probing:
            self._timer = asyncio.get_running_loop().call_later(
                session.options.upgrade_timeout, self.abort
            )
        else:
            session.socket = self
            session.out.attach(transport)

    def pause_writing(self) -> None:
        if self.session is not None and not self._probing:
            self.session.out.pause()

    def resume_writing(self) -> None:
        if self.session is not None and not self._probing:
            self.session.out.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        session, self.session = self.session, None
        self._transport = None
        # It knows this object, which would be kept by it.
        self._reader = FrameReader(0)
        self._leave_place()
        self._leave_share()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if session is None:
            return
        if session.upgrading is self:
            session.upgrading = None
        if not self._probing:
            session.socket = None
            session.socket_lost()

    def abort(self) -> None:
        """Cut the connection off; what is not sent yet is lost."""
        if self._transport is not None:
            self._transport.abort()

    def resume_input(self) -> None:
        """The session has room again."""
        if self._blocked and self._transport is not None and not self._transport.is_closing():
            self._blocked = False
            self._transport.resume_reading()
            self._consume()
            self._account()

    def data_received(self, data: bytes) -> None:
        session = self.session
        if session is None:
            return
        self._reader.feed(data)
        if not self._blocked:
            self._consume()
        self._account()

    def _account(self) -> None:
        """Account for what is held of messages that have not come whole."""
        held, session = self._reader.held, self.session
        if not held or session is None or session.closing:
            self._leave_share()
            return
        if self._share is None:
            self._share = session.arriving()
        try:
            self._share.hold(held)
        except Crowded:
            self._leave_share()
            if self._probing:
                self.refuse(frames.TRY_AGAIN)
            else:
                session.crowded()

    def _leave_share(self) -> None:
        if self._share is not None:
            self._share.leave()
            self._share = None

    def _consume(self) -> None:
        session = self.session
        try:
            for opcode, payload in self._reader.messages():
                if session is None or self.session is not session:
                    return
                if opcode in (frames.TEXT, frames.BINARY):
                    if self._probing:
                        self._probe(opcode, payload)
                    else:
                        place, self._place = self._place, None
                        session.receive(opcode == frames.BINARY, payload, place)
                        if session.blocked and not session.closing:
                            self._block()
                            return
                elif opcode < 0:
                    binary = opcode == frames.PASSED_OVER_BINARY
                    session.pass_over(binary, payload, self._reader.passed)
                    if session.blocked and not session.closing:
                        self._block()
                        return
                else:
                    self._control(session, opcode, payload)
        except FrameError as error:
            self._fail(str(error), error.code)
        except MalformedPacket as error:
            self._fail(str(error), frames.INVALID_DATA)

    def _admit(self, opcode: int, start: bytes, size: int) -> bool:
        """Whether a message beyond `max_frame` is taken (`FrameReader`)."""
        session = self.session
        binary = opcode == frames.BINARY
        if self._probing or session is None:
            raise FrameError(frames.TOO_BIG, "the message is too large")
        if not (session.attaching if binary else start in ANSWERED):
            raise FrameError(frames.TOO_BIG, "the message is too large")
        if binary or start != PREFIX:
            return False
        self._place = session.admit_large(size, self._place)
        return self._place is not None

    def _leave_place(self) -> None:
        if self._place is not None:
            self._place.leave()
            self._place = None

    def _block(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._blocked = True
            self._transport.pause_reading()

    def _control(self, session: Session, opcode: int, payload: bytes) -> None:
        session.count_frame()
        if opcode == frames.PING:
            if self._transport is not None and not session.closing:
                session.send_frame(frames.pong_frame(payload))
        elif opcode == frames.CLOSE and self._transport is not None:
            if session.closing:
                self._transport.close()
                return
            code = frames.judge_close(payload)
            if self._probing:
                self.refuse(code)
            else:
                session.lost("transport close", code)

    def _fail(self, message: str, code: int) -> None:
        session = self.session
        if session is None:
            return
        if self._probing:
            self.refuse(code)
        elif session.closing:
            # It cannot be understood any more, so its own close would not be seen either.
            session.finish()
        else:
            session.fail(message, code)

    def refuse(self, code: int = frames.NORMAL) -> None:
        """Close without ever having been a session's transport."""
        if self.session is not None and self.session.upgrading is self:
            self.session.upgrading = None
        self.session = None
        if self._transport is not None:
            self._transport.write(frames.close_frame(code))
            self._transport.close()

    def _probe(self, opcode: int, payload: bytes) -> None:
        """The upgrade from polling (engine.io-protocol, "Upgrade")."""
        session = self.session
        transport = self._transport
        if session is None or transport is None:
            return
        first = session.upgrading is None and not session.closing
        if session.socket is not None or not (first or session.upgrading is self):
            # Another one was quicker, or it is too late.
            self.refuse()
        elif opcode == frames.TEXT and payload == b"2probe":
            transport.write(text_frame(b"3probe"))
            session.upgrading = self
            session.out.release_poll()
        elif opcode == frames.TEXT and payload == b"5" and session.upgrading is self:
            self._probing = False
            session.upgrading = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            session.socket = self
            session.out.attach(transport)
        else:
            raise MalformedPacket("not a probe")
