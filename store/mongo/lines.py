"""Who appends next: a line of appends for each stream, and rounds that take from many lines.

The appends of one stream are decided one after the other, but need not be written so: what has
gathered behind one that is under way goes in a round of its own. A round takes from all streams that
are not busy, as much as fits. So a lone sender never waits for company, and a crowd shares its round
trips.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import NamedTuple

from domain.clock import Clock
from store.engine import Appended
from store.mongo.appends import Prepared

AT_ONCE = 4
"""Rounds under way at the same time: the store is never idle while the next one is being decided."""

MOST = 128
"""Appends in one round."""

BYTES = 4 * 1024 * 1024
"""Of events and documents in one round; a single append may have more."""


SOON = 6
"""Turns of the event loop after a round of many, before the next: who was answered by it and goes on at
once comes along, or the crowd would fall into two halves that wait for each other."""


class Waiting(NamedTuple):
    """An append in its line."""

    prepared: Prepared
    done: "asyncio.Future[Appended]"


Share = Sequence[Waiting]
"""What one stream gives to a round, in order."""


class _Line:
    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.waiting: deque[Waiting] = deque()
        self.busy = False
        self.after = 0.0
        """Not before this moment of the clock."""


class Lines:
    """Gives each append its turn."""

    def __init__(
        self,
        clock: Clock,
        alone: Callable[[Prepared], Awaitable[Appended]],
        together: Callable[[Sequence[Share]], Awaitable[None]],
    ) -> None:
        """`alone` carries out one append. `together` carries out a round, and sees to it that each
        of its appends has its result or error when it returns.
        """
        self._clock = clock
        self._alone = alone
        self._together = together
        self._lines: dict[str, _Line] = {}
        self._ready: OrderedDict[str, _Line] = OrderedDict()
        """Not busy, with something that may go together with others."""
        self._rounds = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(self, prepared: Prepared) -> Appended:
        """Carry it out when its turn comes. Appends to one stream are begun in the order of the
        calls.
        """
        stream = prepared.append.stream
        line = self._lines.get(stream)
        if line is None:
            line = self._lines[stream] = _Line(stream)
        one = Waiting(prepared, asyncio.get_running_loop().create_future())
        line.waiting.append(one)
        if not line.busy:
            self._next(line)
            self._pump()
        return await one.done

    def leave(self, stream: str, seconds: float) -> None:
        """Begin nothing in this stream for so long: another node asked to be let in."""
        line = self._lines.get(stream)
        if line is not None:
            line.after = self._clock.monotonic() + seconds

    def _next(self, line: _Line) -> None:
        # What cannot go together with others starts at once; the rest is ready for a round.
        if not line.waiting:
            self._ready.pop(line.stream, None)
            if self._clock.monotonic() >= line.after:
                del self._lines[line.stream]
            else:
                self._later(line)
        elif (pause := line.after - self._clock.monotonic()) > 0:
            self._later(line, pause)
        elif line.waiting[0].prepared.simple:
            self._ready.setdefault(line.stream, line)
        else:
            line.busy = True
            self._start(self._single(line, line.waiting.popleft()))

    def _later(self, line: _Line, pause: float | None = None) -> None:
        seconds = line.after - self._clock.monotonic() if pause is None else pause
        line.busy = True
        asyncio.get_running_loop().call_later(max(0.0, seconds), self._free, [line])

    def _free(self, lines: Sequence[_Line]) -> None:
        for line in lines:
            line.busy = False
            self._next(line)
        self._pump()

    def _pump(self) -> None:
        while self._ready and self._rounds < AT_ONCE:
            lines: list[_Line] = []
            shares: list[list[Waiting]] = []
            room, count = BYTES, MOST
            while self._ready and room > 0 and count > 0:
                _, line = self._ready.popitem(last=False)
                line.busy = True
                share: list[Waiting] = []
                while line.waiting and line.waiting[0].prepared.simple and room > 0 and count > 0:
                    one = line.waiting.popleft()
                    share.append(one)
                    room -= one.prepared.size
                    count -= 1
                lines.append(line)
                shares.append(share)
            self._rounds += 1
            self._start(self._round(lines, shares))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _single(self, line: _Line, one: Waiting) -> None:
        try:
            await settle(one, self._alone(one.prepared))
        finally:
            self._free([line])

    async def _round(self, lines: Sequence[_Line], shares: Sequence[Share]) -> None:
        try:
            if len(shares) == 1 and len(shares[0]) == 1:
                await settle(shares[0][0], self._alone(shares[0][0].prepared))
            else:
                await self._together(shares)
                for _ in range(SOON):
                    await asyncio.sleep(0)
        finally:
            self._rounds -= 1
            self._free(lines)


async def settle(one: Waiting, work: Awaitable[Appended]) -> None:
    """Give an append the outcome of the work, be it an error."""
    try:
        done = await work
    except asyncio.CancelledError:
        one.done.cancel()
        raise
    except BaseException as error:  # noqa: BLE001 - it is the caller's
        if not one.done.done():
            one.done.set_exception(error)
    else:
        if not one.done.done():
            one.done.set_result(done)
