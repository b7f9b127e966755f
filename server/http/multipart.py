"""Reading a form with one file as it comes in (multipart/form-data, RFC 7578), without ever holding
more of it than a piece.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, cast
from urllib.parse import unquote

from aiohttp import BodyPartReader, ClientError, MultipartReader, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from domain.errors import Invalid, TooLarge, Unavailable
from server.transport.arriving import Crowded, Share

FORM = "multipart/form-data"

PIECE = 64 * 1024
"""Bytes read at a time."""

OVERHEAD = 64 * 1024
"""Bytes a form may have besides its file: boundaries, headers, other fields."""

MAX_FIELD = 1024
"""Bytes of a field that is not the file."""

IDLE = 30.0
"""Seconds within which something must come."""

MIN_RATE = 1024
"""Bytes a second that must come on average after the first `GRACE` seconds."""

GRACE = 60.0

_PLAIN_ENCODINGS = {"", "binary", "8bit", "7bit"}


class FileForm:
    """A form whose last part is a file: its other fields, what is said of the file, its bytes."""

    def __init__(self, request: web.Request, max_file: int, share: Share) -> None:
        """
        Args:
            max_file: bytes; a form whose length says that its file has more is not read.
            share: of what is on its way; a form that comes in pieces takes one piece of it.
        """
        self._length = request.content_length
        self._body = _Body(request.content, max_file + OVERHEAD, share)
        self._max = max_file + OVERHEAD
        self._request = request
        self._reader: MultipartReader | None = None
        self._part: BodyPartReader | None = None
        self.fields: dict[str, str] = {}
        self.name: str | None = None
        self.content_type: str | None = None

    async def open(self, known: frozenset[str]) -> None:
        """Read up to the file.

        Args:
            known: the fields there may be besides `file`, before it.

        Raises:
            Invalid: it is no form with such fields and a part `file`.
            TooLarge: the form says itself that the file is too large.
        """
        if self._request.content_type != FORM:
            raise Invalid("The body is no form.")
        if self._request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Invalid("Send the form as it is, without Content-Encoding.")
        if self._length is not None and self._length > self._max:
            raise TooLarge(f"A file may have at most {self._max - OVERHEAD} bytes.")
        with _wellformed():
            self._reader = MultipartReader(
                self._request.headers, cast(StreamReader, self._body), max_headers=16
            )
            while (part := await self._reader.next()) is not None:
                if not isinstance(part, BodyPartReader):
                    raise Invalid("A part must not be multipart itself.")
                _check_encoding(part)
                name = part.name
                if name == "file":
                    self._part = part
                    self.name = _unescaped(part.filename)
                    self.content_type = part.headers.get("Content-Type")
                    return
                if name not in known or name in self.fields:
                    shown = (name or "")[:100]
                    raise Invalid.field(
                        shown or "request", "unknown field, given twice or nameless"
                    )
                self.fields[name] = await _short(part, name)
        raise Invalid.field("file", "is missing")

    @property
    def size(self) -> int | None:
        """Bytes of the file if nothing but the end of the form follows; None if that is unknown."""
        if self._length is None:
            return None
        boundary = self._request.headers.get("Content-Type", "").partition("boundary=")[2]
        ending = len(boundary.partition(";")[0].strip().strip('"')) + len("\r\n----\r\n")
        return max(0, self._length - self._body.taken - ending)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes.

        Raises:
            Invalid: the form ends in the middle, or something comes after the file.
            TooLarge: more comes than there may be.
        """
        part, reader = self._part, self._reader
        assert part is not None
        assert reader is not None
        with _wellformed():
            while not part.at_eof():
                chunk = await part.read_chunk(PIECE)
                if chunk:
                    yield chunk
            if await reader.next() is not None:
                raise Invalid.field("file", "must be the last field, and the only file")


class _Body:
    """A request's body, as far as `MultipartReader` uses it, bounded in bytes and in time."""

    def __init__(self, content: StreamReader, limit: int, share: Share) -> None:
        self._content = content
        self._limit = limit
        self._share = share
        self._started = time.monotonic()
        self.taken = 0
        """Bytes read and not given back."""

    async def read(self, n: int = -1) -> bytes:
        return self._took(await self._in_time(self._content.read(n)))

    async def readline(self, *, max_line_length: int | None = None) -> bytes:
        line = self._content.readline(max_line_length=max_line_length)
        return self._took(await self._in_time(line))

    def unread_data(self, data: bytes) -> None:
        self.taken -= len(data)
        self._content.unread_data(data)

    def at_eof(self) -> bool:
        return self._content.at_eof()

    async def _in_time(self, coming: Coroutine[Any, Any, bytes]) -> bytes:
        try:
            if not self._content.is_eof():
                self._share.hold(PIECE)
        except Crowded as error:
            coming.close()
            raise Unavailable(str(error)) from None
        try:
            async with asyncio.timeout(IDLE):
                return await coming
        except TimeoutError:
            raise Unavailable(f"Nothing came for {IDLE:g} seconds.") from None

    def _took(self, data: bytes) -> bytes:
        self.taken += len(data)
        if self.taken > self._limit:
            raise TooLarge(f"A file may have at most {self._limit - OVERHEAD} bytes.")
        elapsed = time.monotonic() - self._started
        if elapsed > GRACE and self.taken < (elapsed - GRACE) * MIN_RATE:
            raise Unavailable(f"Less than {MIN_RATE} bytes came per second.")
        return data


@contextlib.contextmanager
def _wellformed() -> Iterator[None]:
    """What aiohttp raises for malformed forms and broken connections, as our error."""
    try:
        yield
    except (HttpProcessingError, ValueError, RuntimeError, AssertionError) as error:
        raise Invalid("The body is not well-formed multipart/form-data.") from error
    except (ClientError, ConnectionError) as error:
        raise Invalid("The body ended early.") from error


def _check_encoding(part: BodyPartReader) -> None:
    encoding = part.headers.get("Content-Transfer-Encoding", "").lower()
    if encoding not in _PLAIN_ENCODINGS:
        # RFC 7578, section 4.7: deprecated, and nobody sends it.
        raise Invalid("Send the parts as they are, without Content-Transfer-Encoding.")


def _unescaped(name: str | None) -> str | None:
    """A file's name without percent escapes: browsers write quotes and line ends so (WHATWG HTML,
    "multipart form data"), some libraries all that is not ASCII.
    """
    if name is None or "%" not in name:
        return name
    try:
        return unquote(name, errors="strict")
    except UnicodeDecodeError:
        return name


async def _short(part: BodyPartReader, name: str) -> str:
    value = b""
    while not part.at_eof():
        value += await part.read_chunk(4096)
        if len(value) > MAX_FIELD:
            raise Invalid.field(name, f"must have at most {MAX_FIELD} bytes")
    return value.decode()
