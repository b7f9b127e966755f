"""Which web pages may use the REST side: CORS (Fetch standard, section 3.2)."""

from collections.abc import Callable

from aiohttp import hdrs, web

from server.http.middleware import Handler
from server.transport.caller import Caller
from server.transport.origins import OriginPolicy
from server.transport.refusals import Refusals

ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
EXPOSED = "ETag, Retry-After, X-Request-ID, Content-Disposition, Content-Range"
PREFLIGHT_SECONDS = "600"


class Cors:
    """Answers preflights and adds the headers by which a browser lets an allowed page read."""

    def __init__(
        self,
        origins: OriginPolicy,
        prefix: str,
        refusals: Refusals,
        address: Callable[[web.BaseRequest], str],
    ) -> None:
        """`prefix` of the paths it is for; other paths have rules of their own. `address` of whoever
        sends a request, for the log.
        """
        self._origins = origins
        self._prefix = prefix
        self._refusals = refusals
        self._address = address

    @web.middleware
    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A page that is not allowed gets answers without these headers, so it cannot read them."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or not request.path.startswith(self._prefix):
            return await handler(request)
        if not self._origins.allows(request):
            caller = Caller.of(request, self._address)
            self._refusals.say(
                "cors_refused", "origin not allowed", caller, warn=True, method=request.method
            )
        if (
            request.method == hdrs.METH_OPTIONS
            and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        ):
            return web.Response(status=204, headers=self._preflight(request))
        return await handler(request)

    async def on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers to a response before its first byte; for `on_response_prepare`."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or not request.path.startswith(self._prefix):
            return
        if self._origins.allows(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED
            if self._origins.allows_credentials(request):
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)

    def _preflight(self, request: web.Request) -> dict[str, str]:
        if not self._origins.allows(request):
            return {}
        headers: dict[str, str] = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: ALLOWED_METHODS,
            hdrs.ACCESS_CONTROL_MAX_AGE: PREFLIGHT_SECONDS,
        }
        asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
        if asked is not None:
            headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = asked
        return headers
