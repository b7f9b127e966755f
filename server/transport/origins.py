"""Which web pages may connect: the Origin check, and the CORS headers of polling.

A browser names the page's origin in every cross-origin request and every websocket handshake, and
a page cannot change it (RFC 6454; RFC 6455, 10.2). Clients that are no browser name none.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import hdrs, web


class OriginPolicy:
    """Allows requests without an Origin, the server's own origin, and those that settings allow."""

    def __init__(
        self, allowed: Callable[[str], bool], named: Callable[[str], bool] | None = None
    ) -> None:
        """`named`, if they are not the same, are those that are allowed by their name: their pages
        may send what the browser knows of the user, those of everybody (`*`) may not.
        """
        self._allowed = allowed
        self._named = named or allowed

    def allows(self, request: web.BaseRequest) -> bool:
        """Whether the page behind a request may use the transport.

        The server's own origin is told by its host and port; the scheme is not compared, because
        behind a proxy that ends TLS the server does not know it. For the same reason the default
        ports of both schemes are the same as none.
        """
        origin = request.headers.get(hdrs.ORIGIN)
        return origin is None or self._allowed(origin) or _own(request, origin)

    def allows_credentials(self, request: web.BaseRequest) -> bool:
        """Whether the page may have the browser send credentials and read the answer."""
        origin = request.headers.get(hdrs.ORIGIN)
        return origin is not None and (self._named(origin) or _own(request, origin))

    def page(self, request: web.BaseRequest) -> str:
        """The page behind a request, empty for none or one of the server's own: browsers name that
        in some requests (POST) and not in others (GET).
        """
        origin = request.headers.get(hdrs.ORIGIN, "")
        return "" if _own(request, origin) else origin

    def headers(self, request: web.BaseRequest) -> dict[str, str]:
        """The CORS headers of a response to an allowed request."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            return {}
        headers: dict[str, str] = {
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
            hdrs.VARY: hdrs.ORIGIN,
        }
        if self.allows_credentials(request):
            headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
        if request.method == hdrs.METH_OPTIONS:
            headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST, OPTIONS"
            asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
            if asked is not None:
                headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = asked
            headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"
        return headers


def _own(request: web.BaseRequest, origin: str) -> bool:
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    host = request.headers.get(hdrs.HOST, "").lower()
    own = bool(host) and _without_default_port(parts.netloc) == _without_default_port(host)
    # Some libraries name the address they connect to, not a page's.
    return own and parts.scheme in ("http", "https", "ws", "wss")


def _without_default_port(host: str) -> str:
    for port in (":80", ":443"):
        if host.endswith(port):
            return host[: -len(port)]
    return host
