"""The Socket.IO endpoint: requests in, sessions out, and their common end."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable

import orjson
from aiohttp import hdrs, web

from fanout.hub import Hub
from server.transport import polling
from server.transport.admission import FULL, SAME_ADDRESS, Admission
from server.transport.application import Application
from server.transport.arriving import Arriving
from server.transport.caller import Caller
from server.transport.frames import text_frame
from server.transport.heartbeat import Heartbeat
from server.transport.large import Places
from server.transport.options import TransportCounters, TransportOptions
from server.transport.origins import OriginPolicy
from server.transport.packets import Handshake, open_packet
from server.transport.pressure import Pressure
from server.transport.refusals import Refusals
from server.transport.session import Session
from server.transport.websocket import (
    BadHandshake,
    WebSocket,
    accept_response,
    is_upgrade,
    take_over,
)

logger = logging.getLogger(__name__)

# Error codes of the Engine.IO protocol, in the body of a refused request.
_UNKNOWN_TRANSPORT = (0, "Transport unknown")
_WEBSOCKET_ONLY = (0, 'Transport unknown: only websocket is served here; transports: ["websocket"]')
_UNKNOWN_SESSION = (1, "Session ID unknown")
_BAD_METHOD = (2, "Bad handshake method")
_BAD_REQUEST = (3, "Bad request")
_STATUS = {FULL: 503, SAME_ADDRESS: 429}
_FORBIDDEN = (4, "Forbidden")
_UNSUPPORTED_VERSION = (5, "Unsupported protocol version")

_MAX_ARRIVING = 64 * 1024 * 1024

_UPGRADE_SECONDS = 60.0
"""After its handshake a session may be upgraded for so long."""

_LAST_POLL_SECONDS = 3.0
"""For those who poll to come once more while the node stops: they are between two requests, or gone."""


class Transport:
    """Serves Socket.IO (protocol v5 over Engine.IO v4) for one application.

    `attach` it to an aiohttp application, then `run` it in that application's `cleanup_ctx`, or
    call `start` and `stop`.
    """

    def __init__(
        self,
        application: Application,
        hub: Hub,
        options: TransportOptions | None = None,
        arriving: Arriving | None = None,
    ) -> None:
        self.application = application
        self.arriving = arriving or Arriving(_MAX_ARRIVING)
        self.hub = hub
        self.options = options or TransportOptions()
        self.counters = TransportCounters()
        self.refusals = Refusals()
        self._sessions: dict[str, Session] = {}
        self._lingering: set[Session] = set()
        """Over, but the application is not done with what they sent."""
        self._empty: asyncio.Future[None] | None = None
        self._polling: set[Session] = set()
        """While the node drains: the sessions that were polled when it began."""
        self._nobody_polls: Callable[[], object] | None = None
        self._draining = False
        self._origins = OriginPolicy(self.options.origins, self.options.named_origins)

    def attach(self, app: web.Application) -> None:
        """Serve `options.path` of an aiohttp application."""
        app.router.add_route("*", self.options.path, self._handle)
        bare = self.options.path.rstrip("/")
        if bare:
            app.router.add_route("*", bare, self._handle)

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """For `cleanup_ctx`: start with the aiohttp application, stop with it."""
        self.start()
        yield
        await self.stop()

    def start(self) -> None:
        """Begin; needs a running loop."""
        loop = self.loop = asyncio.get_running_loop()
        options = self.options
        self.heartbeat = Heartbeat(options.ping_interval, options.ping_timeout, loop.time)
        self.pressure = Pressure(options, self.counters, loop.time)
        self.places = Places(options.max_large)
        self._admission = Admission(options, self.counters, loop.time)
        self._draining = False

    async def drain(
        self, seconds: float = 5.0, nobody_polls: Callable[[], object] | None = None
    ) -> None:
        """Take no new session, tell everybody to come back elsewhere, wait until they are gone.

        What sessions had sent before is handled and answered. Sessions are closed spread over
        half of `seconds`, so that they do not all reconnect at once; after `seconds` what is left
        is cut off. `nobody_polls` is called once, as soon as no session is left that needs further
        connections: each request of those that are polled may come on a new one.
        """
        self._draining = True
        self._nobody_polls = nobody_polls
        self._polling = {each for each in self._sessions.values() if each.socket is None}
        self._look_for_polls()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        sessions = list(self._sessions.values())
        pause = seconds / 2 / max(len(sessions), 1)
        behind = 0.0
        tasks = []
        for session in sessions:
            if behind >= 0.01:
                await asyncio.sleep(behind)
                behind = 0.0
            tasks.append(loop.create_task(self._drain_session(session, end - loop.time())))
            behind += pause
        if tasks:
            await asyncio.wait(tasks, timeout=max(end - loop.time(), 0))
        if self._sessions:
            self._empty = loop.create_future()
            left = min(end - loop.time(), _LAST_POLL_SECONDS)
            await asyncio.wait([self._empty], timeout=max(left, 0))
        for session in list(self._sessions.values()):
            session.finish()

    def _look_for_polls(self) -> None:
        if not self._polling and self._nobody_polls is not None:
            told, self._nobody_polls = self._nobody_polls, None
            told()

    async def _drain_session(self, session: Session, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds / 2):
                await session.quiesce()
        session.close("shutdown", reconnect=True)
        await session.settled()

    async def stop(self, seconds: float = 5.0) -> None:
        """End every session at once and wait until the application has been told.

        What it still has not handled after `seconds` is cancelled.
        """
        self._draining = True
        sessions = [*self._sessions.values(), *self._lingering]
        for session in sessions:
            session.close("shutdown", reconnect=True)
        if sessions:
            # One turn of the loop for the last words.
            await asyncio.sleep(0)
            tasks = [asyncio.ensure_future(session.settled()) for session in sessions]
            _, late = await asyncio.wait(tasks, timeout=seconds)
            if late:
                logger.warning("sessions whose handlers did not end in time: %d", len(late))
                for session in sessions:
                    session.cancel()
                await asyncio.wait(late)
        for session in sessions:
            session.finish()
        self.heartbeat.stop()
        self.pressure.stop()

    @property
    def sessions(self) -> int:
        """Open sessions now."""
        return len(self._sessions)

    def new_id(self) -> str:
        """A fresh id: 120 random bits."""
        return secrets.token_urlsafe(15)

    def _new_session_id(self) -> str:
        """A fresh id that names this node, if it has a name."""
        node = self.options.node
        return f"{node}.{self.new_id()}" if node else self.new_id()

    def claim(self, session: Session, user: str) -> bool:
        return self._admission.claim(session, user)

    def release(self, session: Session) -> None:
        self._admission.release(session)

    def forget(self, session: Session) -> None:
        if self._sessions.pop(session.id, None) is not None:
            self.counters.sessions -= 1
            self._admission.leave(session)
            if not self._sessions and self._empty is not None and not self._empty.done():
                self._empty.set_result(None)
        self._polling.discard(session)
        self._look_for_polls()
        if session.working:
            self._lingering.add(session)

    def settled(self, session: Session) -> None:
        self._lingering.discard(session)

    # Requests.

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if not self._origins.allows(request):
            return self._refuse(request, 403, _FORBIDDEN)
        if request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204, headers=self._origins.headers(request))
        query = request.query
        if query.get("EIO") != "4":
            return self._refuse(request, 400, _UNSUPPORTED_VERSION)
        name = query.get("transport")
        if name not in ("polling", "websocket"):
            return self._refuse(request, 400, _UNKNOWN_TRANSPORT)
        if name == "polling" and not self.options.polling:
            return self._refuse(request, 400, _WEBSOCKET_ONLY)
        if is_upgrade(request) != (name == "websocket"):
            return self._refuse(request, 400, _BAD_REQUEST)
        try:
            return await self._serve(request, name, query.get("sid"))
        except ConnectionResetError:
            return self._refuse(request, 400, (3, "The client left"))

    async def _serve(self, request: web.Request, name: str, sid: str | None) -> web.StreamResponse:
        if sid is None:
            return self._handshake(request, name)
        session = self._sessions.get(sid)
        if session is not None and self.heartbeat.expired(session):
            session.lost("ping timeout")
            session.finish()
            session = None
        if session is None or not self._of_its_client(request, name, session):
            return self._refuse(request, 400, _UNKNOWN_SESSION)
        if name == "websocket":
            return self._upgrade(request, session)
        return await self._poll(request, session)

    def _of_its_client(self, request: web.Request, name: str, session: Session) -> bool:
        """Whether a request may be that of the client that shook hands (decision 0017)."""
        if name == "websocket":
            # Clients whose websockets are another library's than their requests name themselves
            # otherwise there. But all of them upgrade at once, or never.
            return self.loop.time() - session.since < _UPGRADE_SECONDS
        agent = Caller.of(request, self.options.address).user_agent
        page = self._origins.page(request)
        # A browser's extension names itself in a POST, and in a GET not.
        same = not page or not session.page or page == session.page
        return same and agent == session.caller.user_agent

    def _handshake(self, request: web.Request, name: str) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            return self._refuse(request, 400, _BAD_METHOD)
        if self._draining:
            return self._refuse(request, 503, (3, "Shutting down"))
        options = self.options
        caller = Caller.of(request, options.address)
        refusal = self._admission.refusal(caller.address)
        if refusal is not None:
            return self._refuse(request, _STATUS[refusal], (3, refusal))
        head = b""
        if name == "websocket":
            try:
                head = accept_response(request)
            except BadHandshake as error:
                return self._refuse(request, 400, (3, str(error)))
        session = Session(
            self,
            self._new_session_id(),
            caller,
            self._origins.page(request),
        )
        upgrades = ["websocket"] if name == "polling" and options.upgrades else []
        opening = open_packet(
            session.id,
            upgrades,
            Handshake(options.ping_interval, options.ping_timeout, options.max_frame),
        )
        response: web.StreamResponse
        if name == "websocket":
            response = take_over(
                request, WebSocket(session, probing=False), head + text_frame(opening)
            )
        else:
            response = self._text(request, opening)
            if options.node:
                response.headers[options.node_header] = options.node
        self._sessions[session.id] = session
        self.counters.sessions += 1
        self._admission.enter(session)
        self.heartbeat.add(session)
        session.expect_connect()
        return response

    def _upgrade(self, request: web.Request, session: Session) -> web.StreamResponse:
        try:
            head = accept_response(request)
        except BadHandshake as error:
            return self._refuse(request, 400, (3, str(error)))
        socket = WebSocket(session, probing=True)
        response = take_over(request, socket, head)
        if (
            session.closing
            or session.socket is not None
            or session.upgrading not in (None, socket)
            or not self.options.upgrades
        ):
            socket.refuse()
        return response

    async def _poll(self, request: web.Request, session: Session) -> web.StreamResponse:
        if session.socket is not None:
            return self._refuse(request, 400, _BAD_REQUEST)
        if session.closing and not session.out.queued:
            return self._refuse(request, 400, _UNKNOWN_SESSION)
        try:
            if request.method == hdrs.METH_GET:
                return self._text(request, await polling.fetch(session, request))
            if request.method == hdrs.METH_POST:
                await polling.bring(session, request)
                return self._text(request, b"ok")
        except polling.PollingError as error:
            return self._refuse(request, error.status, (3, str(error)))
        return self._refuse(request, 400, _BAD_REQUEST)

    def _text(self, request: web.Request, body: bytes) -> web.Response:
        headers = self._origins.headers(request)
        headers[hdrs.CACHE_CONTROL] = "no-store"
        return web.Response(body=body, content_type="text/plain", charset="UTF-8", headers=headers)

    def _refuse(self, request: web.Request, status: int, error: tuple[int, str]) -> web.Response:
        code, message = error
        self.counters.refused[message] += 1
        self.refusals.say(
            "request_refused" if "sid" in request.query else "handshake_refused",
            "origin not allowed" if status == 403 else message,
            Caller.of(request, self.options.address),
            warn=status == 403,
            method=request.method,
        )
        headers = {} if status == 403 else self._origins.headers(request)
        if status in _STATUS.values():
            headers[hdrs.RETRY_AFTER] = "1"
        return web.Response(
            status=status,
            body=orjson.dumps({"code": code, "message": message}),
            content_type="application/json",
            headers=headers,
        )
