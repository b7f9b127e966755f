"""Prometheus metrics. Hot paths count in plain integers; they are read when somebody scrapes."""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The process's metrics, and the observers that other layers are given."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._outcomes: dict[tuple[str, str], int] = {}
        self.registry.register(
            Counts(
                "parley_commands",
                "Commands by name and outcome.",
                ("command", "outcome"),
                self._outcomes,
            )
        )
        self._command_seconds = Distributions(
            "parley_command_seconds", "Time a command took.", _SECONDS, ("command",)
        )
        self.registry.register(self._command_seconds)
        self.requests = Counter(
            "parley_http_requests_total",
            "REST requests by route, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        append_seconds = Distributions(
            "parley_append_seconds",
            "Time from asking for an append to its being safe on disk.",
            _SECONDS,
        )
        self.registry.register(append_seconds)
        self._append_seconds = append_seconds.of()
        batch = Distributions(
            "parley_commit_batch_size",
            "Writes per commit.",
            (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
        )
        self.registry.register(batch)
        self._batch = batch.of()
        self.lag = LoopLag(self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def command(self, name: str, outcome: str, seconds: float) -> None:
        """One command ended."""
        key = (name, outcome)
        self._outcomes[key] = self._outcomes.get(key, 0) + 1
        self._command_seconds.of(name).observe(seconds)

    def append(self, seconds: float) -> None:
        """One append is safe on disk."""
        self._append_seconds.observe(seconds)

    def batch(self, size: int) -> None:
        """One commit held this many writes."""
        self._batch.observe(size)

    def expose(self, *collectors: Collector) -> None:
        """Add collectors that are asked at each scrape."""
        for each in collectors:
            self.registry.register(each)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format the scraper accepts, with its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


class Distribution:
    """How often values of one kind fell into which bucket. Used by one thread; the library's own
    histogram takes a lock for each value, which a busy node feels.
    """

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Upper bounds as the exposition format writes them, and how many values were at most that."""
        bounds = (*(str(float(bound)) for bound in self._bounds), "+Inf")
        return zip(bounds, accumulate(self.counts), strict=True)


class Distributions(Collector):
    """A histogram with labels, read at each scrape."""

    def __init__(
        self, name: str, help: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        self._name = name
        self._help = help
        self._bounds = bounds
        self._labels = labels
        self._kept: dict[tuple[str, ...], Distribution] = {}

    def of(self, *values: str) -> Distribution:
        """The distribution with these values of the labels."""
        kept = self._kept.get(values)
        if kept is None:
            kept = self._kept[values] = Distribution(self._bounds)
        return kept

    def collect(self) -> Iterator[Metric]:
        """One family."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for values, kept in self._kept.items():
            family.add_metric(values, list(kept.buckets()), kept.total)
        yield family


class Counts(Collector):
    """A counter with labels that is kept in a dictionary, read at each scrape."""

    def __init__(
        self, name: str, help: str, labels: Sequence[str], counts: Mapping[Any, int]
    ) -> None:
        self._name = name
        self._help = help
        self._labels = labels
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """One family."""
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        yield family


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
