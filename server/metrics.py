"""Prometheus metrics. Hot paths count in plain integers; they are read when somebody scrapes."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The process's metrics, and the observers that other layers are given."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._command_count = Counter(
            "parley_commands_total",
            "Commands by name and outcome.",
            ("command", "outcome"),
            registry=self.registry,
        )
        self._command_seconds = Histogram(
            "parley_command_seconds",
            "Time a command took.",
            ("command",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._children: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self.requests = Counter(
            "parley_http_requests_total",
            "REST requests by route, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._append_seconds = Histogram(
            "parley_append_seconds",
            "Time from asking for an append to its being safe on disk.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch = Histogram(
            "parley_commit_batch_size",
            "Writes per commit.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self.registry,
        )
        self.lag = LoopLag(self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def command(self, name: str, outcome: str, seconds: float) -> None:
        """One command ended."""
        children = self._children.get((name, outcome))
        if children is None:
            children = self._children[name, outcome] = (
                self._command_count.labels(name, outcome),
                self._command_seconds.labels(name),
            )
        children[0].inc()
        children[1].observe(seconds)

    def append(self, seconds: float) -> None:
        """One append is safe on disk."""
        self._append_seconds.observe(seconds)

    def batch(self, size: int) -> None:
        """One commit held this many writes."""
        self._batch.observe(size)

    def expose(self, collector: Collector) -> None:
        """Add a collector that is asked at each scrape."""
        self.registry.register(collector)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format the scraper accepts, with its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


class Numbers(Collector):
    """Shows numbers kept elsewhere, read at each scrape."""

    def __init__(
        self,
        name: str,
        help: str,
        read: Callable[[], Mapping[str, float] | float],
        *,
        label: str = "kind",
        counter: bool = False,
    ) -> None:
        self._name = name
        self._help = help
        self._read = read
        self._label = label
        self._family = CounterMetricFamily if counter else GaugeMetricFamily

    def collect(self) -> Iterator[Metric]:
        """One family, one sample per label value."""
        value = self._read()
        if isinstance(value, Mapping):
            family = self._family(self._name, self._help, labels=(self._label,))
            for key, number in value.items():
                family.add_metric((key,), number)
        else:
            family = self._family(self._name, self._help, value=value)
        yield family


class LoopLag:
    """How late the event loop runs what is due: the time others wait for somebody's slow code."""

    INTERVAL = 0.25

    def __init__(self, registry: CollectorRegistry) -> None:
        self._histogram = Histogram(
            "parley_event_loop_lag_seconds",
            "How late a timer of the event loop fires.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
            registry=registry,
        )
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure from now on, in the running loop."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self.INTERVAL
        self._timer = loop.call_at(due, self._tick, due)

    def _tick(self, due: float) -> None:
        self._histogram.observe(max(0.0, asyncio.get_running_loop().time() - due))
        self.start()

    def stop(self) -> None:
        """Measure no longer."""
        if self._timer is not None:
            self._timer.cancel()
