"""What Sentry is sent, by a stand-in for it."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiohttp import web

from server.logs import configure
from server.telemetry.reports import Reports


@asynccontextmanager
async def sentry() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a stand-in, and the events that come to it."""
    events: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        lines = body.split(b"\n")
        for head, item in zip(lines[1::2], lines[2::2], strict=False):
            if json.loads(head)["type"] == "event":
                events.append(json.loads(item))
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/api/7/envelope/", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://key@127.0.0.1:{runner.addresses[0][1]}/7", events
    finally:
        await runner.cleanup()


async def test_errors_are_sent_and_nothing_less() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure(level="info", json=True)
        async with sentry() as (dsn, events):
            reports = Reports(dsn, "production", "node-a")
            root.addHandler(reports)
            log = structlog.get_logger("parley.test")
            log.info("request", path="/")
            log.warning("bus_away")
            hidden = "not to be told"
            try:
                raise ValueError("broken")
            except ValueError:
                log.exception("command_failed", command="message.send", token=hidden)
            logging.getLogger("asyncio").error("Task was destroyed")
            await reports.stop()
            async with asyncio.timeout(5):
                while len(events) < 2:
                    await asyncio.sleep(0.01)
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()
    first, second = sorted(events, key=lambda event: "exception" not in event)
    assert first["logentry"]["message"] == "command_failed"
    assert first["extra"]["command"] == "message.send"
    (error,) = first["exception"]["values"]
    assert (error["type"], error["value"]) == ("ValueError", "broken")
    assert hidden not in json.dumps(first)
    assert (first["environment"], first["server_name"]) == ("production", "node-a")
    assert second["logentry"]["message"] == "Task was destroyed"
