"""The official JavaScript client, on every transport it has."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.transport.clients import until
from tests.integration.transport.reference import ReferenceServer

NODE = Path(__file__).parents[2] / "node"
BINARY = {"equal": True, "text": "text", "last": [1, 2, 3], "ack": True}


@pytest.fixture
def options() -> dict[str, object]:
    """Pings are seen; no limit is met by a client that the machine lets stand still for a while.

    One of those would be the end of `close_timeout` between a client's last poll and its upgrade:
    it would never hear why it was closed.
    """
    return {"ping_interval": 0.5, "ping_timeout": 20.0, "close_timeout": 15.0}


async def run(server: ReferenceServer, case: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        "node",
        "transport.mjs",
        server.url,
        case,
        cwd=NODE,
        env={**os.environ, "DEBUG": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    result = json.loads(output)
    await until(lambda: not server.application.connections)
    await until(lambda: server.transport.sessions == 0)
    return result


async def test_polling_only(server: ReferenceServer) -> None:
    assert await run(server, "polling") == {
        "auth": {},
        "answers": list(range(60)),
        "binary": BINARY,
        "transport": "polling",
    }


async def test_websocket_only(server: ReferenceServer) -> None:
    assert await run(server, "websocket") == {
        "answers": list(range(60)),
        "binary": BINARY,
        "transport": "websocket",
    }


async def test_a_burst_over_polling_and_through_the_upgrade(server: ReferenceServer) -> None:
    assert await run(server, "upgrade") == {
        "first": list(range(60)),
        "second": list(range(60)),
        "binary": BINARY,
        "transport": "websocket",
    }


async def test_it_reconnects_when_told_to(server: ReferenceServer) -> None:
    result = await run(server, "reconnect")
    assert result == {
        "closing": {"code": "slow_consumer", "reconnect": True},
        "reason": "transport close",
        "other": True,
        "answers": [0, 1, 2],
    }


async def test_it_stays_away_when_told_to(server: ReferenceServer) -> None:
    assert await run(server, "stay_away") == {
        "closing": {"code": "revoked", "reconnect": False},
        "reason": "io server disconnect",
        "active": False,
    }


async def test_namespaces_share_a_session(server: ReferenceServer) -> None:
    assert await run(server, "namespaces") == {
        "errors": [
            {"message": "No entry", "data": {"code": "forbidden"}},
            {"message": "Invalid namespace", "data": None},
        ],
        "answers": [[0, 1], [0, 1]],
        "shared": True,
    }
