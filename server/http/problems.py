"""Errors over REST: RFC 9457 problem documents, made in this one place."""

import math
from typing import Any

import orjson
from aiohttp import web

from domain.errors import ParleyError, RateLimited

CONTENT_TYPE = "application/problem+json"


def problem(error: ParleyError, request_id: str, status: int | None = None) -> web.Response:
    """The response for an error: `type`, `title`, `status`, `detail` (RFC 9457, section 3.1), and
    our `code`, `errors`, `request_id`, `retry_after`. `status` if it is not the one of the error's kind.
    """
    status = status or error.status
    body: dict[str, Any] = {
        "type": f"urn:parley:error:{error.code}",
        "title": error.title,
        "status": status,
        "code": error.code,
        "detail": error.message,
        "errors": error.errors,
        "request_id": request_id,
    }
    if error.data is not None:
        body["data"] = error.data
    headers = {}
    if isinstance(error, RateLimited):
        body["retry_after"] = round(error.retry_after, 3)
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    elif error.temporary:
        headers["Retry-After"] = "1"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        body=orjson.dumps(body), status=status, content_type=CONTENT_TYPE, headers=headers
    )
