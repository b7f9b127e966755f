"""Password hashes."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from actions.accounts.hashing import PasswordHasher
from domain.errors import Unavailable


@pytest.fixture
def hasher() -> Iterator[PasswordHasher]:
    made = PasswordHasher(4)
    yield made
    made.close()


async def test_a_hash_is_of_its_password_alone(hasher: PasswordHasher) -> None:
    first, second = await hasher.hash(b"one"), await hasher.hash(b"one")
    assert first != second
    assert await hasher.verify(b"one", first)
    assert await hasher.verify(b"one", second)
    assert not await hasher.verify(b"two", first)
    assert b"one".decode() not in first


async def test_no_byte_is_left_out(hasher: PasswordHasher) -> None:
    """Plain bcrypt looks at 72 bytes, and at those before a NUL."""
    long = b"x" * 200
    assert not await hasher.verify(long + b"2", await hasher.hash(long + b"1"))
    assert not await hasher.verify(b"a\x00c", await hasher.hash(b"a\x00b"))


async def test_nobodys_password_is_never_right_and_takes_as_long() -> None:
    hasher = PasswordHasher(10)
    try:
        hashed = await hasher.hash(b"one")

        async def least_work(against: str | None) -> float:
            """Seconds of processor time, whatever else the machine does meanwhile."""
            times = []
            for _ in range(5):
                started = time.process_time()
                assert not await hasher.verify(b"two", against)
                times.append(time.process_time() - started)
            return min(times)

        known, unknown = await least_work(hashed), await least_work(None)
        assert unknown == pytest.approx(known, rel=0.5)
        assert unknown > 0.005
    finally:
        hasher.close()


async def test_knows_hashes_of_another_cost(hasher: PasswordHasher) -> None:
    other = PasswordHasher(5)
    try:
        old = await other.hash(b"one")
        assert hasher.is_outdated(old)
        assert not other.is_outdated(old)
        assert await hasher.verify(b"one", old)
    finally:
        other.close()


async def test_too_many_at_once_are_refused_at_once() -> None:
    hasher = PasswordHasher(8, threads=1, max_waiting=3)
    try:
        results = await asyncio.gather(
            *(hasher.hash(b"one") for _ in range(10)), return_exceptions=True
        )
        assert sum(isinstance(each, str) for each in results) == 3
        assert sum(isinstance(each, Unavailable) for each in results) == 7
        assert await hasher.verify(b"one", await hasher.hash(b"one"))
    finally:
        hasher.close()


async def test_one_address_that_floods_does_not_keep_another_waiting() -> None:
    hasher = PasswordHasher(8, threads=1, max_waiting=20)
    ended: list[str] = []

    async def work(key: str) -> None:
        await hasher.hash(b"one", key)
        ended.append(key)

    try:
        flood = [asyncio.ensure_future(work("flood")) for _ in range(20)]
        await asyncio.sleep(0)
        await work("other")
        assert ended.count("flood") <= 2
        results = await asyncio.gather(*flood, return_exceptions=True)
        assert sum(isinstance(each, Unavailable) for each in results) == 1
        await work("other")
    finally:
        hasher.close()


async def test_the_event_loop_goes_on(hasher: PasswordHasher) -> None:
    slow = PasswordHasher(11, threads=1)
    try:
        work = asyncio.ensure_future(slow.hash(b"one"))
        turns = 0
        while not work.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 10
    finally:
        slow.close()
