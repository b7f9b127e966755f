"""What surrounds every request: its id, its errors, its log entry, its headers."""

import ipaddress
import re
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog
from aiohttp import web

from domain.errors import Internal, Invalid, NotFound, ParleyError, TooLarge, Unavailable
from domain.ids import new_id
from server.http.problems import problem
from server.metrics import Metrics

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

USER: web.RequestKey[str] = web.RequestKey("user", str)
ADDRESS: web.RequestKey[str] = web.RequestKey("address", str)
"""Who asks, and from where, as far as it was looked at: for the log."""

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)

_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
_QUIET = ("/health/", "/metrics", "/socket.io/")


class Surroundings:
    """The outermost middleware."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @web.middleware
    async def surround(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give the request an id, turn errors into problem documents, log and count."""
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _GIVEN_ID.match(given) else new_id()
        request[REQUEST_ID] = request_id
        started = time.perf_counter()
        try:
            _check_encoding(request)
            response = await handler(request)
        except ParleyError as error:
            response = problem(error, request_id)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            response = problem(_translated(error), request_id, error.status)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except web.RequestPayloadError:
            response = problem(Invalid("The body is not what its headers say it is."), request_id)
            # What comes behind it cannot be told from it, and nobody must look for its end.
            response.force_close()
            request.content.feed_eof()
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("request_failed", request_id=request_id, path=request.path)
            response = problem(
                Internal("Something went wrong here; it has been logged."), request_id
            )
        self._finish(request, response, request_id, time.perf_counter() - started)
        return response

    async def on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that every response has; for `on_response_prepare`."""
        response.headers["X-Request-ID"] = request.get(REQUEST_ID, "")
        response.headers["Server"] = "Parley"
        response.headers.setdefault("X-Content-Type-Options", "nosniff")

    def _finish(
        self, request: web.Request, response: web.StreamResponse, request_id: str, seconds: float
    ) -> None:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        self._metrics.requests.labels(route, request.method, str(response.status)).inc()
        if not request.path.startswith(_QUIET):
            log.info(
                "request",
                method=request.method,
                path=request.path,
                status=response.status,
                ms=round(seconds * 1000, 1),
                request_id=request_id,
                user=request.get(USER),
                address=request.get(ADDRESS, request.remote),
            )


def _check_encoding(request: web.Request) -> None:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in _ENCODINGS and request.body_exists:
        raise web.HTTPUnsupportedMediaType(text="A body may be packed with gzip or deflate.")


def _translated(error: web.HTTPException) -> ParleyError:
    """Aiohttp's own refusals in our terms."""
    if error.status == 404:
        return NotFound("There is nothing at this address.")
    if error.status == 405:
        return Invalid("This address does not take this method.")
    if error.status == 413:
        return TooLarge("The body is larger than this server takes.")
    if error.status == 503:
        return Unavailable()
    if error.status >= 500:
        return Internal()
    return Invalid(error.text or error.reason)


def client_address(request: web.BaseRequest, trusted: Sequence[Network]) -> str:
    """The network address of the caller: the peer's, or, behind trusted proxies, the last entry
    of `X-Forwarded-For` that none of them wrote.
    """
    peer = _plain(request.remote or "")
    if not trusted or not _within(peer, trusted):
        return peer
    # Some proxies add a line instead of an entry: all lines are one list (RFC 9110, section 5.3).
    written = ",".join(request.headers.getall("X-Forwarded-For", ()))
    hops = [_plain(_address(hop)) for hop in written.split(",")]
    for hop in reversed([hop for hop in hops if hop]):
        if not _within(hop, trusted):
            return hop if _is_address(hop) else peer
    return peer


def _address(hop: str) -> str:
    """An entry without the quotes, brackets and port that some proxies write."""
    hop = hop.strip().strip('"')
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, port = hop.partition(":")
    return host if colon and port.isdigit() and "." in host else hop


def _plain(address: str) -> str:
    """An IPv4 address as itself, also if it came to a socket that takes both kinds."""
    mapped = address.removeprefix("::ffff:")
    return mapped if "." in mapped else address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
