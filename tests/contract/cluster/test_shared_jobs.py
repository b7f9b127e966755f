"""What one node does for all is safe all the same if two do it at once, or one dies in the middle of
it: over every engine, each of these jobs twice at the same time, and once cut short.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from actions.streams.retention import Retention
from actions.streams.streams import Rules
from actions.uploads.uploads import Incoming, Limits, Uploads
from domain.clock import timestamp
from domain.principals import Principal, Role
from server.features import COLLECTIONS
from store.accounts.sessions import SESSIONS, SessionRepository
from store.engine import Engine
from store.uploads.blobs_disk import DiskBlobs
from store.uploads.uploads import UPLOADS, UploadRepository
from tests.support.local import TurnedClock
from tests.support.stores import ORG, Stores, appending, seqs

DAY = 24 * 3600.0
ADA = Principal("ada", ORG, Role.MEMBER, "s", 4e9)


@pytest.fixture
async def engine(stores: Stores) -> Engine:
    return await stores.start(COLLECTIONS)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
async def uploads(
    engine: Engine, clock: TurnedClock, tmp_path: Path
) -> AsyncIterator[Callable[[], Uploads]]:
    blobs = DiskBlobs(tmp_path / "uploads")
    await blobs.start()
    limits = Limits(size=1000, quota=10_000, unattached=DAY)
    yield lambda: Uploads(UploadRepository(engine), blobs, Rules(), clock, limits)
    await blobs.stop()


async def twice_and_cut_short(job: Callable[[], Awaitable[object]]) -> None:
    """Two nodes at once, one of which is cut off after a while, however far it came."""
    for steps in (1, 5, 25):
        dying = asyncio.ensure_future(job())
        for _ in range(steps):
            await asyncio.sleep(0)
        dying.cancel()
        await asyncio.gather(job(), dying, return_exceptions=True)
    await asyncio.gather(job(), job())


async def test_retention(engine: Engine, clock: TurnedClock) -> None:
    now = timestamp(clock.now())
    for number in range(60):
        await engine.append(appending(f"messages/{number % 3}", at=now))
    await twice_and_cut_short(Retention(engine, clock, keep=5, age=DAY).run)
    for number in range(3):
        assert await seqs(engine, f"messages/{number}") == [16, 17, 18, 19, 20]
        assert (await engine.append(appending(f"messages/{number}", at=now))).seq == 21


async def test_sweeping_uploads(
    engine: Engine, clock: TurnedClock, uploads: Callable[[], Uploads]
) -> None:
    async def bytes_of(number: int) -> AsyncIterator[bytes]:
        yield b"x" * (number + 1)

    first = uploads()
    made = [
        await first.receive(ADA, Incoming(f"{number}", None), bytes_of(number))
        for number in range(12)
    ]
    kept = made[3]
    repository = UploadRepository(engine)
    guard, link = repository.link(kept["id"], "messages/c", "m", timestamp(clock.now()))
    await engine.append(appending("messages/c", changes=[link], guards=[guard]))
    clock.turn(2 * DAY)
    await twice_and_cut_short(lambda: uploads().sweep())
    clock.turn(2 * DAY)  # what was cut short is old enough to be gone on with
    await twice_and_cut_short(lambda: uploads().sweep())
    assert [doc["id"] for doc in await engine.find(ORG, UPLOADS, {})] == [kept["id"]]
    assert await repository.used(ORG, "ada") == kept["size"]
    download = await first.open(ADA, kept["id"])
    assert download.reader.size == kept["size"]
    await download.reader.close()


async def test_forgetting_by_age(engine: Engine, clock: TurnedClock) -> None:
    # The other jobs are this: what is older than a time goes, in one step each.
    now = clock.now()
    for number in range(40):
        ends = timestamp(now + (number - 20) * DAY)
        await engine.insert(
            ORG,
            SESSIONS,
            {"id": f"{number:02}", "user": "ada", "revoked_at": None, "expires_at": ends},
        )
    before = timestamp(now)
    await twice_and_cut_short(lambda: SessionRepository(engine).trim_sessions(before))
    left = await engine.find(ORG, SESSIONS, {})
    assert [doc["id"] for doc in left] == [f"{number:02}" for number in range(20, 40)]
