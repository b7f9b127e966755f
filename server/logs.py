"""Structured logs: JSON in production, readable in development. Never a token or a message body."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from aiohttp.http import HttpProcessingError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""C0, C1 and what turns the direction of writing."""

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
    if not json:
        # As text before it is shown, so that it is written out too.
        finish += [structlog.processors.format_exc_info, _escape]
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
    logging.getLogger("aiohttp.server").filters = [_Strangers(threshold)]
    for noisy in ("aiohttp.access", "engineio", "socketio", "asyncio"):
        logging.getLogger(noisy).setLevel(max(threshold, logging.WARNING))


_LEFT = ("Connection lost",)
"""What aiohttp says if a peer goes while an answer waits for it, without having been reset."""


class _Strangers(logging.Filter):
    """What is no HTTP, or broken off, is an error of who sent it: a line without a traceback, or
    anybody could fill the log.
    """

    def __init__(self, threshold: int) -> None:
        super().__init__()
        self._threshold = threshold

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, as what it is."""
        error = record.exc_info[1] if record.exc_info else None
        left = type(error) is ConnectionError and error.args == _LEFT
        if left or isinstance(error, HttpProcessingError | ConnectionResetError):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args = "request_unreadable: %s", (type(error).__name__,)
            record.exc_info = None
        return record.levelno >= self._threshold


def _escape(
    _logger: Any, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """What strangers wrote does not steer the terminal that shows it: control characters are
    written out. Tracebacks, which `exception` and `stack` hold, keep their lines, set in, so that a
    line of an error's text does not look like an entry of its own.
    """
    for name, value in entry.items():
        if not isinstance(value, str) or value.isprintable():
            continue
        if name in {"exception", "stack"}:
            lines = value.split("\n")
            entry[name] = "\n".join("  " + _CONTROL.sub(_written_out, line) for line in lines)
        else:
            entry[name] = _CONTROL.sub(_written_out, value)
    return entry


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _redact(
    _logger: Any, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The last line of defence: a field with a secret's name never shows its value."""
    for name in _SECRET & entry.keys():
        entry[name] = "[redacted]"
    return entry
