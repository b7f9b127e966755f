"""Engine.IO v4 and Socket.IO v5 packets, as bytes on both sides.

The hot ones never become an object: an event's packet is its prefix, the JSON text it was given,
and a bracket. Formats: socket.io-protocol revision 5, engine.io-protocol revision 4.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from server.transport.frames import binary_frame, split_frames, text_frame

# Engine.IO packet types, as the first byte of a packet.
OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = b"0123456"
SEPARATOR = b"\x1e"

# Socket.IO packet types, as the second byte of an Engine.IO message.
CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = b"0123456"

PING_FRAME = text_frame(b"2")
CLOSE_FRAME = text_frame(b"1")
NOOP_FRAME = text_frame(b"6")

RESERVED = frozenset(
    {
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
    }
)
"""Event names that a client must not send (Socket.IO protocol, "Event")."""

MAX_ACK_DIGITS = 19
MAX_ATTACHMENTS = 16
MAX_NAMESPACE = 128


class MalformedPacket(Exception):
    """The peer sent what no version of the protocol allows."""


class Incoming(NamedTuple):
    """A packet from a client, taken apart and checked."""

    type: int
    namespace: str
    ack: bytes
    """The digits of the ack id as they came, empty without one."""
    data: Any
    attachments: int
    fault: str = ""
    """The code of the answer if only the head could be read: `invalid` or `too_large`."""


def decode(packet: bytes) -> Incoming:
    """Take apart a Socket.IO packet: what follows the Engine.IO type `4`. An event or a connect
    whose content is no JSON (half of a surrogate pair, NaN) has a `fault` in place of its data, and so
    has an event without a name, with a reserved one, or with too many attachments.

    Raises MalformedPacket for whatever the protocol does not allow a client to send.
    """
    head, content = _decode_head(packet)
    kind = head.type
    if kind in (CONNECT, DISCONNECT):
        return _with_payload(head, content)
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError:
        _must_be_text(content)
        return head._replace(fault="invalid")
    if head.fault:
        return head
    named = bool(data) and isinstance(data[0], str) and data[0] not in RESERVED
    if kind in (EVENT, BINARY_EVENT) and not named:
        return head._replace(fault="invalid")
    return head._replace(data=data)


def decode_head(packet: bytes) -> Incoming:
    """Of the beginning of a Socket.IO event or ack that is too large to be taken whole.

    Raises MalformedPacket if it is neither, or its head does not end there.
    """
    head, _ = _decode_head(packet)
    if head.type in (CONNECT, DISCONNECT):
        raise MalformedPacket("the packet is too large")
    return head._replace(fault="too_large")


def _decode_head(packet: bytes) -> tuple[Incoming, bytes]:
    """A packet without its data, and the text of its data."""
    if not packet:
        raise MalformedPacket("empty packet")
    kind = packet[0]
    if kind not in _FROM_CLIENT:
        raise MalformedPacket("unknown packet type")
    position = 1
    attachments = 0
    if kind in (BINARY_EVENT, BINARY_ACK):
        dash = packet.find(b"-", 1, 6)
        digits = packet[1:dash]
        if dash < 0 or not digits.isdigit():
            raise MalformedPacket("a binary packet must say how many attachments it has")
        attachments = int(digits)
        position = dash + 1
    namespace = "/"
    if packet[position : position + 1] == b"/":
        comma = packet.find(b",", position)
        end = comma if comma >= 0 else len(packet)
        if end - position > MAX_NAMESPACE:
            raise MalformedPacket("namespace too long")
        try:
            namespace = packet[position:end].decode()
        except UnicodeDecodeError:
            raise MalformedPacket("not UTF-8") from None
        namespace = namespace.partition("?")[0]
        position = end + 1
    rest = packet[position:]
    if kind in (CONNECT, DISCONNECT):
        return Incoming(kind, namespace, b"", None, 0), rest
    bracket = rest.find(b"[", 0, MAX_ACK_DIGITS + 1)
    ack = rest[:bracket]
    if bracket < 0 or (ack and not ack.isdigit()):
        raise MalformedPacket("an event or ack carries a list, after an optional id")
    if kind in (ACK, BINARY_ACK) and not ack:
        raise MalformedPacket("an ack needs an id")
    fault = "invalid" if attachments > MAX_ATTACHMENTS else ""
    return Incoming(kind, namespace, ack, None, attachments, fault), rest[bracket:]


def _must_be_text(content: bytes) -> None:
    try:
        content.decode()
    except UnicodeDecodeError:
        raise MalformedPacket("not UTF-8") from None


def connecting_to(head: bytes) -> str:
    """The namespace of an Engine.IO message that begins with `head` and is a CONNECT.

    Raises MalformedPacket if it does not end within `head`.
    """
    if head[2:3] != b"/":
        return "/"
    comma = head.find(b",", 2, MAX_NAMESPACE + 3)
    if comma < 0:
        raise MalformedPacket("namespace too long")
    try:
        return head[2:comma].decode().partition("?")[0]
    except UnicodeDecodeError:
        raise MalformedPacket("not UTF-8") from None


_FROM_CLIENT = frozenset({CONNECT, DISCONNECT, EVENT, ACK, BINARY_EVENT, BINARY_ACK})


def _with_payload(head: Incoming, text: bytes) -> Incoming:
    if not text:
        return head._replace(data={})
    if head.type == DISCONNECT:
        raise MalformedPacket("a disconnect carries nothing")
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        _must_be_text(text)
        return head._replace(fault="invalid")
    if not isinstance(data, dict):
        raise MalformedPacket("a connect carries an object")
    return head._replace(data=data)


def fill_attachments(data: list[Any], attachments: Sequence[bytes]) -> None:
    """Put attachments where `data` has their placeholders, in place.

    Raises MalformedPacket unless each placeholder names an attachment there is. Iterative: `data`
    may be nested as deep as the JSON parser allows.
    """
    stack: list[Any] = [data]
    while stack:
        container = stack.pop()
        pairs = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(pairs):
            if isinstance(value, dict) and value.get("_placeholder") is True:
                number = value.get("num")
                if type(number) is not int or not 0 <= number < len(attachments):
                    raise MalformedPacket("a placeholder without its attachment")
                container[key] = attachments[number]
            elif isinstance(value, dict | list):
                stack.append(value)


_prefixes: dict[tuple[str, str], bytes] = {}
_MAX_PREFIXES = 4096


def event_prefix(namespace: str, event: str) -> bytes:
    """`42/namespace,["event"` for a packet to be finished by its arguments and a bracket."""
    prefix = _prefixes.get((namespace, event))
    if prefix is None:
        prefix = b"42" + address(namespace) + b"[" + orjson.dumps(event)
        if len(_prefixes) < _MAX_PREFIXES:
            _prefixes[namespace, event] = prefix
    return prefix


def encode_event(namespace: str, event: str, payload: bytes) -> bytes:
    """The frame of an event with one argument, whose JSON text `payload` is."""
    return text_frame(b"%b,%b]" % (event_prefix(namespace, event), payload))


def address(namespace: str) -> bytes:
    """The namespace as a packet carries it: nothing for `/`, `/name,` for others."""
    return b"" if namespace == "/" else namespace.encode() + b","


def encode_arguments(kind: int, namespace: str, ack: bytes, data: Sequence[Any]) -> bytes:
    """The frames of an event or ack: one, and one more for each binary value in `data`.

    `kind` is EVENT or ACK. Raises TypeError if `data` is no JSON with bytes in it.
    """
    attachments: list[bytes] = []

    def placeholder(value: Any) -> Any:
        if isinstance(value, bytes | bytearray | memoryview):
            attachments.append(bytes(value))
            return {"_placeholder": True, "num": len(attachments) - 1}
        raise TypeError(f"{type(value).__name__} cannot be sent")

    text = orjson.dumps(data, default=placeholder)
    if not attachments:
        return text_frame(b"4%c%b%b%b" % (kind, address(namespace), ack, text))
    kind = BINARY_EVENT if kind == EVENT else BINARY_ACK
    head = b"4%c%d-%b%b%b" % (kind, len(attachments), address(namespace), ack, text)
    return text_frame(head) + b"".join([binary_frame(item) for item in attachments])


def connected(namespace: str, sid: str) -> bytes:
    """The frame that accepts a connection to a namespace."""
    return text_frame(b"40" + address(namespace) + orjson.dumps({"sid": sid}))


def refused(namespace: str, message: str, data: Mapping[str, Any] | None = None) -> bytes:
    """The frame that refuses a connection to a namespace (`connect_error` at the client)."""
    body: dict[str, Any] = {"message": message}
    if data is not None:
        body["data"] = dict(data)
    return text_frame(b"44" + address(namespace) + orjson.dumps(body))


def disconnected(namespace: str) -> bytes:
    """The frame that ends a namespace; the official clients do not come back by themselves."""
    return text_frame(b"41" + address(namespace).rstrip(b","))


def open_packet(sid: str, upgrades: Sequence[str], options: "Handshake") -> bytes:
    """The Engine.IO handshake, as a packet."""
    return b"0" + orjson.dumps(
        {
            "sid": sid,
            "upgrades": upgrades,
            "pingInterval": round(options.ping_interval * 1000),
            "pingTimeout": round(options.ping_timeout * 1000),
            "maxPayload": options.max_payload,
        }
    )


class Handshake(NamedTuple):
    """What the server tells every client about itself; times in seconds, size in bytes."""

    ping_interval: float
    ping_timeout: float
    max_payload: int


def encode_payload(items: Sequence[bytes]) -> bytes:
    """Frames as the body of a polling response: packets joined, binary ones in base64."""
    return SEPARATOR.join(
        [
            b"b" + base64.b64encode(payload) if binary else payload
            for item in items
            for binary, payload in split_frames(item)
        ]
    )


def decode_base64(packet: bytes) -> bytes | None:
    """The content of a binary packet in a polling request, without its `b`; None if it is not
    base64. Encoders for mail break lines (RFC 2045, 6.8), and some clients use one.
    """
    try:
        return base64.b64decode(packet.translate(None, b"\r\n"), validate=True)
    except (binascii.Error, ValueError):
        return None
