"""Questions to the store that many ask at the same moment, asked once for all of them.

When a node dies, thousands of clients come to another one within seconds, each with the same few
questions. Asked one by one they would be more than a store answers in that time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")

AT_ONCE = 2
"""Questions of one kind under way at a time: what comes meanwhile waits and goes together."""


class Gathered(Generic[Key, Answer]):
    """One kind of question: what belongs to some keys.

    An answer is never older than the call for it: who comes while a question is under way waits
    for the next one.
    """

    def __init__(
        self,
        ask: Callable[[str, Sequence[Key]], Awaitable[Mapping[Key, Answer]]],
        most: int = 1000,
    ) -> None:
        """
        Args:
            ask: `(org, keys)` -> what the store says.
            most: keys of one question, about.
        """
        self._ask = ask
        self._most = most
        self._open: dict[str, tuple[dict[Key, None], asyncio.Task[Mapping[Key, Answer]]]] = {}
        """By organization, what will be asked together."""
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asked: set[asyncio.Task[Mapping[Key, Answer]]] = set()

    async def get(self, org: str, keys: Collection[Key]) -> dict[Key, Answer]:
        """What belongs to these keys; those of which the store says nothing are left out.

        Raises:
            Exception: whatever the question ended with.
        """
        if not keys:
            return {}
        batch = self._open.get(org)
        if batch is None or len(batch[0]) >= self._most:
            together: dict[Key, None] = {}
            task = asyncio.get_running_loop().create_task(self._settle(org, together))
            self._asked.add(task)
            task.add_done_callback(self._finished)
            batch = self._open[org] = together, task
        batch[0].update(dict.fromkeys(keys))
        # Who gives up does not take the answer away from the others.
        found = await asyncio.shield(batch[1])
        return {key: found[key] for key in keys if key in found}

    async def _settle(self, org: str, together: dict[Key, None]) -> Mapping[Key, Answer]:
        async with self._turns:
            batch = self._open.get(org)
            if batch is not None and batch[0] is together:
                del self._open[org]
            return await self._ask(org, list(together))

    def _finished(self, task: "asyncio.Task[Mapping[Key, Answer]]") -> None:
        self._asked.discard(task)
        if not task.cancelled():
            task.exception()  # those who waited have it, if there is anybody left
