"""Bodies of requests as they are meant: unpacked, if they come packed (RFC 9110, section 8.4).

aiohttp would unpack whatever comes, also what is read only to be thrown away behind a refusal: 4 MB
of a stranger's held the whole process up for seconds.
"""

import zlib
from typing import Any

from aiohttp import hdrs, web

ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""That are understood."""

PIECE = 64 * 1024
"""Bytes that are unpacked at a time."""

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def encoding_of(request: web.BaseRequest) -> str:
    """How a request says that its body is packed, in lower case."""
    return request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()


class Body:
    """A request's body, piece by piece."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._content = request.content
        self._encoding = encoding_of(request)
        self._machine: Any = None
        """What unpacks, once something came."""
        self._packed = b""
        """What came and is not unpacked."""
        self._more = False
        """Whether there may be more of what is unpacked already."""

    @property
    def came(self) -> bool:
        """Whether all of it has come, read or not."""
        return self._content.is_eof()

    async def read(self) -> bytes:
        """What there is next; nothing at the end.

        Raises:
            web.RequestPayloadError: it is not packed as it says.
        """
        if self._encoding not in _WINDOW:
            return await self._content.readany()
        while True:
            if not self._packed and not self._more:
                self._packed = await self._content.readany()
                if not self._packed:
                    if self._machine is not None and not self._machine.eof:
                        raise web.RequestPayloadError("the packed body ends early")
                    return b""
            if piece := self._unpack():
                return piece

    def _unpack(self) -> bytes:
        if self._machine is None:
            window = _WINDOW[self._encoding]
            if self._encoding == "deflate" and self._packed[0] & 0x0F != zlib.DEFLATED:
                window = -window  # some send it without the zlib format around it
            self._machine = zlib.decompressobj(window)
        elif self._machine.eof and self._packed:
            raise web.RequestPayloadError("something comes behind the packed body")
        try:
            piece: bytes = self._machine.decompress(self._packed, PIECE)
        except zlib.error:
            raise web.RequestPayloadError("the body cannot be unpacked") from None
        self._packed = self._machine.unconsumed_tail or self._machine.unused_data
        self._more = len(piece) == PIECE and not self._machine.eof
        return piece
