"""Which part of a representation to send: conditional and range requests (RFC 9110, sections 13
and 14) for content that never changes.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple

from domain.errors import Invalid

_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*\Z", re.IGNORECASE | re.ASCII)
_TAGS = re.compile(r'(W/)?"([^"]*)"')


class Span(NamedTuple):
    """A part of a representation, in bytes."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        """As `Content-Range` says it."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


class UnsatisfiableRange(Invalid):
    """The range asked for begins behind the end."""

    status = 416
    title = "Range not satisfiable"


class Validators(NamedTuple):
    """What tells one representation from another."""

    etag: str
    """Strong, without quotes."""
    modified: datetime
    """In whole seconds."""

    @classmethod
    def of(cls, etag: str, unix_time: float) -> "Validators":
        """Of content that was made at a time."""
        return cls(etag, datetime.fromtimestamp(int(unix_time), UTC))

    def headers(self) -> dict[str, str]:
        """As headers of the response."""
        return {
            "ETag": f'"{self.etag}"',
            "Last-Modified": format_datetime(self.modified, usegmt=True),
        }

    def not_modified(self, headers: Mapping[str, str]) -> bool:
        """Whether the client has it already: `If-None-Match`, or else `If-Modified-Since`."""
        known = headers.get("If-None-Match")
        if known is not None:
            tags = (found[2] for found in _TAGS.finditer(known))
            return known.strip() == "*" or self.etag in tags
        since = _date(headers.get("If-Modified-Since"))
        return since is not None and self.modified <= since

    def span(self, headers: Mapping[str, str], size: int) -> Span | None:
        """The part asked for with `Range`; None for all.

        Malformed ranges, several at once and those whose `If-Range` names something else are
        answered with all, as RFC 9110 allows.

        Raises:
            UnsatisfiableRange: it begins behind the end.
        """
        found = _RANGE.match(headers.get("Range", ""))
        if found is None or not self._still(headers.get("If-Range")):
            return None
        first, last = found[1], found[2]
        if not first:
            if not last:
                return None
            length = min(int(last), size)
            start, end = size - length, size
        else:
            start = int(first)
            if last and int(last) < start:
                return None
            end = min(int(last) + 1, size) if last else size
        if start >= end:
            raise UnsatisfiableRange
        return Span(start, end - start)

    def _still(self, if_range: str | None) -> bool:
        if if_range is None:
            return True
        text = if_range.strip()
        if text.startswith('"'):
            return text == f'"{self.etag}"'
        return _date(text) == self.modified


def _date(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
