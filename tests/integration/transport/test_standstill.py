"""A process that stood still, and work that others gave up, are not the client's fault."""

import asyncio
import time
from typing import Any

import pytest

from server.transport.heartbeat import STOOD_STILL_SECONDS
from tests.integration.transport.clients import Closed, RawSocket
from tests.integration.transport.reference import ReferenceServer

STANDSTILL = STOOD_STILL_SECONDS + 0.6
"""Longer than interval and timeout of the pings together."""


@pytest.fixture
def options() -> dict[str, Any]:
    return {"ping_interval": 0.3, "ping_timeout": 0.2, "connect_timeout": 1.0}


async def answer_slowly(socket: RawSocket) -> None:
    """As over a real network: the answer to a ping is not there in the same moment."""
    await asyncio.sleep(0.05)
    socket.send("3")


async def still_there(socket: RawSocket) -> None:
    socket.send('420["message-with-ack"]')
    while True:
        packet = await socket.receive(pings=True)
        if packet == "2":
            await answer_slowly(socket)
        elif packet == "430[]":
            return


async def test_nobody_is_ended_who_was_not_asked(raw: RawSocket) -> None:
    await raw.connect()
    time.sleep(STANDSTILL)
    assert await raw.receive(pings=True) == "2"
    await answer_slowly(raw)
    await still_there(raw)


async def test_who_was_asked_before_has_the_time_to_answer(raw: RawSocket) -> None:
    await raw.connect()
    assert await raw.receive(pings=True) == "2"
    time.sleep(STANDSTILL)
    await answer_slowly(raw)
    await still_there(raw)


async def test_who_does_not_answer_is_ended_all_the_same(raw: RawSocket) -> None:
    await raw.connect()
    time.sleep(STANDSTILL)
    assert await raw.receive(pings=True) == "2"
    with pytest.raises(Closed):
        await raw.receive(pings=True)


async def test_a_cancelled_handler_loses_no_packet_behind_it(
    server: ReferenceServer, raw: RawSocket
) -> None:
    await raw.connect()
    raw.send('42["cancelled"]')
    for number in range(3):
        raw.send(f'42{number}["message-with-ack",{number}]')
    assert [await raw.receive() for _ in range(3)] == [f"43{n}[{n}]" for n in range(3)]
    assert len(server.application.events) == 4
