"""JSON responses: conditional (RFC 9110, section 13) and compressed."""

import hashlib
from typing import Any

import orjson
from aiohttp import web

COMPRESS_FROM = 1024
"""Bytes below which compressing a body costs more than it saves."""


def json_response(request: web.Request, data: Any, status: int = 200) -> web.Response:
    """A response with `data`. A GET gets an ETag, and 304 if the client has this body already."""
    if status == 204:
        return web.Response(status=204)
    body = orjson.dumps(data)
    # Answers to other methods may hold tokens (RFC 6749, section 5.1).
    cached = request.method in {"GET", "HEAD"}
    headers = {"Cache-Control": "private, no-cache" if cached else "no-store"}
    if request.method in {"GET", "HEAD"} and status == 200:
        etag = hashlib.blake2b(body, digest_size=12).hexdigest()
        headers["ETag"] = f'W/"{etag}"'
        known = request.if_none_match
        if known and any(each.value in (etag, "*") for each in known):
            return web.Response(status=304, headers=headers)
    response = web.Response(
        body=body, status=status, content_type="application/json", headers=headers
    )
    if len(body) >= COMPRESS_FROM:
        response.headers["Vary"] = "Accept-Encoding"
        response.enable_compression()
    return response
