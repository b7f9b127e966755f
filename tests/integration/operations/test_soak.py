"""Visitors who come, write and go, for as long as one likes: the server's memory stays where it is.

`SOAK_SECONDS=3600 make test ARGS="--full tests/integration/operations/test_soak.py"` is an hour of it.
"""

import asyncio
import itertools
import os

import pytest

from tests.conftest import StartServer
from tests.integration.connections.test_memory_of_connections import rss
from tests.support.client import connect
from tests.support.rest import Api

A_SECOND = 50
PEOPLE = 100
SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
MOST = 1_000_000
"""Bytes a minute that it may grow by, beside `SLACK`."""
SLACK = 2_000_000


@pytest.mark.long
@pytest.mark.timeout(SECONDS * 2 + 120)
async def test_memory_is_flat_while_visitors_come_and_go(start_server: StartServer) -> None:
    # A cache that is full soon: it is meant to fill, and is no leak.
    server = start_server(RATE_LIMITS="off", LOG_LEVEL="warning", SQLITE_CACHE="2MiB")
    async with Api(server.url) as api:
        people = [await api.register(f"Person{number}") for number in range(PEOPLE)]
        rooms = []
        for first in range(0, PEOPLE, 10):
            async with Api(server.url, people[first].token) as own:
                members = [each.id for each in people[first + 1 : first + 10]]
                fields = {"kind": "group", "title": "Soak", "members": members}
                room = await own.post("/conversations", {**fields, "client_id": "room"}, 201)
                rooms.append(room["id"])
    numbers = itertools.count()

    async def visit() -> None:
        number = next(numbers)
        who = number % PEOPLE
        async with await connect(server.url, "/messages", people[who].token) as client:
            room = rooms[who // 10]
            fields = {"conversation": room, "client_id": f"v{number}", "body": f"visit {number}"}
            message = await client.call("message.send", fields)
            await client.call("message.read", {"conversation": room, "seq": message["seq"]})
            presence = await client.join("/presence")
            watched = [each.id for each in people[who // 10 * 10 : who // 10 * 10 + 10]]
            await presence.call("presence.watch", {"users": watched})

    async def come(seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * A_SECOND)):
                await asyncio.sleep(max(0.0, began + number / A_SECOND - loop.time()))
                group.create_task(visit())

    await come(SECONDS / 4)
    sizes = [rss(server.pid)]
    for _ in range(3):
        await come(SECONDS / 4)
        sizes.append(rss(server.pid))
    grown = sizes[-1] - sizes[0]
    assert grown < SLACK + MOST * SECONDS * 3 / 4 / 60, sizes
