"""Whether this process lives, and whether it should be sent work."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web

from domain.errors import ParleyError

log = structlog.get_logger(__name__)

Check = Callable[[], Awaitable[None]]
"""Returns if a part works, raises `ParleyError` with the reason if not."""

TIMEOUT = 3.0


class Health:
    """`/health/live` and `/health/ready`."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self.draining = False
        """Set when the server is shutting down: no new work, please."""

    def attach(self, app: web.Application) -> None:
        """Add both routes."""
        app.router.add_get("/health/live", self.live)
        app.router.add_get("/health/ready", self.ready)

    async def live(self, _request: web.Request) -> web.Response:
        """The event loop turns: that is all it says."""
        return web.json_response({"status": "ok"})

    async def ready(self, _request: web.Request) -> web.Response:
        """Every part works: 200; otherwise 503 with what does not."""
        parts = await self.parts()
        good = all(state == "ok" for state in parts.values())
        return web.json_response(
            {"status": "ok" if good else "unavailable", "checks": parts},
            status=200 if good else 503,
        )

    async def parts(self) -> dict[str, str]:
        """By part: `ok`, or why it does not work."""
        results = await asyncio.gather(*map(self._run, self._checks.values()))
        parts = dict(zip(self._checks, results, strict=True))
        if self.draining:
            parts["server"] = "shutting down"
        return parts

    async def _run(self, check: Check) -> str:
        try:
            async with asyncio.timeout(TIMEOUT):
                await check()
        except TimeoutError:
            return f"no answer within {TIMEOUT:g} s"
        except ParleyError as error:
            return error.message
        except Exception as error:
            log.exception("health_check_failed")
            return type(error).__name__
        return "ok"
