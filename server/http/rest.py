"""The REST side of the declared commands: one aiohttp handler made per route."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from domain.errors import Invalid, TooLarge, Unauthenticated, Unavailable
from domain.principals import Principal
from handlers.command import Command, Registry, Route
from handlers.context import Context
from handlers.dispatcher import Dispatcher
from server.http.addresses import Addresses
from server.http.middleware import ADDRESS, REQUEST_ID, USER
from server.http.responses import json_response
from server.transport.arriving import Arriving, Crowded
from server.transport.unpacking import Body

PREFIX = "/api/v1"

BODY_SECONDS = 30.0
"""For a JSON body to arrive whole; uploads have a rule of their own."""

OPEN_BODY = 16 * 1024
"""Bytes of a body where no token is asked for: anybody may send one."""

Authenticate = Callable[[str, str], Awaitable[Principal]]
"""The principal of a token shown by a network address."""


class Rest:
    """Adds the commands' routes to an application."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        authenticate: Authenticate,
        addresses: Addresses,
        max_body: int,
        arriving: Arriving,
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._authenticate = authenticate
        self._addresses = addresses
        self._max_body = max_body
        self.arriving = arriving
        """What is held of all requests that have not come whole."""

    def attach(self, app: web.Application) -> None:
        """Add all routes below `/api/v1`; the more literal path first."""
        routes = [(each.route, each) for each in self._registry.commands if each.route is not None]
        routes.sort(key=lambda pair: (pair[0].path.count("{"), pair[0].path))
        for route, each in routes:
            handler = self._handler(each, route)
            app.router.add_route(route.method, PREFIX + route.path, handler)
            if route.method == "GET":  # RFC 9110, section 9.1: who has GET has HEAD
                app.router.add_route("HEAD", PREFIX + route.path, handler)

    def _handler(
        self, command: Command, route: Route
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        from_query = route.method in {"GET", "DELETE"}
        lists = list_fields(command)
        named = frozenset(route.parameters)
        open_query = frozenset(route.query)
        max_body = self._max_body if command.role is not None else min(self._max_body, OPEN_BODY)

        async def handle(request: web.Request) -> web.StreamResponse:
            context = await self.context(request, needed=command.role is not None)
            payload = query(request, lists)
            if not from_query and not payload.keys() <= open_query:
                # Addresses are logged on their way, and any page can make a browser send one.
                name = min(payload.keys() - open_query)
                raise Invalid.field(name[:100], "belongs into the body, not into the address")
            # Whoever is refused anyway is refused before anything of theirs is held.
            if admitted := request.can_read_body:
                await self._dispatcher.admit(command, context)
                payload |= await self._body(request, max_body, context.anonymous)
            twice = named & payload.keys()
            if twice:
                raise Invalid.field(min(twice), "is given by the path")
            payload |= request.match_info
            data = await self._dispatcher.run(
                command,
                context,
                payload,
                strict=not (from_query or request.query_string),
                admitted=admitted,
            )
            return json_response(request, data, route.status)

        return handle

    async def context(self, request: web.Request, *, needed: bool) -> Context:
        """What a command is told of a request besides its content; errors as of `principal`."""
        return Context(
            await self.principal(request, needed=needed),
            request_id=request[REQUEST_ID],
            remote=self._addresses.of(request),
            user_agent=request.headers.get("User-Agent", "")[:256],
        )

    async def principal(self, request: web.Request, *, needed: bool) -> Principal | None:
        """Who sends this request; None where no token is needed: many clients send the one they
        have with every request, and it must not keep them from replacing it once it has expired.

        Raises:
            Unauthenticated: no token or no good one.
            RateLimited: this address tried too many API keys.
        """
        address = request[ADDRESS] = self._addresses.of(request)
        if not needed:
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not token:
            raise Unauthenticated("Send Authorization: Bearer <token>.")
        if scheme.lower() != "bearer":
            raise Unauthenticated("Only bearer tokens are understood (RFC 6750).")
        principal = await self._authenticate(token.strip(), address)
        request[USER] = principal.user
        return principal

    async def _body(self, request: web.Request, limit: int, stranger: bool) -> dict[str, Any]:
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                raw = await self._read(Body(request), limit, stranger)
        except TimeoutError:
            raise web.HTTPRequestTimeout(
                text=f"The body did not come within {BODY_SECONDS:g} seconds."
            ) from None
        if not raw:
            return {}
        if request.content_type not in {"application/json", "application/merge-patch+json"}:
            raise web.HTTPUnsupportedMediaType(text="Send a JSON object as application/json.")
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"The body is not JSON: {error}.") from None
        if not isinstance(body, dict):
            raise Invalid("The body must be one JSON object.")
        return body

    async def _read(self, body: Body, limit: int, stranger: bool) -> bytearray:
        read = bytearray()
        with self.arriving.share(stranger=stranger) as share:
            while piece := await body.read():
                read += piece
                if len(read) > limit:
                    raise _too_large(limit)
                if not body.came:
                    try:
                        share.hold(len(read))
                    except Crowded as error:
                        raise Unavailable(str(error)) from None
        return read


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"A body may have at most {limit} bytes here.")


def list_fields(command: Command) -> frozenset[str]:
    """The request's fields that hold lists: in a query they may be repeated."""
    schema = (
        command.request.model_json_schema()["properties"] if command.request.model_fields else {}
    )
    return frozenset(
        name
        for name, field in schema.items()
        if "array" in (field.get("type"), *(each.get("type") for each in field.get("anyOf", ())))
    )


def query(request: web.Request, lists: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The query's fields; those of `lists` as lists.

    Raises:
        Invalid: another one is given more than once.
    """
    found: dict[str, Any] = {}
    for name in request.query:
        values = request.query.getall(name)
        if name in lists:
            found[name] = values
        elif len(values) > 1:
            raise Invalid.field(name[:100], "is given more than once")
        else:
            found[name] = values[0]
    return found
