"""Which web pages may connect: the Origin check, and the CORS headers of polling.

A browser names the page's origin in every cross-origin request and every websocket handshake, and
a page cannot change it (RFC 6454; RFC 6455, 10.2). Clients that are no browser name none.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import hdrs, web


class OriginPolicy:
    """Allows requests without an Origin, the server's own origin, and those that settings allow."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self._allowed = allowed

    def allows(self, request: web.BaseRequest) -> bool:
        """Whether the page behind a request may use the transport.

        The server's own origin is told by its host and port; the scheme is not compared, because
        behind a proxy that ends TLS the server does not know it.
        """
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or self._allowed(origin):
            return True
        try:
            parts = urlsplit(origin.lower())
        except ValueError:
            return False
        host = request.headers.get(hdrs.HOST, "").lower()
        return parts.scheme in ("http", "https") and bool(host) and parts.netloc == host

    def headers(self, request: web.BaseRequest) -> dict[str, str]:
        """The CORS headers of a response to an allowed request."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            return {}
        headers: dict[str, str] = {
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
            hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true",
            hdrs.VARY: hdrs.ORIGIN,
        }
        if request.method == hdrs.METH_OPTIONS:
            headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST, OPTIONS"
            asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
            if asked is not None:
                headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = asked
            headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"
        return headers
