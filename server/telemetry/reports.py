"""Errors sent to Sentry. Its package is there where it is wanted (requirements-telemetry.txt):
nothing else imports it.
"""

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

import sentry_sdk
from sentry_sdk.utils import event_from_exception

from server.version import VERSION

if TYPE_CHECKING:
    from sentry_sdk.types import Event

FLUSH_SECONDS = 2.0

_INTERNAL = frozenset({"event", "level", "timestamp", "exc_info", "exception", "stack_info"})


class Reports(logging.Handler):
    """Sends what is logged as an error: its event, its fields and its traceback, without the values
    of variables. Sending happens in a thread, and loses what is too much.
    """

    def __init__(self, dsn: str, environment: str, node: str) -> None:
        super().__init__(logging.ERROR)
        self._client = sentry_sdk.Client(
            dsn=dsn,
            environment=environment,
            release=f"parley@{VERSION}",
            server_name=node,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry."""
        if record.name.startswith(("sentry_sdk", "urllib3")):
            return
        # structlog hands an entry's fields over in the place of the message.
        fields: dict[str, Any] = record.msg if isinstance(record.msg, dict) else {}
        error = fields.get("exc_info") or record.exc_info
        if error is True:
            error = sys.exc_info()
        elif isinstance(error, BaseException):
            error = (type(error), error, error.__traceback__)
        event: Event = {}
        if isinstance(error, tuple) and error[1] is not None:
            event, _ = event_from_exception(error, self._client.options)
        event["level"] = "fatal" if record.levelno >= logging.CRITICAL else "error"
        event["logger"] = record.name
        event["logentry"] = {"message": str(fields.get("event") or record.getMessage())}
        event["extra"] = {
            name: value
            for name, value in fields.items()
            if name not in _INTERNAL and not name.startswith("_")
        }
        self._client.capture_event(event)

    async def stop(self) -> None:
        """Send what is left, within some seconds."""
        await asyncio.to_thread(self._client.close, timeout=FLUSH_SECONDS)
