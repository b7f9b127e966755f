"""The one tree of errors a caller may see.

Every error has a stable `code` (part of the wire contract) and says whether the same request may
succeed later. Acks and RFC 9457 problem documents are made from these in one place each.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import TypedDict


class FieldError(TypedDict):
    """One thing wrong with one field of a request."""

    field: str
    message: str


class ParleyError(Exception):
    """Base of all errors that are an answer to the caller."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    """The HTTP status it becomes over REST."""
    temporary: ClassVar[bool] = False
    """Whether trying the same again can help."""
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        message: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message or self.title)
        self.message = message or self.title
        self.errors = list(errors)
        self.data = data
        """What the caller needs to go on, e.g. the events between two versions."""

    def to_wire(self) -> dict[str, Any]:
        """The error as an ack carries it: `{code, message, errors?, data?}`."""
        wire: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.errors:
            wire["errors"] = self.errors
        if self.data is not None:
            wire["data"] = dict(self.data)
        return wire


class Invalid(ParleyError):
    """The request does not have the declared form, or asks for what makes no sense."""

    code = "invalid"
    status = 400
    title = "Invalid request"

    @classmethod
    def field(cls, field: str, message: str) -> "Invalid":
        """An error about one named field."""
        return cls(f"{field}: {message}", errors=[{"field": field, "message": message}])


class Unauthenticated(ParleyError):
    """Nobody, or somebody whose token is missing, wrong, expired or revoked."""

    code = "unauthenticated"
    status = 401
    title = "Not authenticated"


class Forbidden(ParleyError):
    """The caller may see the thing but may not do this to it."""

    code = "forbidden"
    status = 403
    title = "Not allowed"


class NotFound(ParleyError):
    """It does not exist, or the caller may not know that it does."""

    code = "not_found"
    status = 404
    title = "Not found"


class Conflict(ParleyError):
    """The thing changed meanwhile, or the same key was used with other content."""

    code = "conflict"
    status = 409
    title = "Conflict"


class TooLarge(ParleyError):
    """More than a documented limit."""

    code = "too_large"
    status = 413
    title = "Too large"


class RateLimited(ParleyError):
    """Too many requests of this kind; `retry_after` is in seconds."""

    code = "rate_limited"
    status = 429
    temporary = True
    title = "Too many requests"

    def __init__(self, message: str | None = None, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def to_wire(self) -> dict[str, Any]:
        """As the base, with `retry_after`."""
        return {**super().to_wire(), "retry_after": round(self.retry_after, 3)}


class Unavailable(ParleyError):
    """A part of the server is out of reach for now; nothing of the request was done."""

    code = "unavailable"
    status = 503
    temporary = True
    title = "Try again"


class Internal(ParleyError):
    """A defect of the server. The message says nothing about its inside."""
