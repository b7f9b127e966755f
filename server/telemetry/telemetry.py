"""Errors to Sentry and traces to OpenTelemetry, where a setting says so."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from config.settings import Settings
from domain.tracing import Tracing
from server.workers.worker import Seat

log = structlog.get_logger(__name__)

INSTALL = "pip install --require-hashes -r requirements-telemetry.txt"


class NoTelemetry(Exception):
    """A setting cannot be used, or needs what is not installed; the text says which."""


def node_name(settings: Settings, seat: Seat | None) -> str:
    """This process, as an operator knows it."""
    name = f"{socket.gethostname()}:{settings.port}"
    return name if seat is None else f"{name} worker {seat.number}"


@asynccontextmanager
async def telemetry(settings: Settings, node: str) -> AsyncIterator[Tracing | None]:
    """Send what the settings ask for during the block. None: no traces.

    Raises:
        NoTelemetry: a setting cannot be used, or what it needs is not installed.
    """
    tracing = None
    async with AsyncExitStack() as stack:
        if dsn := settings.sentry_dsn.get_secret_value():
            try:
                from server.telemetry.reports import Reports  # noqa: PLC0415 - an extra
            except ImportError:
                raise NoTelemetry(f"PARLEY_SENTRY_DSN needs {INSTALL}") from None
            try:
                reports = Reports(dsn, settings.env.value, node)
            except ValueError as error:
                raise NoTelemetry(f"PARLEY_SENTRY_DSN: {error}") from None
            stack.push_async_callback(reports.stop)
            root = logging.getLogger()
            root.addHandler(reports)
            stack.callback(root.removeHandler, reports)
        if settings.otlp_endpoint is not None:
            try:
                from server.telemetry.tracing import start  # noqa: PLC0415 - an extra
            except ImportError:
                raise NoTelemetry(f"PARLEY_OTLP_ENDPOINT needs {INSTALL}") from None
            tracing = start(settings.otlp_endpoint, settings.trace_share, node)
            stack.push_async_callback(tracing.stop)
        yield tracing
