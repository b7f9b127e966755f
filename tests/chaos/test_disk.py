"""A store that cannot be written to: refused honestly, nothing acknowledged lost, healed by itself."""

import asyncio
import os
import resource
import sqlite3
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.load import Load
from tests.conftest import StartServer
from tests.support.rest import PASSWORD, Account, Api
from tests.support.server import ServerFailed, ServerProcess

DISK = 64 * 1024 * 1024
"""Bytes: several times what the write-ahead log takes."""

MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own under the first server's data: one that can be filled."""
    data = tmp_path / "server-1" / "data"
    data.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "parley-test", data],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk. It takes the right to mount: {mounted.stderr}")
    try:
        yield data
    finally:
        subprocess.run(["umount", "--lazy", data], check=True)


class Outage(ABC):
    """Something that keeps a running server from writing."""

    settings: dict[str, object] = {}  # noqa: RUF012 - read only
    writes_files = True
    """Whether other files can be written meanwhile."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def end(self) -> None: ...


class FullDisk(Outage):
    """No byte is left on the file system of the data."""

    writes_files = False

    @property
    def filler(self) -> Path:
        return self.server.data_dir / "filler"

    def begin(self) -> None:
        fill(self.filler)

    def end(self) -> None:
        self.filler.unlink()


def fill(path: Path) -> None:
    """Take all the space there is with one file."""
    with path.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


class FileLimit(Outage):
    """The process may not let files grow (RLIMIT_FSIZE): a full disk for who may not mount one."""

    def begin(self) -> None:
        allowed = self.server.log_path.stat().st_size + MIB // 4
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (allowed, resource.RLIM_INFINITY))

    def end(self) -> None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, unlimited)


class LockedFile(Outage):
    """Somebody else holds the database's write lock."""

    settings = {"STORE_TIMEOUT": "0.5"}  # noqa: RUF012 - read only

    def begin(self) -> None:
        path = self.server.data_dir / "parley.db"
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                continue

    def end(self) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", [FullDisk, FileLimit, LockedFile])
async def test_an_outage_of_the_store_heals_by_itself(
    kind: type[Outage], request: pytest.FixtureRequest, start_server: StartServer, full: bool
) -> None:
    if kind is FullDisk:
        request.getfixturevalue("small_disk")
    server = await asyncio.to_thread(start_server, **kind.settings)
    pid = server.pid
    async with Api(server.url) as api, Load(api, senders=4, listeners=2, rooms=2) as load:
        await load.progress(300)
        recoveries = []
        for _ in range(5 if full else 2):
            recoveries.append(await _go_through(kind(server), server, api, load))
            await load.progress(100)
        await load.finish()
        print(
            f"\n{kind.__name__}: {len(recoveries)} outages, "
            f"{sum(each.unavailable for each in load.guests)} answers `unavailable`; "
            f"served again after {max(recoveries):.2f} s at most; {load}"
        )
        await load.check()
        # It was the same process throughout, and it let nobody go.
        assert server.pid == pid
        assert server.running
        assert all(guest.connections == 1 for guest in load.guests)
    assert "Traceback" not in server.log()


async def _go_through(outage: Outage, server: ServerProcess, api: Api, load: Load) -> float:
    """One outage; the seconds from its end until everybody is served again."""
    senders = load.guests[:4]
    room = {"kind": "group", "members": [], "client_id": os.urandom(4).hex()}
    late = await api.register("Late")
    own_room = (await late.api.post("/conversations", room, 201))["id"]
    before = [guest.unavailable for guest in senders]
    await asyncio.to_thread(outage.begin)
    try:
        await load.until(
            lambda: all(
                guest.unavailable > known for guest, known in zip(senders, before, strict=True)
            ),
            timeout=60,
            what="`unavailable` for every sender",
        )
        await _is_unavailable(outage, api, load, late, own_room)
    finally:
        await asyncio.to_thread(outage.end)
    ended = time.monotonic()
    counted = {writer: len(writer.attempted) for writer in load.writers}
    await load.until(
        lambda: all(len(writer.attempted) > counted[writer] for writer in load.writers),
        timeout=20,
        what="service for every sender",
    )
    seconds = time.monotonic() - ended
    reply = await api.request("GET", "//health/ready")
    assert reply.status == 200, reply.body
    return seconds


async def _is_unavailable(
    outage: Outage, api: Api, load: Load, late: Account, own_room: str
) -> None:
    """What a person, an operator and a load balancer see meanwhile."""
    async with asyncio.timeout(10):
        while (ready := await api.request("GET", "//health/ready")).status != 503:
            await asyncio.sleep(0.02)
    assert ready.json["checks"]["store"] != "ok"
    assert (await api.request("GET", "//health/live")).status == 200
    ann = load.people[0]
    # What is there can be read.
    page = await ann.api.get(f"/conversations/{load.rooms[0]}/messages")
    assert page["items"]

    # What cannot be written is refused in the same way over REST. What is small may still fit.
    def message() -> tuple[str, dict[str, Any]]:
        body = {"client_id": os.urandom(4).hex(), "body": "x" * 16_000}
        return f"/conversations/{own_room}/messages", body

    def registration() -> tuple[str, dict[str, Any]]:
        email = f"late.{os.urandom(4).hex()}@example.com"
        return "/auth/register", {"email": email, "password": PASSWORD, "name": "Late"}

    for make in (message, registration):
        await _is_refused_in_the_end(late.api, make)
    if not outage.writes_files:
        reply = await ann.api.request(
            "POST",
            "/uploads",
            data=b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
            b"Content-Type: text/plain\r\n\r\n" + b"text " * 20_000 + b"\r\n--x--\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        _is_problem(reply.expect(503))


async def _is_refused_in_the_end(api: Api, make: Callable[[], tuple[str, dict[str, Any]]]) -> None:
    async with asyncio.timeout(10):
        while True:
            path, body = make()
            reply = await api.request("POST", path, json=body)
            if reply.status != 201:
                break
    _is_problem(reply.expect(503))


def _is_problem(problem: dict[str, Any]) -> None:
    assert problem["code"] == "unavailable", problem


@pytest.mark.timeout(120)
async def test_a_crash_on_a_full_disk_loses_nothing(
    small_disk: Path, start_server: StartServer
) -> None:
    server = await asyncio.to_thread(start_server)
    async with Api(server.url) as api, Load(api, senders=4, listeners=2, rooms=2) as load:
        await load.progress(300)
        outage = FullDisk(server)
        outage.begin()
        await load.until(
            lambda: all(guest.unavailable for guest in load.guests[:4]),
            timeout=60,
            what="`unavailable` for every sender",
        )
        await asyncio.to_thread(server.kill)
        # It may start or not; it says so in a line, and does no harm.
        try:
            await asyncio.to_thread(server.start, 3.0)
            started = True
        except ServerFailed:
            started = False
        await asyncio.to_thread(server.kill)
        outage.end()
        await asyncio.to_thread(server.start)
        await load.progress(100)
        await load.finish()
        print(f"\na crash on a full disk; started on it: {started}; {load}")
        await load.check()
    assert "Traceback" not in server.log()
