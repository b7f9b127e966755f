"""An Engine.IO session: one client on one transport, with its connections to namespaces."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from domain.delivery import Delivery
from fanout.hub import Hub, Outgoing
from server.transport import frames, packets
from server.transport.application import ConnectRefused
from server.transport.arriving import Share
from server.transport.assembly import Assembly
from server.transport.caller import Caller
from server.transport.connection import ClientConnection
from server.transport.intake import Intake, Job
from server.transport.large import MAX_FAILURES, PREFIX, Passed, Place
from server.transport.options import TransportOptions
from server.transport.outbound import Outbound
from server.transport.services import Services

logger = logging.getLogger(__name__)

FLOOD_WINDOW_SECONDS = 5.0

MAX_REFUSED = 50
"""Refused CONNECT packets of one session in a row; one more ends it: each may cost a look at a
token."""

_TOO_LARGE = ("too_large", "The connect packet is too large: resume fewer streams.")
_UNREADABLE = ("invalid", "The connect packet is not JSON (RFC 8259).")
_TOO_MANY = ("unavailable", "Too many large connect packets at a time: try again.")


class Socket(Protocol):
    """A websocket, as its session sees it."""

    def resume_input(self) -> None:
        """The session has room again."""
        ...

    def abort(self) -> None:
        """Cut the connection off."""
        ...


class Session:
    """Takes packets in, in order; hands frames to its sending half; ends once.

    A session is open, then closing (nothing is taken in, the last frames go out), then closed.
    """

    __slots__ = (
        "_assembly",
        "_discard",
        "_failures",
        "_intake",
        "_packets",
        "_passed",
        "_quiet",
        "_refusal",
        "_refused",
        "_services",
        "_timer",
        "_was_in",
        "_window",
        "caller",
        "closed",
        "closing",
        "connections",
        "direct",
        "id",
        "out",
        "owner",
        "page",
        "pong_due",
        "posting",
        "since",
        "socket",
        "upgrading",
    )

    def __init__(
        self, services: Services["Session"], session_id: str, caller: Caller, page: str
    ) -> None:
        self.id = session_id
        self.caller = caller
        self.page = page
        """As `OriginPolicy.page` tells it of the handshake request."""
        self.since = services.loop.time()
        self.connections: dict[str, ClientConnection] = {}
        self.socket: Socket | None = None
        self.upgrading: Socket | None = None
        self.direct: Callable[[bytes], object] | None = None
        self.out = Outbound(self, services.pressure)
        self.owner = ""
        """The user whose it is, or of the first of several; its own id if nobody said; empty: a
        stranger's."""
        self.closing = False
        self.closed = False
        self.pong_due = 0.0
        """When the answer to the last ping must have come; 0 if none is owed."""
        self.posting = False
        """Whether a polling request is bringing packets in."""
        self._services = services
        self._assembly: Assembly | None = None
        self._discard = False
        self._failures = 0
        """Large packets since one was accepted."""
        self._intake = Intake()
        self._packets = 0
        """Since `_window` began."""
        self._passed: Passed | None = None
        self._quiet = False
        """Whether packets are read and passed over, because the session ends soon."""
        self._refusal = _TOO_LARGE
        """Why a large packet is passed over that is coming."""
        self._refused = 0
        """CONNECT packets since one was accepted."""
        self._timer: asyncio.TimerHandle | None = None
        self._was_in = False
        """Whether it has had a connection."""
        self._window = self._services.loop.time()

    @property
    def hub(self) -> Hub:
        """The rooms its connections are in."""
        return self._services.hub

    @property
    def options(self) -> TransportOptions:
        """The transport's limits."""
        return self._services.options

    @property
    def transport(self) -> str:
        """`websocket` or `polling`."""
        return "polling" if self.socket is None else "websocket"

    @property
    def blocked(self) -> bool:
        """Whether nothing more is taken in until the application has caught up."""
        return self._intake.full

    # Sending.

    def set_direct(self, direct: Callable[[bytes], object] | None) -> None:
        """From the sending half: how connections are written to from now on."""
        self.direct = direct
        for connection in self.connections.values():
            if not connection.holding and not connection.closed:
                connection.direct = direct

    def send_frame(self, frame: bytes) -> None:
        """Send a frame that belongs to the session as a whole."""
        self.out.send(Outgoing(frame, Delivery.DURABLE, None))

    # Taking in.

    def receive(self, binary: bool, packet: bytes, place: Place | None = None) -> None:
        """Take one Engine.IO packet. One beyond `max_frame` comes with the place that it has.

        Raises MalformedPacket for what breaks the protocol; the caller then calls `fail`.
        """
        if place is not None:
            self._receive_large(packet, place)
            return
        if self.closing or self._quiet:
            return
        services = self._services
        services.counters.packets_in += 1
        self._packets += 1
        limit = services.options.max_packet_rate * FLOOD_WINDOW_SECONDS
        if self._packets > limit and self._flooding():
            return
        if binary:
            self._attach(packet)
            return
        if not packet:
            raise packets.MalformedPacket("empty packet")
        kind = packet[0]
        if kind == packets.MESSAGE:
            if self._assembly is not None:
                raise packets.MalformedPacket("text where an attachment is due")
            self._take(packets.decode(packet[1:]), len(packet))
        elif kind == packets.PONG:
            if self.pong_due:
                services.heartbeat.pong(self)
        elif kind == packets.CLOSE:
            self.lost("client disconnect")
        elif kind not in (packets.UPGRADE, packets.NOOP):
            raise packets.MalformedPacket("unknown packet type")

    def _take(self, incoming: packets.Incoming, size: int) -> None:
        """Have a packet handled, as soon as its attachments are there."""
        if incoming.attachments:
            self._assembly = Assembly(
                incoming,
                size,
                limit=self.options.max_attachment_bytes,
                seconds=self.options.attachment_timeout,
                late=self._attachments_late,
                loop=self._services.loop,
            )
        else:
            self._intake.put(self, Job(incoming, size=size))

    @property
    def attaching(self) -> bool:
        """Whether the next packet must be an attachment."""
        return self._assembly is not None or self._quiet or self.closing

    def pass_over(self, binary: bool, head: bytes, size: int) -> None:
        """Account for a packet of which only the beginning was kept, because it is too large.

        Raises MalformedPacket if its head cannot be read.
        """
        if self.closing or self._quiet:
            return
        now = self._services.loop.time()
        if self._passed is None:
            self._passed = Passed(now)
        if not self._passed.add(size, now):
            self.close("flood", reconnect=False)
            return
        if not binary and head[:2] == PREFIX:
            self.refuse_large(head)
            return
        if self.count_frame():
            return
        if (self._assembly is not None) is not binary:
            raise packets.MalformedPacket(
                "an attachment without its packet, or none where one is due"
            )
        self._services.counters.packets_in += 1
        self._services.counters.refused["event too_large"] += 1
        if self._assembly is None:
            self._take(packets.decode_head(head[1:]), len(head))
        elif self._assembly.pass_over():
            self._attached(self._assembly)

    def pass_over_unreadable(self) -> None:
        """Account for an attachment of which nothing can be read.

        Raises MalformedPacket if none is due.
        """
        if self.closing or self._quiet or self.count_frame():
            return
        if self._assembly is None:
            raise packets.MalformedPacket("an attachment without its packet")
        self._services.counters.packets_in += 1
        if self._assembly.pass_over("invalid"):
            self._attached(self._assembly)

    def admit_large(self, size: int, place: Place | None) -> Place | None:
        """The place of a CONNECT packet that has at least `size` bytes, more than `max_frame`; the
        one it has already, if it has one. None: it is passed over, then call `refuse_large`.

        Raises MalformedPacket if the session has sent too many of them without success.
        """
        if place is None:
            self._failures += 1
            if self._failures > MAX_FAILURES:
                raise packets.MalformedPacket("too many large packets")
        if size > self.options.max_connect:
            if place is not None:
                place.leave()
            self._refusal = _TOO_LARGE
            return None
        self._refusal = _TOO_MANY
        return place or self._services.places.take()

    def refuse_large(self, head: bytes) -> None:
        """Refuse the CONNECT packet that was passed over; `head` is its beginning.

        Raises MalformedPacket if it names no namespace.
        """
        if self.closing or self._quiet:
            return
        namespace = packets.connecting_to(head)
        code, message = self._refusal
        data: dict[str, Any] = {"code": code, "message": message}
        if code == "too_large":
            data["data"] = {"limit": self.options.max_connect}
        if namespace not in self.connections:
            self._refuse(namespace, ConnectRefused(message, data))

    def _receive_large(self, packet: bytes, place: Place) -> None:
        queued = False
        try:
            if not self.closing and not self._quiet:
                if self._assembly is not None:
                    raise packets.MalformedPacket("text where an attachment is due")
                self._services.counters.packets_in += 1
                incoming = packets.decode(packet[1:])
                self._intake.put(self, Job(incoming, size=len(packet), place=place))
                queued = True
        finally:
            if not queued:
                place.leave()

    def count_frame(self) -> bool:
        """Account for a frame that carries no packet (a fragment, a websocket ping); whether it is
        one too many.
        """
        self._packets += 1
        limit = self.options.max_packet_rate * FLOOD_WINDOW_SECONDS
        return self._packets > limit and self._flooding()

    def _flooding(self) -> bool:
        """Look whether as many packets as a window allows came in less than that time."""
        now = self._services.loop.time()
        flooding = now - self._window < FLOOD_WINDOW_SECONDS
        self._window = now
        self._packets = 0
        if flooding:
            self.close("flood", reconnect=False)
        return flooding

    def _attach(self, content: bytes) -> None:
        assembly = self._assembly
        if assembly is None:
            raise packets.MalformedPacket("an attachment without its packet")
        if assembly.add(content):
            self._attached(assembly)

    def _attached(self, assembly: Assembly) -> None:
        self._assembly = None
        self._intake.put(self, Job(assembly.packet, size=assembly.size))

    def _attachments_late(self) -> None:
        self.fail("attachments did not come")

    @property
    def known(self) -> bool:
        """Whether a connection of it was accepted."""
        return any(each.accepted for each in self.connections.values())

    def arriving(self) -> Share:
        """A share of what may be on its way, for what comes next."""
        return self._services.arriving.share(stranger=not self.known)

    def crowded(self) -> None:
        """Too much is on its way, of all clients together, for what this one began to send."""
        if self.known:
            self.close("unavailable", reconnect=True)
        else:
            self.lost("unavailable", frames.TRY_AGAIN)

    async def has_room(self) -> None:
        """Wait until the application has caught up with what was taken in."""
        while self.blocked and not self.closing:
            await self._intake.room()

    def resume_input(self) -> None:
        """From what was taken in: there is room again."""
        if self.socket is not None:
            self.socket.resume_input()

    # Handling, one after the other.

    async def handle(self, job: Job) -> None:
        """From what was taken in: do one job in its turn."""
        packet = job.packet
        if packet is None:
            assert job.left is not None
            await self._leave(job.left, job.reason)
            return
        if self._discard:
            return
        connection = self.connections.get(packet.namespace)
        if packet.type == packets.CONNECT:
            if connection is not None or self.closing:
                return
            if packet.fault:
                code, message = _UNREADABLE
                self._refuse(
                    packet.namespace, ConnectRefused(message, {"code": code, "message": message})
                )
            else:
                await self._connect(packet.namespace, packet.data)
        elif connection is None or not connection.accepted:
            if not self.closing and packet.namespace not in self._services.application.namespaces:
                self.fail("a packet for no namespace")
            elif not self.connections and not self._was_in and self._timer is not None:
                self.fail("a packet before CONNECT")
        elif packet.type in (packets.EVENT, packets.BINARY_EVENT):
            await self._event(connection, packet)
        elif packet.type == packets.DISCONNECT and not connection.closed:
            connection.end()
            await self._leave(connection, "client namespace disconnect")

    async def _event(self, connection: ClientConnection, packet: packets.Incoming) -> None:
        application = self._services.application
        if packet.fault:
            if packet.ack:
                limit = self.options.max_frame
                if packet.attachments:
                    limit = self.options.max_attachment_bytes
                answer = application.unreadable(connection, packet.fault, limit)
                connection.acknowledge(packet.ack, answer)
            return
        name: str = packet.data[0]
        args: Sequence[Any] = packet.data[1:]
        try:
            result = await application.event(connection, name, args)
            if packet.ack:
                connection.acknowledge(packet.ack, () if result is None else result)
        except Exception:
            logger.exception("event failed: %s %s", connection.namespace, name[:64])

    async def _connect(self, namespace: str, auth: Any) -> None:
        services = self._services
        if namespace not in services.application.namespaces:
            self._refuse(namespace, ConnectRefused("Invalid namespace"))
            return
        if self._timer is not None:
            # The client has done its part; how long the answer takes is not its fault.
            self._timer.cancel()
            self._timer = None
        connection = ClientConnection(self, services.new_id(), namespace)
        self.connections[namespace] = connection
        refusal: ConnectRefused | None = None
        try:
            await services.application.connect(connection, auth)
        except ConnectRefused as refused:
            # Not the exception itself: its traceback holds this frame, which would hold it.
            refusal = ConnectRefused(refused.message, refused.data)
        except Exception:
            logger.exception("connect failed: %s", namespace)
            refusal = ConnectRefused("Internal error", {"code": "internal"})
        if refusal is not None:
            self.connections.pop(namespace, None)
            connection.end()
            self._refuse(namespace, refusal)
            self._look_for_connections()
            return
        services.counters.connections[namespace] += 1
        if connection.closed:
            await self._leave(connection, "transport close")
            return
        self._failures = self._refused = 0
        self._was_in = True
        self.claim(self.id)
        connection.accept()

    def _refuse(self, namespace: str, refusal: ConnectRefused) -> None:
        if self.closing:
            return
        reason = str((refusal.data or {}).get("code", refusal.message))
        self._services.counters.refused[f"CONNECT {reason}"] += 1
        self._services.refusals.say(
            "connect_refused",
            reason,
            self.caller,
            namespace=namespace,
            transport=self.transport,
            message=refusal.message,
        )
        self.send_frame(packets.refused(namespace, refusal.message, refusal.data))
        self._refused += 1
        if self._refused > MAX_REFUSED:
            self.fail("too many refused connects")

    async def _leave(self, connection: ClientConnection, reason: str) -> None:
        if self.connections.get(connection.namespace) is connection:
            del self.connections[connection.namespace]
        self._services.counters.connections[connection.namespace] -= 1
        try:
            await self._services.application.disconnect(connection, reason)
        except Exception:
            logger.exception("disconnect failed: %s", connection.namespace)
        self.hub.drop(connection)
        self._look_for_connections()

    def claim(self, user: str) -> bool:
        """From a connection: it is this user's. False: the user has too many sessions."""
        return self.closed or self._services.claim(self, user)

    def _look_for_connections(self) -> None:
        if not self.closing and not self.connections and self._timer is None:
            self._services.release(self)
            self.expect_connect()

    # Ending.

    def expect_connect(self) -> None:
        """Close the session unless it connects to a namespace in time."""
        self._timer = self._services.loop.call_later(
            self.options.connect_timeout, self.silent, "no CONNECT"
        )

    def silent(self, message: str) -> None:
        """End a session that never said who it is, which breaks no rule: probes do so."""
        if not self.closing:
            logger.debug("silent session closed: %s", message)
            self._services.counters.silent += 1
            self._end("parse error", b"", frames.POLICY_VIOLATION, flush=False)

    def close(self, code: str, *, reconnect: bool) -> None:
        """Say `closing` in every namespace, send what is queued within a bounded time, end.

        What was taken in and not begun is not handled, except at `shutdown`.
        """
        if self.closing:
            return
        self._services.counters.closes[code] += 1
        slow = code == "slow_consumer"
        last: list[bytes] = []
        for namespace, connection in self.connections.items():
            if not connection.accepted:
                continue
            if not slow:
                connection.flush()
            body = {"code": code, "reconnect": reconnect}
            last.append(packets.encode_arguments(packets.EVENT, namespace, b"", ("closing", body)))
            if not reconnect:
                last.append(packets.disconnected(namespace))
        self._discard = code != "shutdown"
        self._end(code, b"".join(last), frames.NORMAL, flush=not slow)

    def overflow(self) -> None:
        """The client takes too little of what is sent to it."""
        if self.closing and self.socket is None:
            self.finish()  # its last words take the room of those who are still here
        self.close("slow_consumer", reconnect=True)

    def overflow_soon(self) -> None:
        """As `overflow`, when the loop turns next: for callers in the middle of a room."""
        self._services.loop.call_soon(self.overflow)

    def fail(self, message: str, code: int = frames.INVALID_DATA) -> None:
        """The client broke the protocol: end the session."""
        if self.closing:
            return
        caller = self.caller
        logger.info(
            "malformed input, session closed: %s (address %s, origin %s)",
            *(message, caller.address, caller.origin or "none"),
        )
        self._services.counters.malformed += 1
        self._end("parse error", b"", code, flush=False)

    def lost(self, reason: str, code: int = frames.NORMAL) -> None:
        """The client left, or is silent: end the session; what it sent before is handled. `code` is
        that of the websocket's close frame.
        """
        if not self.closing:
            self._end(reason, b"", code, flush=reason == "client disconnect")

    def _end(self, reason: str, last: bytes, code: int, *, flush: bool) -> None:
        self.closing = True
        self.pong_due = 0.0
        if self._assembly is not None:
            self._assembly.cancel()
            self._assembly = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in self.connections.values():
            connection.end()
            if connection.accepted:
                self._intake.put(self, Job(None, connection, reason))
        self._intake.release()
        polling = self.socket is None
        if polling and reason == "transport error" and self.out.poll_waiting:
            # For two polls at once the protocol's tests ask for this. Nobody else is sent a CLOSE:
            # python-socketio never comes back after one, and socket.io-client forgets what came in
            # the same response. The next poll is refused, which ends a session as well.
            last = packets.CLOSE_FRAME
        if polling and (reason == "client disconnect" or not (last or (flush and self.out.queued))):
            # There is nothing to fetch, or nobody who will.
            self.finish()
            return
        self.out.end(last, code, flush=flush)
        seconds = self.options.last_poll_timeout if polling else self.options.close_timeout
        self._timer = self._services.loop.call_later(seconds, self.finish)

    def finish(self) -> None:
        """Nothing more is sent: let the transport go and forget the session."""
        if self.closed:
            return
        self.closed = True
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.out.detach()
        for socket in (self.socket, self.upgrading):
            if socket is not None:
                socket.abort()
        self.socket = self.upgrading = None
        self._services.heartbeat.forget(self)
        self._services.forget(self)

    def socket_lost(self) -> None:
        """The websocket's connection is gone."""
        self.out.detach()
        self.lost("transport close")
        self.finish()

    def idle(self) -> None:
        """From what was taken in: all of it is handled."""
        if self.closed:
            self._services.settled(self)

    @property
    def working(self) -> bool:
        """Whether something taken in is not handled yet."""
        return self._intake.working

    async def quiesce(self) -> None:
        """Take nothing more in, and wait until everything taken in is handled and answered.

        What comes from now on is read and passed over: left unread, it would make the kernel
        reset the connection at its end, and the client might lose its last answers.
        """
        self._quiet = True
        await self.settled()

    async def settled(self) -> None:
        """Wait until everything taken in is handled."""
        await self._intake.settled()

    def cancel(self) -> None:
        """Give up what is being handled: the process ends."""
        self._intake.cancel()
