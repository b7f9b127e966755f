"""Fields that many requests have."""

from typing import Annotated

from pydantic import AfterValidator, Field

from domain.clock import parse_timestamp, timestamp
from domain.pages import DEFAULT_LIMIT, MAX_CURSOR_LENGTH, MAX_LIMIT
from handlers.command import Request


def _canonical(text: str) -> str:
    try:
        # Nothing is older than this; before the year 1000 a time would not have its fixed width.
        return timestamp(max(parse_timestamp(text), 0.0))
    except OverflowError:
        raise ValueError("a time beyond the calendar") from None


Id = Annotated[str, Field(min_length=1, max_length=64)]
"""An id of anything."""

ClientId = Annotated[str, Field(min_length=1, max_length=64)]
"""The caller's own name for this request: sent again, it answers the first result."""

Time = Annotated[
    str,
    Field(max_length=40, json_schema_extra={"format": "date-time"}),
    AfterValidator(_canonical),
]
"""An RFC 3339 time, brought into the form of the wire."""

Seq = Annotated[int, Field(ge=0, le=2**53)]
"""A place in a stream."""


class PageRequest(Request):
    """Which page of a list."""

    cursor: str | None = Field(None, max_length=MAX_CURSOR_LENGTH)
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
