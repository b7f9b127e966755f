"""Traces by OpenTelemetry, sent over OTLP/HTTP. Its packages are there where they are wanted
(requirements-telemetry.txt): nothing else imports them.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from domain.errors import Internal, ParleyError, Unavailable
from domain.tracing import Tracing
from handlers.command import Command
from handlers.context import Context
from handlers.dispatcher import Dispatcher
from server.version import VERSION
from store.engine import Engine

_OWN_FAULTS = frozenset({Internal.code, Unavailable.code})
_TRACED = (
    *("append", "read", "head", "heads", "get", "get_many", "find", "find_any_org", "count"),
    *(
        "count_each",
        "count_groups",
        "sum",
        "insert",
        "insert_or_get",
        "update",
        "write",
        "delete",
        "search",
    ),
)
"""What an engine is asked while a command is carried out."""


class OpenTelemetry:
    """Implements `domain.tracing.Tracing`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("parley", VERSION)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self, name: str, kind: str = "internal", parent: str | None = None, **attributes: str
    ) -> Iterator[None]:
        """As `Tracing.span`. An error's code is an attribute; its text may say what people wrote,
        and is not told.
        """
        context = None
        if parent is not None:
            context = self._propagator.extract({"traceparent": parent}, contexts.Context())
        with self._tracer.start_as_current_span(
            name,
            context,
            trace.SpanKind[kind.upper()],
            {f"parley.{each}": value for each, value in attributes.items()},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:
                code = error.code if isinstance(error, ParleyError) else Internal.code
                span.set_attribute("error.type", code)
                if code in _OWN_FAULTS:
                    span.set_status(trace.StatusCode.ERROR)
                raise

    def context(self) -> str | None:
        """As `Tracing.context`."""
        if not trace.get_current_span().is_recording():
            return None
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    async def stop(self) -> None:
        """Send what is left, within some seconds."""
        await asyncio.to_thread(self._provider.shutdown)


def start(endpoint: str, share: float, node: str) -> OpenTelemetry:
    """Begin to send traces.

    Args:
        endpoint: of the collector, without `/v1/traces`.
        share: of the traces that are recorded, from 0 to 1.
        node: this process's name.
    """
    about = {
        "service.name": "parley",
        "service.version": VERSION,
        "service.instance.id": node,
    }
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(share)),
        resource=Resource.create(about),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OpenTelemetry(provider)


class TracedDispatcher(Dispatcher):
    """A dispatcher whose commands are traces."""

    def __init__(self, tracing: Tracing, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracing = tracing

    async def run(self, command: Command, context: Context, *arguments: Any, **named: Any) -> Any:
        """As `Dispatcher.run`."""
        user = "" if context.anonymous else context.principal.user
        with self._tracing.span(
            command.name, "server", door=context.door, user=user, request=context.request_id
        ):
            return await super().run(command, context, *arguments, **named)


def trace_engine(engine: Engine, tracing: Tracing) -> None:
    """Have what an engine is asked be part of the traces."""

    def traced(name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(ask)
        async def asking(*arguments: Any, **named: Any) -> Any:
            if tracing.context() is None:
                return await ask(*arguments, **named)
            with tracing.span(f"store.{name}", "client"):
                return await ask(*arguments, **named)

        return asking

    for name in _TRACED:
        setattr(engine, name, traced(name, getattr(engine, name)))
