"""Structured logs: JSON in production, readable in development. Never a token or a message body."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET = frozenset(
    {"token", "access_token", "refresh_token", "password", "authorization", "secret", "body"}
)


def configure(*, level: str, json: bool) -> None:
    """Send the program's logs, and the libraries', to standard error in one form.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        json: one JSON object per line instead of readable lines.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    finish: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta
    ]
    if json:
        # Without local variables: they may hold tokens and messages.
        without_locals = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        finish.append(structlog.processors.ExceptionRenderer(without_locals))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[*finish, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for noisy in ("aiohttp.access", "engineio", "socketio", "asyncio"):
        logging.getLogger(noisy).setLevel(max(threshold, logging.WARNING))


def _redact(
    _logger: Any, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The last line of defence: a field with a secret's name never shows its value."""
    for name in _SECRET & entry.keys():
        entry[name] = "[redacted]"
    return entry
