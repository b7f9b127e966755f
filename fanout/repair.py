"""Finding out what the bus lost: the heads of the streams that are followed here are compared with
what was delivered, when hearing a stream begins, after every interruption, and now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog

from domain.errors import ParleyError
from domain.streams import Head
from fanout.sequencer import Sequencer

log = structlog.get_logger(__name__)

Heads = Callable[[str, Sequence[str]], Awaitable[Mapping[str, Head]]]
"""`(org, streams)` -> where they stand in the log."""

AT_ONCE = 500
"""Streams of one query."""

MOST = 10_000
"""Streams that are looked at in one round. On a node that follows more, those in which something
happened lately come first and the others take turns."""

RETRY = 0.5
"""Seconds after which the store is asked again when it was out of reach."""


class Repair:
    """Tells the sequencer how far the logs reach."""

    def __init__(
        self, sequencer: Sequencer, heads: Heads, *, every: float = 5.0, most: int = MOST
    ) -> None:
        """`every`: seconds that a round takes; it is spread over them."""
        self._sequencer = sequencer
        self._heads = heads
        self._every = every
        self._most = most
        self._soon: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._seen: dict[str, int | None] = {}
        """What had been delivered of each stream at the last round."""
        self._turn = 0
        self._failing = False
        self.found = 0
        """How many streams were found behind their log."""
        self.queries = 0

    def check_soon(self, streams: Iterable[str]) -> None:
        """Look at these streams at once; those that nobody follows are ignored."""
        self._soon.update(dict.fromkeys(streams))
        self._wake.set()

    async def run(self) -> None:
        """Do it for as long as the node runs."""
        loop = asyncio.get_running_loop()
        while True:
            chunks = self._chunks(self._round())
            began = loop.time()
            for number, (org, streams) in enumerate(chunks):
                await self._until(began + self._every * number / len(chunks))
                await self._check(org, streams)
            await self._until(began + self._every)

    async def _until(self, deadline: float) -> None:
        """Wait, and meanwhile look at what is to be looked at soon, however often that comes."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._wake.wait()
            except TimeoutError:
                return
            self._wake.clear()
            soon, self._soon = self._soon, {}
            for org, streams in self._chunks(soon):
                await self._check(org, streams)
            if loop.time() >= deadline:
                return

    def _round(self) -> list[str]:
        """The streams whose turn it is."""
        now = dict(self._sequencer.positions())
        before, self._seen = self._seen, now
        if len(now) <= self._most:
            return list(now)
        moving = [each for each, last in now.items() if before.get(each) != last]
        chosen = dict.fromkeys(moving[: self._most // 2])
        rest = [each for each in now if each not in chosen]
        start = self._turn % len(rest)
        turn = (rest[start:] + rest[:start])[: self._most - len(chosen)]
        self._turn = start + len(turn)
        return [*chosen, *turn]

    def _chunks(self, streams: Iterable[str]) -> list[tuple[str, list[str]]]:
        by_org: dict[str, list[str]] = {}
        for stream in streams:
            org = self._sequencer.org_of(stream)
            if org is not None:
                by_org.setdefault(org, []).append(stream)
        return [
            (org, mine[start : start + AT_ONCE])
            for org, mine in by_org.items()
            for start in range(0, len(mine), AT_ONCE)
        ]

    async def _check(self, org: str, streams: Sequence[str]) -> None:
        heads = await self._heads_now(org, streams)
        if heads is None:
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY, self.check_soon, streams)
            return
        self.queries += 1
        for stream, head in heads.items():
            if not self._sequencer.reached(stream, head.seq):
                self.found += 1
            # Also where nothing is known yet: somebody who is on the way in may have read its
            # head before this node heard the stream.
            self._sequencer.notice(stream, head.seq)

    async def _heads_now(self, org: str, streams: Sequence[str]) -> Mapping[str, Head] | None:
        """Where streams stand; None if that cannot be found out now, of which the first time in a
        row is logged.
        """
        try:
            heads = await self._heads(org, streams)
        except ParleyError as error:
            if not self._failing:
                log.warning("heads_not_checked", code=error.code, streams=len(streams))
            self._failing = True
            return None
        except Exception:
            # Nobody else looks: whatever it is, the next look must come.
            if not self._failing:
                log.exception("heads_not_checked", streams=len(streams))
            self._failing = True
            return None
        self._failing = False
        return heads
