"""What can be set about the transport, and what it counts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web


def _none(_text: str) -> bool:
    return False


def _itself(text: str) -> str:
    return text


def _peer(request: web.BaseRequest) -> str:
    return request.remote or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """Limits and times of the transport. Times are in seconds, sizes in bytes."""

    path: str = "/socket.io/"
    node: str = ""
    """What session ids begin with, followed by a dot: a balancer finds a session's node by it."""
    node_header: str = "X-Node"
    """In the answer to a polling handshake: says `node`, for balancers that learn which node it is
    and do not know their names beforehand."""
    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    """A peer silent for `ping_interval + ping_timeout` is gone."""
    connect_timeout: float = 20.0
    """A session that has not connected to any namespace by then is closed."""
    upgrade_timeout: float = 10.0
    attachment_timeout: float = 0.8
    """Longest silence inside a packet whose attachments have not all come."""
    origins: Callable[[str], bool] = _none
    """Whether an `Origin` is allowed; the server's own always is."""
    named_origins: Callable[[str], bool] | None = None
    """Whether an allowed `Origin` is allowed by its name, not with all others; None: each is."""
    address: Callable[[web.BaseRequest], str] = _peer
    """The network address of whoever sends a request."""
    network: Callable[[str], str] = _itself
    """What an address is counted by: of which network it is."""
    max_frame: int = 65536
    """Of one message from a client, and of one polling request."""
    max_connect: int = 1048576
    """Of one CONNECT packet, and of a polling request that begins with one."""
    max_large: int = 16
    """CONNECT packets beyond `max_frame` received or handled at a time, of all sessions."""
    max_attachment_bytes: int = 262144
    """Of one packet's binary attachments together."""
    max_payload: int = 262144
    """Of one polling response; a single larger packet still goes."""
    max_queue: int = 1048576
    """Waiting for one session; past it the session is closed as a slow consumer."""
    max_held: int = 8388608
    """Sent to a connection before its CONNECT reply: what it missed. Comes on top of `max_queue`."""
    max_queued_total: int = 268435456
    """Waiting for all sessions together; past it the worst are closed first."""
    high_water: int = 65536
    """Unsent in a socket's own buffer; past it the session is under back-pressure."""
    stuck_timeout: float = 5.0
    """Longest time a session under back-pressure may take nothing at all."""
    close_timeout: float = 1.0
    """For a closing session to take what was sent before, then it is cut off."""
    last_poll_timeout: float = 15.0
    """For a client that polls to come and fetch why its session was closed."""
    max_sessions: int = 100_000
    max_sessions_per_address: int = 100_000
    """Of one network, as `network` has it."""
    max_sessions_per_user: int = 100_000
    unlimited: Callable[[str], bool] = _none
    """Whether an address is that of many, such as a proxy's own."""
    max_pending: int = 64
    """Packets of one session waiting for their turn; past it nothing more is read from it."""
    max_pending_bytes: int = 262144
    """The same in bytes, as they were received."""
    max_packet_rate: int = 2_000
    """Packets per second from one session, on average over five seconds; past it, `flood`."""
    polling: bool = True
    """Whether sessions may be polled, which needs all their requests to come to this process."""
    upgrades: bool = True
    """Whether polling sessions may become websocket sessions."""


@dataclass(slots=True)
class TransportCounters:
    """Plain counters, read by the metrics endpoint; all but `sessions` and `connections` only grow."""

    sessions: int = 0
    """Open Engine.IO sessions now."""
    connections: Counter[str] = field(default_factory=Counter)
    """Accepted connections now, by namespace."""
    packets_in: int = 0
    queued_bytes: int = 0
    """Waiting for slow and polling sessions now, beside what sockets hold themselves."""
    dropped: int = 0
    """VOLATILE events not sent to slow clients."""
    coalesced: int = 0
    """LATEST events replaced by a newer value before they were sent."""
    closes: Counter[str] = field(default_factory=Counter)
    """Sessions closed by the server, by code."""
    refused: Counter[str] = field(default_factory=Counter)
    """Handshakes and connects to namespaces refused, by reason."""
    evicted: Counter[str] = field(default_factory=Counter)
    """Sessions ended to make room for others, by whose they were: `stranger`, `user`."""
    silent: int = 0
    """Sessions closed because they never connected to a namespace."""
    malformed: int = 0
    """Sessions closed for what they sent."""
