"""What is true of the rate limiter of one node beyond what every one promises
(`tests/contract/fanout/test_limits.py`).
"""

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.limits import LocalRateLimiter
from tests.support.local import TurnedClock


async def test_as_many_at_once_as_the_limit_then_evenly() -> None:
    clock = TurnedClock()
    limiter = LocalRateLimiter({"b": (10, 60.0)}, clock)
    assert [await limiter.take("b", "k") for _ in range(10)] == [0.0] * 10
    wait = await limiter.take("b", "k")
    assert wait == pytest.approx(6.0)
    clock.turn(wait)
    assert await limiter.take("b", "k") == 0.0
    assert await limiter.take("b", "k") == pytest.approx(6.0)
    clock.turn(60)
    assert [await limiter.take("b", "k") for _ in range(10)] == [0.0] * 10
    assert await limiter.take("b", "k") > 0


async def test_giving_back_never_makes_more_than_the_limit() -> None:
    clock = TurnedClock()
    limiter = LocalRateLimiter({"b": (3, 60.0)}, clock)
    assert await limiter.take("b", "k") == 0.0
    clock.turn(60)
    for _ in range(10):
        await limiter.give_back("b", "k")
    assert [await limiter.take("b", "k") for _ in range(3)] == [0.0] * 3
    assert await limiter.take("b", "k") > 0


async def test_memory_is_bounded_and_paid_keys_are_forgotten() -> None:
    clock = TurnedClock()
    limiter = LocalRateLimiter({"b": (1, 10.0)}, clock, max_keys=10_000)
    for i in range(50_000):
        await limiter.take("b", f"k{i}")
        assert limiter.remembered("b") <= 10_000
    clock.turn(20)
    for i in range(10_000):
        await limiter.take("b", f"n{i}")
    assert limiter.remembered("b") <= 10_000
    assert await limiter.take("b", "n9999") > 0


@pytest.mark.parametrize("limit", [(0, 1.0), (1, 0.0), (-1, 1.0)])
def test_refuses_what_is_no_limit(limit: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="no limit"):
        LocalRateLimiter({"b": limit}, TurnedClock())


@given(
    count=st.integers(1, 20),
    period=st.sampled_from([1.0, 10.0, 60.0]),
    steps=st.lists(st.floats(0, 20), max_size=200),
)
def test_never_more_than_twice_the_limit_in_any_period(
    count: int, period: float, steps: list[float]
) -> None:
    """A full burst, and what comes back during one period."""

    async def run() -> None:
        clock = TurnedClock()
        limiter = LocalRateLimiter({"b": (count, period)}, clock)
        taken: deque[float] = deque()
        for step in steps:
            clock.turn(step)
            wait = await limiter.take("b", "k")
            assert 0 <= wait <= period + 1e-9
            if wait:
                continue
            taken.append(clock.monotonic())
            while taken[0] <= clock.monotonic() - period:
                taken.popleft()
            assert len(taken) <= 2 * count

    asyncio.run(run())
