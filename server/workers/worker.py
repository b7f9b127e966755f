"""A worker's place among the processes that share a port: what it has of its supervisor and of the
other workers.
"""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from server.metrics.metrics import Metrics

log = structlog.get_logger(__name__)

SIBLING_TIMEOUT = 2.0
"""Seconds for a worker to answer another one that is scraped; beyond, it counts as down."""

READY = b"r"
ALIVE = b"a"
TOLD_ALIVE = 20
"""How often a worker says so within the time after which it would be taken for one that hangs."""

PLAIN = "text/plain"


@dataclass(frozen=True, slots=True)
class Seat:
    """One of the workers that a supervisor runs."""

    number: int
    """From 1."""
    of: int
    directory: Path
    """Where the workers find each other's sockets."""
    supervisor: socket.socket
    """Told when this worker serves; ended by the supervisor's end, which ends this worker too."""

    def path(self, number: int) -> Path:
        """A worker's socket for the others."""
        return self.directory / f"{number}.sock"

    async def tell_ready(self) -> None:
        """This worker serves."""
        self.supervisor.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(self.supervisor, READY)

    async def tell_alive(self, every: float) -> None:
        """Tell the supervisor every so many seconds that this worker's event loop goes on."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(every)
                await loop.sock_sendall(self.supervisor, ALIVE)
        except OSError:
            return  # it is gone, and that ends this worker

    async def orphaned(self) -> None:
        """Return when the supervisor is gone, however it ended."""
        self.supervisor.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            while await loop.sock_recv(self.supervisor, 64):
                pass
        except ConnectionError:
            return


class WorkerMetrics:
    """`/metrics` of all workers, from whichever is asked: the kernel chooses it for each scrape."""

    def __init__(self, seat: Seat, metrics: Metrics) -> None:
        self._seat = seat
        self._metrics = metrics
        app = web.Application()
        app.router.add_get("/metrics", self._show_own)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Be asked by the other workers from now on."""
        await self._runner.setup()
        path = self._seat.path(self._seat.number)
        path.unlink(missing_ok=True)  # a predecessor that crashed left it
        await web.UnixSite(self._runner, str(path)).start()

    async def stop(self) -> None:
        """Be asked no longer."""
        await self._runner.cleanup()

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics of all workers, told apart by the label `worker`, in the format that the
        scraper accepts, with its content type.
        """
        numbers = range(1, self._seat.of + 1)
        texts = dict(zip(numbers, await asyncio.gather(*map(self._ask, numbers)), strict=True))
        encoder, content_type = choose_encoder(accept)
        registry = CollectorRegistry()
        registry.register(Merged(texts))
        return encoder(registry), content_type

    async def _show_own(self, _request: web.Request) -> web.Response:
        body, content_type = self._metrics.render(PLAIN)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _ask(self, number: int) -> str | None:
        if number == self._seat.number:
            return self._metrics.render(PLAIN)[0].decode()
        timeout = aiohttp.ClientTimeout(total=SIBLING_TIMEOUT)
        connector = aiohttp.UnixConnector(str(self._seat.path(number)))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get("http://worker/metrics") as answer,
            ):
                return await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("worker_not_scraped", of=number, error=type(error).__name__)
            return None


class Merged(Collector):
    """The expositions of several workers as one."""

    def __init__(self, texts: Mapping[int, str | None]) -> None:
        """`texts`: by worker, in Prometheus's text format; None for one that is down."""
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        """Each family once, its samples labelled with the worker."""
        up = Metric("parley_worker_up", "Whether a worker answers.", "gauge")
        families: dict[str, Metric] = {}
        for number, text in self._texts.items():
            worker = str(number)
            up.add_sample(up.name, {"worker": worker}, 0 if text is None else 1)
            for family in text_string_to_metric_families(text or ""):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "worker": worker}
                    merged.samples.append(sample._replace(labels=labels))
        yield up
        yield from families.values()
