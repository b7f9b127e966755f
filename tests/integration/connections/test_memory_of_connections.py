"""A server is no larger after tens of thousands of connections than after the first thousands."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import StartServer
from tests.integration.transport.clients import RawSocket
from tests.support.rest import Api

AT_ONCE = 20
Visit = Callable[[], Awaitable[None]]


def rss(pid: int) -> int:
    """Bytes of memory that a process has."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


async def visits(visit: Visit, count: int) -> None:
    left = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in left:
            await visit()

    await asyncio.gather(*[one_after_the_other() for _ in range(AT_ONCE)])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("known", [False, True], ids=["strangers", "members"])
async def test_connections_that_are_over_leave_nothing(
    start_server: StartServer, full: bool, known: bool
) -> None:
    server = start_server(RATE_LIMITS="off", LOG_LEVEL="warning")
    port = urlsplit(server.url).port
    assert port is not None
    async with Api(server.url) as api:
        token = (await api.register("Ann")).token

    async def visit() -> None:
        socket = await RawSocket.open(port)
        if known:
            socket.send("40/messages," + json.dumps({"token": token}))
            assert (await socket.receive()).startswith("40/messages,")
        socket.abort()

    count = (10_000 if known else 50_000) if full else 3_000
    # What is kept of many, within bounds, fills up first: nothing grows any more after some thousands.
    await visits(visit, 10_000 if known else 2_000)
    # What stays of each connection stays in every round; what the allocator keeps once, in one.
    grown = []
    for _ in range(3):
        before = rss(server.pid)
        await visits(visit, count)
        grown.append(rss(server.pid) - before)
        if grown[-1] < 1_000_000 + 20 * count:
            return
    pytest.fail(f"grew by {grown} bytes in rounds of {count}")
