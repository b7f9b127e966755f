"""What surrounds every request: its id, its errors, its log entry, its headers."""

import re
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web

from domain.errors import Internal, Invalid, NotFound, ParleyError, TooLarge, Unavailable
from domain.ids import new_id
from server.http.problems import problem
from server.metrics.metrics import Metrics
from server.transport.unpacking import ENCODINGS, encoding_of

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

USER: web.RequestKey[str] = web.RequestKey("user", str)
ADDRESS: web.RequestKey[str] = web.RequestKey("address", str)
"""Who asks, and from where, as far as it was looked at: for the log."""

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)

_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
SOCKETS = "/socket.io"
_QUIET = ("/health/", "/metrics", SOCKETS)


class Surroundings:
    """The outermost middleware."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.draining = False
        """Set when the server is shutting down: connections end with their next answer, so that no
        balancer sends anything more on one that is about to be closed. Those of sessions end with
        them."""

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
        if self.draining and not _of_session(request):
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"

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


def _of_session(request: web.Request) -> bool:
    return request.path.startswith(SOCKETS) and "sid" in request.query


def _check_encoding(request: web.Request) -> None:
    if encoding_of(request) not in ENCODINGS and request.body_exists:
        raise Invalid("Content-Encoding: a body may be packed with gzip or deflate.")


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
