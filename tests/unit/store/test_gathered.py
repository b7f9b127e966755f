"""Questions that many ask at the same moment."""

import asyncio
from collections.abc import Sequence

import pytest

from store.gathered import AT_ONCE, Gathered


class Store:
    """Answers with the number of the question, when it is let."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def ask(self, org: str, keys: Sequence[str]) -> dict[str, int]:
        self.asked.append((org, list(keys)))
        number = len(self.asked)
        await self.open.wait()
        if "broken" in keys:
            raise RuntimeError("the store is broken")
        return {key: number for key in keys if key != "nothing"}


async def test_what_is_asked_at_the_same_moment_is_one_question() -> None:
    store = Store()
    gathered = Gathered(store.ask)
    answers = await asyncio.gather(
        gathered.get("a", ["x", "y"]), gathered.get("a", ["y", "nothing"]), gathered.get("a", [])
    )
    assert list(answers) == [{"x": 1, "y": 1}, {"y": 1}, {}]
    assert store.asked == [("a", ["x", "y", "nothing"])]


async def test_an_answer_is_not_older_than_its_question() -> None:
    store = Store()
    store.open.clear()
    gathered = Gathered(store.ask)
    first = asyncio.ensure_future(gathered.get("a", ["k0"]))
    await asyncio.sleep(0.01)
    second = asyncio.ensure_future(gathered.get("a", ["k0"]))
    await asyncio.sleep(0.01)
    store.open.set()
    assert await first == {"k0": 1}
    assert await second == {"k0": 2}


async def test_what_comes_while_questions_are_under_way_goes_together() -> None:
    store = Store()
    store.open.clear()
    gathered = Gathered(store.ask)
    waiting = []
    for number in range(10):
        waiting.append(asyncio.ensure_future(gathered.get("a", [f"k{number}"])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    store.open.set()
    await asyncio.gather(*waiting)
    assert len(store.asked) == AT_ONCE + 1


async def test_a_question_has_about_so_many_keys_and_one_organization() -> None:
    store = Store()
    gathered = Gathered(store.ask, most=2)
    await asyncio.gather(
        *(gathered.get("a", [f"k{number}"]) for number in range(5)), gathered.get("b", ["k"])
    )
    assert sorted(len(keys) for _, keys in store.asked) == [1, 1, 2, 2]
    assert [keys for org, keys in store.asked if org == "b"] == [["k"]]


async def test_all_who_wait_get_the_error_and_the_next_asks_anew() -> None:
    store = Store()
    gathered = Gathered(store.ask)
    ends = await asyncio.gather(
        gathered.get("a", ["broken"]), gathered.get("a", ["x"]), return_exceptions=True
    )
    assert [type(end) for end in ends] == [RuntimeError, RuntimeError]
    assert await gathered.get("a", ["x"]) == {"x": 2}


async def test_who_gives_up_does_not_take_the_answer_from_others() -> None:
    store = Store()
    store.open.clear()
    gathered = Gathered(store.ask)
    one, other = (asyncio.ensure_future(gathered.get("a", [key])) for key in "xy")
    await asyncio.sleep(0.01)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    store.open.set()
    assert await other == {"y": 1}
