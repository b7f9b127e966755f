"""The composition root: the place that names concrete engines and buses, and the only one
that knows how a node's parts fit together.
"""

import asyncio
import gc
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
from aiohttp import web
from redis.exceptions import RedisError

from config.settings import Settings, sqlite_path
from config.values import redact_url
from domain.clock import SystemClock
from domain.errors import Unavailable
from domain.tracing import Tracing
from fanout.limits import Limit, LocalRateLimiter, RateLimiter
from fanout.redis.bus import RedisBus
from fanout.redis.limits import RedisRateLimiter
from fanout.redis.presence import RedisPresenceRegistry
from fanout.redis.servers import open_servers
from server import signals
from server.cluster.peers import Peers
from server.features import COLLECTIONS
from server.http.accepting import raise_file_limit
from server.http.listener import Deadline, listen
from server.http.places import CannotListen
from server.metrics.cluster import bus_numbers
from server.metrics.metrics import Metrics
from server.node import Node
from server.telemetry.telemetry import NoTelemetry, node_name, telemetry
from server.version import VERSION
from server.workers.worker import TOLD_ALIVE, Seat
from store.engine import Engine, StoreError
from store.mongo import MongoBlobs, MongoEngine
from store.sqlite import SqliteEngine
from store.uploads.blobs import Blobs
from store.uploads.blobs_disk import DiskBlobs

log = structlog.get_logger(__name__)

DEMO_URL = "http://127.0.0.1:8000"
"""Where `make demo` looks for a server that nobody named."""

STOPPED_IN = 2.0
"""Seconds of `PARLEY_SHUTDOWN_GRACE` that are kept for what follows when no request is left."""


class NotStarted(Exception):
    """The server cannot start; the text says why in one line."""

    def __init__(self, message: str, *, settings: bool = False) -> None:
        super().__init__(message)
        self.settings = settings
        """Whether the cause is a setting."""


async def serve(settings: Settings, seat: Seat | None = None) -> None:
    """Run one node until it is told to stop; with a seat, as one of the workers on one port.

    Raises:
        NotStarted: a setting cannot be used, the port is taken, or the store cannot be opened.
    """
    try:
        async with telemetry(settings, node_name(settings, seat)) as tracing:
            await _serve(settings, seat, tracing)
    except NoTelemetry as error:
        raise NotStarted(str(error), settings=True) from None


async def _serve(settings: Settings, seat: Seat | None, tracing: Tracing | None) -> None:
    raise_file_limit(3 * settings.max_connections + 1024)
    metrics = Metrics()
    engine = make_engine(settings, metrics)
    try:
        await engine.start()
    except (StoreError, Unavailable, OSError) as error:
        where = redact_url(settings.store_url)
        raise NotStarted(f"{str(error).rstrip('.')} (PARLEY_STORE_URL={where})") from None
    try:
        blobs = make_blobs(settings)
        peers = make_peers(settings, metrics)
        try:
            node = Node(settings, engine, peers, blobs, SystemClock(), metrics, seat, tracing)
            async with AsyncExitStack() as stack:
                try:
                    await stack.enter_async_context(node.running())
                except Unavailable as error:
                    raise NotStarted(str(error).rstrip(".")) from None
                _settle_garbage()
                try:
                    await stack.enter_async_context(
                        node.places.serving(reuse_port=seat is not None)
                    )
                except CannotListen as error:
                    raise NotStarted(str(error)) from None
                await _listen(settings, node, seat)
        finally:
            await peers.close()
    finally:
        await engine.stop()


def _settle_garbage() -> None:
    """Have the cycle collector leave alone what was made at start, and look at the rest less often.

    Nearly everything here is freed by its reference count. With the default threshold of 700
    containers a busy node spends a sixth of its time looking at connections for cycles that are
    not there (docs/benchmarks.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _listen(settings: Settings, node: Node, seat: Seat | None) -> None:
    runner = web.AppRunner(
        node.app,
        access_log=None,
        shutdown_timeout=settings.shutdown_grace,
        handler_cancellation=False,
    )
    await runner.setup()
    stop, deadline = asyncio.Event(), Deadline()
    signals.heed(stop.set)
    try:
        try:
            listener = await listen(
                runner,
                settings.host,
                settings.port,
                base_path=settings.base_path,
                reuse_port=seat is not None,
                door=node.door,
                arriving=node.arriving,
                departing=node.departing,
                deadline=deadline,
            )
        except OSError as error:
            told = CannotListen(settings.host, settings.port, error, "PARLEY_PORT")
            raise NotStarted(str(told)) from None
        if seat is None:
            welcome(settings, listener.sockets[0].getsockname()[1])
        else:
            await _sit_down(seat, settings.worker_timeout, stop)
        await stop.wait()
        log.info("stopping", connections=node.transport.sessions)
        grace = settings.shutdown_grace
        deadline.at = asyncio.get_running_loop().time() + grace - min(STOPPED_IN, grace / 4)
        # New connections are taken for as long as somebody polls, whose requests may each come on
        # one. Workers have nobody who does, and on their port a stopping one must not get any.
        await node.drain(grace / 2, listener.close)
    finally:
        await runner.cleanup()
    log.info("stopped")


async def _sit_down(seat: Seat, timeout: float, stop: asyncio.Event) -> None:
    """Tell the supervisor that this worker serves, and then, several times within `timeout` seconds,
    that it goes on, drained or not; stop when the supervisor is gone.
    """
    log.info("started", version=VERSION, worker=seat.number)
    await seat.tell_ready()
    for task in (seat.orphaned(), seat.tell_alive(timeout / TOLD_ALIVE)):
        asyncio.ensure_future(task).add_done_callback(lambda _: stop.set())


def welcome(settings: Settings, port: int) -> None:
    """Say where the server is."""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log.info(
        "started",
        version=VERSION,
        url=url + settings.base_path,
        store=settings.store_url.partition(":")[0],
    )
    if settings.json_logs:
        return
    docs = {"on": url, "off": None}.get(settings.docs, f"http://{settings.docs}")
    base = settings.base_path
    pages = (
        ""
        if docs is None
        else f"""    API and try-out    {docs}{base}/docs
    Socket events      {docs}{base}/asyncapi.json
"""
    )
    demo = "make demo" if url == DEMO_URL else f"make demo PARLEY_URL={url}"
    print(  # noqa: T201 - for the person at the terminal
        f"""
  Parley {VERSION} is at {url}{base}

{pages}    Data               {settings.data_dir.resolve()}

  Make the first user:

    curl {url}{base}/api/v1/auth/register -H 'Content-Type: application/json' \\
      -d '{{"email": "ada@example.com", "password": "Analytical-Engine-1", "name": "Ada"}}'

  See two people talk:  {demo}
""",
        flush=True,
    )


def make_engine(settings: Settings, metrics: Metrics | None = None) -> Engine:
    """The engine that `STORE_URL` names."""
    if not settings.store_url.startswith("sqlite:"):
        return MongoEngine(
            settings.store_url,
            COLLECTIONS,
            clock=SystemClock(),
            timeout=settings.store_timeout,
            pool=settings.store_pool,
            queue_limit=settings.store_queue,
            observer=metrics,
        )
    return SqliteEngine(
        sqlite_path(settings.store_url),
        COLLECTIONS,
        clock=SystemClock(),
        synchronous=settings.sqlite_synchronous.value,
        busy_timeout=settings.store_timeout,
        queue_limit=settings.store_queue,
        page_bytes=settings.sqlite_cache,
        observer=metrics,
    )


def uploads_directory(settings: Settings) -> Path:
    """Where uploads are, beside SQLite."""
    return settings.data_dir / "uploads"


def make_blobs(settings: Settings) -> Blobs:
    """Where uploads are kept: beside SQLite in files, with MongoDB where every node has them."""
    if settings.store_url.startswith("sqlite:"):
        return DiskBlobs(uploads_directory(settings))
    return MongoBlobs(
        settings.store_url,
        clock=SystemClock(),
        timeout=settings.store_timeout,
        pool=settings.store_pool,
    )


def make_peers(settings: Settings, metrics: Metrics | None = None) -> Peers:
    """The ways to the other nodes, over the Redis that `REDIS_URL` names; without it there are
    none.

    Raises:
        NotStarted: the URL cannot be used.
    """
    if settings.redis_url is None:
        return Peers()
    clock, prefix = SystemClock(), settings.redis_prefix
    try:
        servers = open_servers(settings.redis_url)
    except (ValueError, RedisError) as error:
        raise NotStarted(f"PARLEY_REDIS_URL: {error}", settings=True) from None
    bus = RedisBus(servers, clock, prefix=prefix)
    if metrics is not None:
        metrics.expose(*bus_numbers(bus))

    def share_limits(
        local: LocalRateLimiter, limits: Mapping[str, Limit | None], default: Limit | None
    ) -> RateLimiter:
        return RedisRateLimiter(servers, local, limits, clock, default=default, prefix=prefix)

    presence = RedisPresenceRegistry(servers, bus, clock, prefix=prefix)
    return Peers(bus, presence, share_limits, servers.close)
