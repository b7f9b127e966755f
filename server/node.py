"""One node: its features, and the doors by which clients come to them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NotRequired

import structlog
from aiohttp import web
from typing_extensions import TypedDict

from actions.connections.connections import CHANNEL as CONNECTIONS
from actions.connections.connections import Connections
from config.settings import Environment, Settings
from domain.accounts.accounts import Expiry, network_of
from domain.clock import Clock
from domain.messaging.unread import UnreadTotal
from domain.tracing import Tracing
from fanout.limits import LocalRateLimiter
from handlers.command import Registry
from handlers.connections.connections import ConnectionCommands
from handlers.dispatcher import Dispatcher
from handlers.streams.streams import StreamHead
from server.cluster.nodes import CHANNEL as NODES
from server.cluster.nodes import EVERY as LOOK
from server.cluster.nodes import Neighbours
from server.cluster.peers import Peers
from server.core import Core
from server.docs.asyncapi import asyncapi
from server.docs.openapi import openapi
from server.docs.pages import DocsPages
from server.features import EVENTS, NAMESPACES, Features
from server.gateway import Gateway
from server.health import Health
from server.http.addresses import Addresses
from server.http.cors import Cors
from server.http.departing import Departing
from server.http.door import Door
from server.http.middleware import Surroundings
from server.http.places import Places
from server.http.rest import PREFIX, Rest
from server.http.uploads import OPENAPI as UPLOAD_PATHS
from server.http.uploads import UploadRoutes
from server.jobs.periodic import at_once_and_every, end_all, every
from server.jobs.shared import SharedJobs
from server.limits import limits_of
from server.metrics.cluster import clock_numbers, nodes_numbers, presence_numbers, repair_numbers
from server.metrics.condition import READY_EVERY, SIZE_EVERY, BuildInfo, Condition
from server.metrics.doors import door_numbers
from server.metrics.metrics import Metrics
from server.telemetry.telemetry import node_name
from server.transport.arriving import Arriving
from server.transport.options import TransportOptions
from server.transport.origins import OriginPolicy
from server.transport.packets import encode_event
from server.transport.transport import Transport
from server.version import VERSION
from server.workers.worker import Seat, WorkerMetrics
from store.cluster.leases import LeaseRepository
from store.cluster.nodes import NodeRepository
from store.engine import Engine
from store.uploads.blobs import Blobs

log = structlog.get_logger(__name__)


class Ready(TypedDict):
    """`ready`: the client is in, and follows these streams from here on."""

    connection: str
    user: str
    server_time: str
    streams: dict[str, StreamHead]
    unread: NotRequired[UnreadTotal]
    """On `/messages`."""


class Closing(TypedDict):
    """`closing`: the server is about to close the connection, and whether to come back."""

    code: str
    reconnect: bool


PLAIN_EVENTS: Mapping[str, tuple[Any, str]] = {
    "ready": (Ready, "The connection is in; what was missed was sent before."),
    "closing": (Closing, "The server closes the connection on purpose."),
    "auth.expiring": (Expiry, "The access token ends in 60 seconds: send auth.refresh."),
}
"""Events of every namespace that concern the connection alone and have no envelope."""


class Node:
    """A whole server but for its listening socket: `app` serves HTTP and Socket.IO."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        peers: Peers,
        blobs: Blobs,
        clock: Clock,
        metrics: Metrics,
        seat: Seat | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        bus = peers.bus
        self._settings = settings
        self._engine = engine
        self._blobs = blobs
        self._metrics = metrics
        self._worker_metrics = None if seat is None else WorkerMetrics(seat, metrics)
        self.core = Core(
            engine, bus, clock, encode_event, head_check=settings.head_check, tracing=tracing
        )
        limits, default = limits_of(settings.rate_limits)
        limiter = peers.share_limits(
            LocalRateLimiter(limits, clock, default=default), limits, default
        )
        self.arriving = Arriving(settings.max_body_total)
        self.departing = Departing(settings.send_queue_total)
        self.features = Features(self.core, settings, blobs, limiter, peers.presence)
        name = node_name(settings, seat)
        connections = Connections(self.core.clients, bus, self.core.control, name)
        self.core.listen(CONNECTIONS, connections.receive)
        self._shared_jobs: SharedJobs | None = None
        self._neighbours: Neighbours | None = None
        if engine.shared:  # whether or not there is a bus to others: they may be there
            self._shared_jobs = SharedJobs(LeaseRepository(engine, clock), clock)
            self._neighbours = Neighbours(NodeRepository(engine), bus, clock, name)
            self.core.listen(NODES, self._neighbours.receive)
            self._neighbours.on_died.append(self.core.user_control.all_may_have_missed)
        self.registry = Registry(
            [*self.features.commands, ConnectionCommands(connections)], NAMESPACES
        )
        dispatcher = Dispatcher(limiter, metrics)
        if tracing is not None:
            from server.telemetry.tracing import TracedDispatcher, trace_engine  # noqa: PLC0415 - an extra

            dispatcher = TracedDispatcher(tracing, limiter, metrics)
            trace_engine(engine, tracing)
        gateway = Gateway(
            self.features.accounts.authenticator.authenticate,
            self.registry,
            dispatcher,
            self.core.streams,
            self.core.clients,
            self.features.followers,
            clock,
            self.features.greetings,
        )
        self._addresses = Addresses(
            settings.trusted_proxies, warn=settings.env is Environment.PRODUCTION
        )
        self.transport = Transport(
            gateway,
            self.core.hub,
            _transport_options(settings, self._addresses),
            self.arriving,
        )
        access = self.features.accounts.authenticator.check
        checks = {"store": engine.ping, "uploads": blobs.ping, "access": access}
        if self._neighbours is not None:
            checks["clock"] = self._neighbours.clocks.check
        self.health = Health(checks | ({} if bus.alone else {"bus": bus.check}))
        self._surroundings = surroundings = Surroundings(metrics)
        origins = OriginPolicy(settings.cors_origins.allows, settings.cors_origins.names)
        cors = Cors(origins, PREFIX, self.transport.refusals, self.transport.options.address)
        self.app = web.Application(
            middlewares=[surroundings.surround, cors.handle], client_max_size=settings.max_body
        )
        self.app.on_response_prepare.append(surroundings.on_prepare)
        self.app.on_response_prepare.append(cors.on_prepare)
        self.door = Door(
            limit=2 * settings.max_connections,
            per_address=2 * settings.max_connections_per_address,
            unlimited=self._addresses.are_many,
            refusals=self.transport.refusals,
        )
        self.places = Places(self.app, surroundings, settings.base_path)
        self.transport.attach(self.app)
        self._attach_http(dispatcher)
        self._condition = Condition(engine, self.health, settings.data_dir)
        present = self.features.presence
        metrics.expose(
            *door_numbers(
                self.transport.counters,
                self.core.hub.counters,
                self.door,
                self.arriving,
                self.departing,
            ),
            BuildInfo(),
            *self._condition.numbers(),
            *presence_numbers(present.presences, present.watch),
        )
        if self._neighbours is not None:
            metrics.expose(nodes_numbers(self._neighbours), clock_numbers(self._neighbours.clocks))
        if not bus.alone:
            metrics.expose(repair_numbers(self.core))

    async def drain(self, seconds: float, nobody_polls: Callable[[], object]) -> None:
        """Take nobody new, finish what was begun, and have everybody go elsewhere; the arguments are
        those of `Transport.drain`.
        """
        self.health.draining = self._surroundings.draining = True
        await self.transport.drain(seconds, nobody_polls)

    def _attach_http(self, dispatcher: Dispatcher) -> None:
        rest = Rest(
            self.registry,
            dispatcher,
            self.features.accounts.authenticator.authenticate,
            self._addresses,
            self._settings.max_body,
            self.arriving,
        )
        UploadRoutes(
            rest,
            dispatcher,
            self.features.uploads.uploads,
            self._settings.upload_max,
            self._settings.base_path,
        ).attach(self.app)
        rest.attach(self.app)
        self.health.attach(self.app)
        base = self._settings.base_path
        if (docs := self.places.find(self._settings.docs)) is not None:
            DocsPages(
                openapi(self.registry, VERSION, UPLOAD_PATHS, base),
                asyncapi(self.registry, EVENTS, PLAIN_EVENTS, VERSION, base),
                base,
            ).attach(docs)
        if (metrics := self.places.find(self._settings.metrics)) is not None:
            metrics.router.add_get("/metrics", self._show_metrics)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        if self._worker_metrics is None:
            body, content_type = self._metrics.render(accept)
        else:
            body, content_type = await self._worker_metrics.render(accept)
        return web.Response(body=body, headers={"Content-Type": content_type})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything the node does by itself, between its store's opening and closing."""
        async with AsyncExitStack() as stack:
            await self._blobs.start()
            stack.push_async_callback(self._blobs.stop)
            await self.core.start()
            stack.push_async_callback(self.core.stop)
            await self.features.start()
            stack.push_async_callback(self.features.close)
            self.transport.start()
            stack.push_async_callback(self.transport.stop)
            self._metrics.lag.start()
            stack.callback(self._metrics.lag.stop)
            if self._worker_metrics is not None:
                await self._worker_metrics.start()
                stack.push_async_callback(self._worker_metrics.stop)
            services = [*self.core.services, *self.features.services]
            tasks = [asyncio.ensure_future(service()) for service in services]
            for task in tasks:
                task.add_done_callback(_tell_failure)
            for seconds, name, look in (
                (READY_EVERY, "readiness", self._condition.look_at_readiness),
                (SIZE_EVERY, "size", self._condition.look_at_size),
            ):
                tasks.append(asyncio.ensure_future(at_once_and_every(seconds, name, look)))
            if self._neighbours is not None:
                tasks.append(asyncio.ensure_future(every(LOOK, "nodes", self._neighbours.look)))
                stack.push_async_callback(self._neighbours.leave)
            for job in self.features.jobs:
                work = job.run
                if self._shared_jobs is not None and not job.everywhere:
                    work = self._shared_jobs.one(job.name, job.seconds, job.run)
                tasks.append(asyncio.ensure_future(every(job.seconds, job.name, work)))
            stack.push_async_callback(end_all, tasks)
            yield


def _tell_failure(task: asyncio.Future[Any]) -> None:
    """A service runs as long as the node does: none of them ends without a word."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("service_failed", exc_info=error)


def _transport_options(settings: Settings, addresses: Addresses) -> TransportOptions:
    return TransportOptions(
        node=settings.node_name,
        node_header="Parley-Node",
        ping_interval=settings.ping_interval,
        ping_timeout=settings.ping_timeout,
        origins=settings.cors_origins.allows,
        named_origins=settings.cors_origins.names,
        address=addresses.of,
        network=network_of,
        max_frame=settings.max_frame,
        max_connect=settings.max_connect,
        max_queue=settings.send_queue,
        max_queued_total=settings.send_queue_total,
        stuck_timeout=settings.send_stall,
        max_sessions=settings.max_connections,
        max_sessions_per_address=settings.max_connections_per_address,
        max_sessions_per_user=settings.max_connections_per_user,
        unlimited=addresses.are_many,
        polling=settings.workers == 1,
    )
