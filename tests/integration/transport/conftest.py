"""A running reference server, and clients that speak the protocol by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import uvloop

from tests.integration.transport.clients import RawSocket
from tests.integration.transport.reference import ReferenceServer, serve


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test here runs on both event loops: their transports differ in the details."""
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def options() -> dict[str, Any]:
    """What a module's tests set about the server; the times are those of the official suites."""
    return {"ping_interval": 0.3, "ping_timeout": 0.2, "connect_timeout": 1.0}


@pytest.fixture
async def server(options: dict[str, Any]) -> AsyncIterator[ReferenceServer]:
    async with serve(**options) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


@pytest.fixture
async def raw(server: ReferenceServer) -> AsyncIterator[RawSocket]:
    """A websocket client that may send what no client should; not connected to a namespace."""
    socket = await RawSocket.open(server.port)
    try:
        yield socket
    finally:
        socket.abort()
