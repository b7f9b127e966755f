"""Taking turns at what few can have at a time: fair between keys, so that one who asks for much does
not keep the others waiting, or out.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from domain.errors import Unavailable


class Turns:
    """Lets in so many at a time, one of each key in turn.

    Args:
        free: how many have a turn at a time.
        most: how many may wait or have a turn; beyond, the newest of whoever has most waiting is
            refused.
        busy: what those are told.
    """

    def __init__(self, free: int, most: int, busy: str) -> None:
        self._free = free
        self._most = most
        self._busy = busy
        self._here = 0
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By key, whose turn it is first: those who wait."""

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Have a turn during the block.

        Raises:
            Unavailable: too many are here already.
        """
        if self._here >= self._most and not self._make_room(key):
            raise Unavailable(self._busy)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(key, deque()).append(turn)
        self._here += 1
        try:
            self._next()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    self._free += 1
                    self._next()
                raise
            try:
                yield
            finally:
                self._free += 1
                self._next()
        finally:
            self._here -= 1

    def _next(self) -> None:
        """Give free turns to those who wait, to one of each key in turn."""
        while self._free and self._queues:
            key, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._queues[key] = queue
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

    def _make_room(self, key: str) -> bool:
        """Refuse the newest of whoever has most waiting, if that is more than `key` has."""
        most = max(self._queues, key=lambda each: len(self._queues[each]), default=None)
        if most is None or len(self._queues[most]) <= len(self._queues.get(key, ())) + 1:
            return False
        turn = self._queues[most].pop()
        if not turn.done():
            turn.set_exception(Unavailable(self._busy))
        return True
