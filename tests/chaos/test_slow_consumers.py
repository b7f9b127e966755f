"""Clients that stop reading: nobody else feels it, memory stays bounded, they miss nothing."""

import asyncio
import itertools
import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.reader import Reader
from tests.conftest import StartServer
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess

ROOM = 20
"""Connections in each room; one of them stops reading, which makes 5 %."""

DEVICES = 4
"""Connections of each user."""

PADDING = "x" * 8000

PER_SECOND = 4.0
"""Messages in each room."""

MIB = 1024 * 1024

SEND_QUEUE = MIB
"""What the server lets wait for one client (SEND_QUEUE)."""


class Room(NamedTuple):
    id: str
    readers: list[Reader]
    stopped: Reader


async def _furnish(api: Api, number: int, port: int) -> Room:
    people: list[Account] = [
        await api.register(f"R{number}P{each}") for each in range(ROOM // DEVICES)
    ]
    body = {"kind": "group", "members": [each.id for each in people[1:]], "client_id": "room"}
    room = (await people[0].api.post("/conversations", body, 201))["id"]
    readers = [
        Reader(port, person.token, f"messages/{room}") for person in people for _ in range(DEVICES)
    ]
    for person in people:
        await person.api.close()
    stopped = readers.pop()
    await asyncio.gather(
        stopped.connect(receive_buffer=4096), *(reader.connect() for reader in readers)
    )
    return Room(room, readers, stopped)


async def _send_steadily(rooms: list[Room], stop: asyncio.Event) -> int:
    """Send in every room in turn, evenly spread. Returns how many were sent."""
    numbers = itertools.count()
    pause = 1 / PER_SECOND / len(rooms)
    due = time.monotonic()
    sent = 0
    while not stop.is_set():
        for room in rooms:
            room.readers[0].send(room.id, next(numbers), PADDING)
            sent += 1
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    return sent


def _p99(rooms: list[Room]) -> float:
    found = sorted(
        latency for room in rooms for reader in room.readers for latency in reader.latencies
    )
    for room in rooms:
        for reader in room.readers:
            reader.latencies.clear()
    return found[int(len(found) * 0.99)]


def _rss(pid: int) -> int:
    """Resident bytes of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.M)
    assert found
    return int(found[1]) * 1024


async def _closes(api: Api) -> float:
    metrics = (await api.request("GET", "//metrics")).body.decode()
    found = re.search(r'^parley_closes_total\{code="slow_consumer"\} (\S+)$', metrics, re.M)
    return float(found[1]) if found else 0.0


@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_who_stops_reading_harms_nobody_and_catches_up(
    start_server: StartServer, full: bool
) -> None:
    # Other work of the machine may fall into one of the two phases that are compared: what the
    # server does to the others is there each time.
    for attempt in range(3):
        normal, pressed = await _press(start_server(), full)
        if pressed < max(2 * normal, normal + 0.05):
            return
        print(f"attempt {attempt + 1}: the others waited longer while some did not read")
    pytest.fail("the others waited longer, three times of three")


async def _press(server: ServerProcess, full: bool) -> tuple[float, float]:
    """Stop some readers under load and let them come back; everything but the others' p99 before
    and meanwhile, which it returns, is checked here.
    """
    async with Api(server.url) as api:
        rooms = [await _furnish(api, each, server.port) for each in range(50 if full else 10)]
        stopped = [room.stopped for room in rooms]
        everyone = [reader for room in rooms for reader in (*room.readers, room.stopped)]
        stop = asyncio.Event()
        sending = asyncio.create_task(_send_steadily(rooms, stop))
        try:
            await asyncio.sleep(1)  # until caches are warm
            _p99(rooms)
            began = time.monotonic()
            while time.monotonic() - began < (8 if full else 4):
                assert await _closes(api) == 0
                await asyncio.sleep(0.1)
            normal, memory = _p99(rooms), _rss(server.pid)
            for reader in stopped:
                reader.stop_reading()
            began, most = time.monotonic(), memory
            while await _closes(api) < len(stopped):
                assert time.monotonic() - began < 60, f"{await _closes(api)} were closed"
                most = max(most, _rss(server.pid))
                await asyncio.sleep(0.1)
            closed_after = time.monotonic() - began
            pressed = _p99(rooms)
            assert not any(reader.closed.is_set() for room in rooms for reader in room.readers)
            for reader in stopped:
                reader.go_on_reading()
            async with asyncio.timeout(10):
                await asyncio.gather(*(reader.closed.wait() for reader in stopped))
            told = [reader.closing for reader in stopped if reader.closing is not None]
            missed = sum(room.readers[0].received - room.stopped.received for room in rooms)
            await asyncio.gather(*(reader.connect() for reader in stopped))
            await asyncio.sleep(1)  # live again, beside the others
        finally:
            stop.set()
            sent = await sending
        async with asyncio.timeout(20):
            while any(
                reader.position != room.readers[0].position or reader.received < sent / len(rooms)
                for room in rooms
                for reader in (*room.readers, room.stopped)
            ):
                await asyncio.sleep(0.05)
        for reader in everyone:
            reader.abort()
        await asyncio.gather(*(reader.closed.wait() for reader in everyone))
        print(
            f"\n{len(everyone)} connections, {len(stopped)} stopped reading; {sent} messages, "
            f"{sum(each.received for each in everyone)} deliveries; p99 of the others "
            f"{normal * 1000:.1f} ms before, {pressed * 1000:.1f} ms meanwhile; closed within "
            f"{closed_after:.1f} s, {len(told)} were told; memory {memory / MIB:.0f} MiB before, "
            f"{most / MIB:.0f} MiB at most; {missed} messages caught up"
        )
        assert all(each == {"code": "slow_consumer", "reconnect": True} for each in told)
        assert [fault for reader in everyone for fault in reader.faults] == []
        assert all(all(reader.recovered) for reader in everyone)
        assert {reader.received for reader in everyone} == {sent // len(rooms)}
        # Beside its own queue each has the socket's buffers, which are the kernel's.
        assert most - memory < len(stopped) * 1.5 * SEND_QUEUE + 32 * MIB
        return normal, pressed
