"""WebSocket frames (RFC 6455): making server frames, taking client frames apart.

Frames of a server are not masked, so one `bytes` object serves every recipient. Sizes are in
bytes. There is no compression and no extension.
"""

from collections.abc import Callable, Iterator

from server.transport.large import HEAD, MAX_PASSED_OVER

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA
PASSED_OVER, PASSED_OVER_BINARY = -1, -2
"""In place of an opcode: a message that was too large; the payload is its beginning."""

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
TOO_BIG = 1009
TRY_AGAIN = 1013

_FIN = 0x80
_MASKED = 0x80
_MAX_CONTROL = 125
_RESERVED = (1004, 1005, 1006)
"""Close codes that no frame may carry, beside those of no known range."""


class FrameError(Exception):
    """The peer broke the protocol; `code` is what the close frame says."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def text_frame(payload: bytes) -> bytes:
    """A whole text message in one frame."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (0x81, size, payload)
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def binary_frame(payload: bytes) -> bytes:
    """A whole binary message in one frame."""
    frame = text_frame(payload)
    return b"\x82" + frame[1:]


def close_frame(code: int) -> bytes:
    """A close frame with a status code and no reason."""
    return b"\x88\x02" + code.to_bytes(2, "big")


def judge_close(payload: bytes) -> int:
    """The status code of a peer's close frame, to be answered with the same; NORMAL without one.

    Raises FrameError for a code that must not be sent (RFC 6455, 7.4; 1012 to 1014 were registered
    later), half of a code, or a reason that is no text (5.5.1).
    """
    if not payload:
        return NORMAL
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in _RESERVED:
        raise FrameError(PROTOCOL_ERROR, "a close frame with a code that must not be sent")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_DATA, "a close frame's reason is not UTF-8") from None
    return code


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping; `payload` is the ping's, at most 125 bytes."""
    return b"%c%c%b" % (_FIN | PONG, len(payload), payload)


def split_frames(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """The messages in a row of server frames made here: (whether binary, payload)."""
    position = 0
    while position < len(data):
        size = data[position + 1]
        start = position + 2
        if size == 126:
            size = int.from_bytes(data[start : start + 2], "big")
            start += 2
        elif size == 127:
            size = int.from_bytes(data[start : start + 8], "big")
            start += 8
        yield data[position] == _FIN | BINARY, data[start : start + size]
        position = start + size


def unmask(payload: bytes, mask: bytes) -> bytes:
    """`payload` exclusive-or the four bytes of `mask`, repeated (RFC 6455, 5.3)."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return number.to_bytes(size, "little")


Admit = Callable[[int, bytes, int], bool]
"""Asked about a message beyond `max_size`, by its opcode, its first two bytes and the bytes it has
at least: True, take it; False, pass it over. May raise `FrameError`."""


class _Passing:
    """A message that is passed over."""

    __slots__ = ("done", "final", "head", "left", "mask", "opcode", "total")

    def __init__(self, opcode: int, head: bytes, before: int) -> None:
        self.opcode = PASSED_OVER if opcode == TEXT else PASSED_OVER_BINARY
        self.head = bytearray(head)
        self.total = before
        self.left = 0
        """Of the frame that is coming."""
        self.done = 0
        """Of the frame that is coming."""
        self.mask = b""
        self.final = False

    def begin(self, size: int, mask: bytes, *, final: bool) -> None:
        """The next frame of it."""
        self.total += size
        if self.total > MAX_PASSED_OVER:
            raise FrameError(TOO_BIG, "the message is too large")
        self.left, self.done, self.mask, self.final = size, 0, mask, final

    def take(self, data: bytes, position: int) -> int:
        """Pass over what there is of the frame; how much it was."""
        taken = min(self.left, len(data) - position)
        wanted = min(HEAD - len(self.head), taken)
        if wanted > 0:
            turn = self.done % 4
            mask = self.mask[turn:] + self.mask[:turn]
            self.head += unmask(data[position : position + wanted], mask)
        self.left -= taken
        self.done += taken
        return taken


class FrameReader:
    """Client frames from a stream of bytes; one per connection, kept small.

    `feed` takes what the network brought, `messages` yields (opcode, payload) of each complete
    message and control frame in it. A message larger than `max_size` raises `FrameError` as soon
    as its header says so, unless `admit` takes it, or passes it over: then `PASSED_OVER` and its
    first bytes are yielded in its place.
    """

    __slots__ = (
        "_admit",
        "_admitted",
        "_data",
        "_max_size",
        "_message",
        "_need",
        "_opcode",
        "_partial",
        "_passing",
        "_position",
        "passed",
    )

    def __init__(self, max_size: int, admit: Admit | None = None) -> None:
        self._max_size = max_size
        self._admit = admit
        self._admitted = 0
        """Bytes that `admit` has taken of the message that is coming."""
        self._passing: _Passing | None = None
        self.passed = 0
        """Bytes of the message that was passed over last."""
        self._data = b""
        self._position = 0
        self._partial: bytearray | None = None
        self._need = 0
        self._opcode = 0
        self._message: bytearray | None = None

    def feed(self, data: bytes) -> None:
        """Add bytes behind those already fed."""
        if self._partial is not None:
            self._partial += data
            if len(self._partial) >= self._need:
                self._data = bytes(self._partial)
                self._partial = None
        elif self._data:
            self._data = self._data[self._position :] + data
            self._position = 0
        else:
            self._data = data

    @property
    def held(self) -> int:
        """Bytes of messages that have not come whole."""
        held = len(self._data) - self._position
        if self._partial is not None:
            held += len(self._partial)
        if self._message is not None:
            held += len(self._message)
        return held

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """What is complete so far. The caller may stop anywhere and call again later."""
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> tuple[int, bytes] | None:
        while True:
            data = self._data
            if not data:
                return None
            position = self._position
            if self._passing is not None and self._passing.left:
                return self._pass_over(self._passing)
            available = len(data) - position
            if available < 2:
                self._wait(2)
                return None
            first = data[position]
            second = data[position + 1]
            size = second & 0x7F
            header = position + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                if available < 2 + width:
                    self._wait(2 + width)
                    return None
                size = int.from_bytes(data[header : header + width], "big")
                header += width
            opcode = first & 0x0F
            if first & 0x70:
                raise FrameError(PROTOCOL_ERROR, "reserved bits are set")
            if not second & _MASKED:
                raise FrameError(PROTOCOL_ERROR, "a client's frame must be masked")
            if opcode >= CLOSE and (size > _MAX_CONTROL or not first & _FIN):
                raise FrameError(PROTOCOL_ERROR, "a control frame is too long or in fragments")
            if self._passing is not None and opcode < CLOSE:
                if available < header - position + 4:
                    self._wait(header - position + 4)
                    return None
                return self._pass_frame(self._passing, first, opcode, size, header)
            before = len(self._message) if self._message is not None and opcode == 0 else 0
            if before + size > max(self._max_size, self._admitted):
                if self._admit is None or before + size > MAX_PASSED_OVER:
                    raise FrameError(TOO_BIG, "the message is too large")
                need = header - position + (4 if before > 1 else 6)
                if available < need:
                    self._wait(need)
                    return None
                if not self._take_in(opcode, before + size, data[header : header + 6]):
                    beginning = bytes((self._message or b"")[:HEAD])
                    self._message = None
                    self._passing = _Passing(opcode or self._opcode, beginning, before)
                    return self._pass_frame(self._passing, first, 0, size, header)
            end = header + 4 + size
            if end > len(data):
                self._wait(end - position)
                return None
            payload = unmask(data[header + 4 : end], data[header : header + 4])
            if end == len(data):
                self._data = b""
                self._position = 0
            else:
                self._position = end
            if first & _FIN and self._message is None and opcode in (TEXT, BINARY):
                self._admitted = 0
                return opcode, payload
            message = self._assemble(first, opcode, payload)
            if message is not None:
                return message

    def _wait(self, need: int) -> None:
        """Keep the rest until `need` bytes of it are there, in a buffer cheap to append to."""
        if self._position < len(self._data):
            self._partial = bytearray(self._data[self._position :])
            self._need = need
        self._data = b""
        self._position = 0

    def _take_in(self, opcode: int, size: int, start: bytes) -> bool:
        """Whether a message beyond `max_size` is taken; `start` is a frame's mask, and of the
        message's first frame two bytes.
        """
        begun = self._message
        if (opcode == 0) is (begun is None):
            raise FrameError(PROTOCOL_ERROR, "a message inside another's fragments, or of nothing")
        kind = opcode or self._opcode
        if self._admit is None or kind not in (TEXT, BINARY):
            raise FrameError(TOO_BIG, "the message is too large")
        beginning = bytes((begun or b"")[:2])
        if len(beginning) < 2:
            beginning += unmask(start[4:], start[:4])[: 2 - len(beginning)]
        if not self._admit(kind, beginning, size):
            return False
        self._admitted = size
        return True

    def _pass_frame(
        self, passing: _Passing, first: int, opcode: int, size: int, header: int
    ) -> tuple[int, bytes] | None:
        """Begin to pass over a frame whose mask is at `header`."""
        if opcode != 0:
            raise FrameError(PROTOCOL_ERROR, "a message inside another's fragments")
        mask = self._data[header : header + 4]
        passing.begin(size, mask, final=bool(first & _FIN))
        self._position = header + 4
        return self._pass_over(passing)

    def _pass_over(self, passing: _Passing) -> tuple[int, bytes] | None:
        self._position += passing.take(self._data, self._position)
        if self._position == len(self._data):
            self._data = b""
            self._position = 0
        if passing.left:
            return None
        if not passing.final:
            return 0, b""
        self._passing = None
        self.passed = passing.total
        return passing.opcode, bytes(passing.head)

    def _assemble(self, first: int, opcode: int, payload: bytes) -> tuple[int, bytes] | None:
        if opcode in (CLOSE, PING, PONG):
            return opcode, payload
        if opcode == 0:
            if self._message is None:
                raise FrameError(PROTOCOL_ERROR, "a continuation of nothing")
            self._message += payload
        elif opcode in (TEXT, BINARY):
            if self._message is not None:
                raise FrameError(PROTOCOL_ERROR, "a message inside another's fragments")
            self._opcode = opcode
            self._message = bytearray(payload)
        else:
            raise FrameError(PROTOCOL_ERROR, "unknown opcode")
        if not first & _FIN:
            # Counted by the caller as one frame, so that empty fragments do not go unseen.
            return 0, b""
        message, self._message = bytes(self._message), None
        self._admitted = 0
        return self._opcode, message
