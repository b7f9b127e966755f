"""Paced work is done at once, then at most so often, and never takes the whole processor."""

import asyncio
import time
from collections.abc import Callable

from actions.pacer import Pacer


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_the_first_touch_is_worked_on_at_once_the_next_after_the_interval() -> None:
    done: list[tuple[str, float]] = []
    loop = asyncio.get_running_loop()
    pacer = Pacer[str](lambda key: done.append((key, loop.time())), interval=0.1)
    started = loop.time()
    pacer.touch("a")
    await until(lambda: len(done) == 1)
    assert done[0][1] - started < 0.1
    for _ in range(5):
        pacer.touch("a")
    pacer.touch("b")
    await until(lambda: len(done) == 3)
    (_, first), (other, _), (again, second) = done
    assert (other, again) == ("b", "a")
    assert second - first >= 0.1
    await until(lambda: len(pacer) == 0)
    assert len(done) == 3


async def test_a_touch_from_within_the_work_is_not_lost() -> None:
    done: list[int] = []

    def work(key: str) -> None:
        done.append(1)
        if len(done) < 3:
            pacer.touch(key)

    pacer = Pacer[str](work, interval=0.01)
    pacer.touch("a")
    await until(lambda: len(pacer) == 0)
    assert len(done) == 3


async def test_a_failure_does_not_stop_the_others() -> None:
    done: list[str] = []

    def work(key: str) -> None:
        if key == "bad":
            raise ValueError(key)
        done.append(key)

    pacer = Pacer[str](work, interval=0.01)
    pacer.touch("bad")
    pacer.touch("good")
    await until(lambda: done == ["good"])


async def test_it_leaves_the_loop_to_others_and_takes_its_share_at_most() -> None:
    done: list[int] = []

    def work(key: int) -> None:
        end = time.perf_counter() + 0.0005
        while time.perf_counter() < end:
            pass
        done.append(key)

    pacer = Pacer[int](work, share=0.25)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for key in range(60):
        pacer.touch(key)
    await until(lambda: len(done) == 60)
    assert done == list(range(60))
    # 30 ms of work at a quarter of the processor.
    assert loop.time() - started > 0.09


async def test_nothing_is_done_after_close() -> None:
    done: list[str] = []
    pacer = Pacer[str](done.append)
    pacer.touch("a")
    pacer.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done == []
