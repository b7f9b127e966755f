"""Appends that go together: those of one stream that waited for each other, and those of other
streams beside them, in as many commands as one of them alone.

1. Read what all of them are about, one query for each collection.
2. Decide them in order, each as of what the ones before it in its stream leave behind.
3. Insert their rows into the log, in one ordered command: from here on each one that is in it stands.
   It stops at the first place that is taken, so of a stream's rows the first ones stand, without a
   hole. What was decided as of a row that does not stand does not stand either.
4. Apply what stands, the documents as the last of each stream leaves them, then the streams' heads.

Whatever is out of the ordinary is left to `appender`, which takes such an append by itself afterwards:
a guard that does not hold, a key that was used, a place that was taken, a stream that is new or barred.
So a round says yes or nothing.
"""

import asyncio
import secrets
from collections import ChainMap
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bson.errors import BSONError
from pymongo.errors import BulkWriteError

from domain.errors import Unavailable
from store.engine import Appended, Duplicate, GuardFailed
from store.mongo.appends import Prepared, read_rows, reads
from store.mongo.conflicts import Conflicts
from store.mongo.database import Database
from store.mongo.faults import AWAY, reaching
from store.mongo.kinds import Row
from store.mongo.lines import Share, Waiting, settle
from store.mongo.log import key_of, new_row, stored
from store.mongo.projection import advance_all, apply, write_all
from store.mongo.streams import Place, Streams

PAUSE = 0.02
"""Seconds between tries to apply what stands while the store is away."""


@dataclass(slots=True)
class _Part:
    """What one stream does in a round."""

    stream: str
    place: Place
    """Where the stream stood when the round began."""
    waiting: list[Waiting]
    """Not decided yet, or not in the log; in order."""
    decided: list[tuple[Waiting, Row]] = field(default_factory=list)
    """To be inserted."""
    standing: list[tuple[Waiting, Row]] = field(default_factory=list)
    aside: list[Waiting] = field(default_factory=list)
    """To be carried out one by one afterwards."""

    lost: bool = False
    """Where the stream stands now is not known."""

    def stand(self, count: int | None = None) -> None:
        """Of what was to be inserted, the first `count` (without: all) are in the log, and the
        others are not.
        """
        count = len(self.decided) if count is None else count
        self.standing += self.decided[:count]
        if count < len(self.decided):
            self.lost = True
            self.aside[:0] = [one for one, _ in self.decided[count:]]
        self.decided = []


class Rounds:
    """Carries out rounds, any number at once, of different streams."""

    def __init__(
        self,
        database: Database,
        streams: Streams,
        conflicts: Conflicts,
        applied: Callable[[Row], None],
        alone: Callable[[Prepared], Awaitable[Appended]],
        let_in: Callable[[str, int], None],
    ) -> None:
        """
        Args:
            applied: is told each row of the log that was applied.
            alone: carries out one append by itself.
            let_in: is told that another node asked for a stream, and when, in Unix milliseconds.
        """
        self._database = database
        self._streams = streams
        self._conflicts = conflicts
        self._applied = applied
        self._alone = alone
        self._let_in = let_in

    async def carry_out(self, shares: Sequence[Share]) -> None:
        """Carry out a round. Each append has its result or its error afterwards."""
        everything = [one for share in shares for one in share]
        try:
            parts = await self._placed(shares)
            await self._decide([part for part in parts if not part.aside])
            await self._insert(parts)
            await self._apply([part for part in parts if part.standing])
            for part in parts:
                if part.lost:
                    self._streams.forget(part.stream)
            await asyncio.gather(*(self._one_by_one(part) for part in parts if part.aside))
        except BaseException as error:
            for share in shares:
                self._streams.forget(share[0].prepared.append.stream)
            for one in everything:
                if one.done.done():
                    continue
                if isinstance(error, Exception):
                    one.done.set_exception(error)
                else:
                    one.done.cancel()
            if not isinstance(error, Exception):
                raise

    async def _placed(self, shares: Sequence[Share]) -> list[_Part]:
        async def placed(share: Share) -> _Part:
            stream = share[0].prepared.append.stream
            place = self._streams.known(stream)
            if place is None:
                with reaching():
                    place = await self._streams.place(stream)
            part = _Part(stream, place, [*share])
            foreign = any(one.prepared.append.org != place.org for one in share)
            if not place.seq or place.bar or foreign:
                part.aside, part.waiting = part.waiting, []
            return part

        return list(await asyncio.gather(*(placed(share) for share in shares)))

    async def _decide(self, parts: Sequence[_Part]) -> None:
        wanted: dict[str, set[str]] = {}
        for part in parts:
            for name, ids in reads(one.prepared for one in part.waiting).items():
                wanted.setdefault(name, set()).update(ids)
        with reaching():
            there, asked = await asyncio.gather(
                read_rows(self._database, wanted), self._asked([part.stream for part in parts])
            )
        for part in parts:
            if part.stream in asked:
                self._let_in(part.stream, asked[part.stream])
            self._decide_part(part, there)

    async def _asked(self, streams: Sequence[str]) -> dict[str, int]:
        rows = await self._database.streams.find(
            {"_id": {"$in": list(streams)}, "wanted": {"$gt": 0}}, {"wanted": 1}
        ).to_list()
        return {row["_id"]: int(row["wanted"]) for row in rows}

    def _decide_part(self, part: _Part, there: dict[tuple[str, str], Row]) -> None:
        # What this stream leaves behind is seen by those after it, in this stream alone.
        left: dict[tuple[str, str], Row] = {}
        keys: set[str] = set()
        seq = part.place.seq
        for one in part.waiting:
            append = one.prepared.append
            key = key_of(append)
            if key is not None and key in keys:
                part.aside.append(one)
                continue
            rows = ChainMap(left, there)
            try:
                one.prepared.judge(rows)
                decided = one.prepared.decide(rows, seq + 1)
            except (GuardFailed, Duplicate, ValueError, TypeError):
                part.aside.append(one)
                continue
            changes = [each.image.change() for each in decided]
            token = secrets.token_hex(8)
            row = new_row(append, seq + 1, part.place.base, token, changes)
            part.decided.append((one, row))
            left |= {(each.kind.name, each.image.row["_id"]): each.image.row for each in decided}
            if key is not None:
                keys.add(key)
            seq = row["last"]
        part.waiting = []

    async def _insert(self, parts: Sequence[_Part]) -> None:
        left = [part for part in parts if part.decided]
        while left:
            rows = [row for part in left for _, row in part.decided]
            try:
                with reaching():
                    await self._database.log.insert_many(rows, ordered=True)
            except BulkWriteError as error:
                if error.details.get("writeConcernErrors"):
                    await self._ask_all(left, Unavailable(AWAY))
                    return
                left = _stopped(left, int(error.details["writeErrors"][0]["index"]))
            except Unavailable as error:
                await self._ask_all(left, error)
                return
            except (BSONError, OverflowError, TypeError, ValueError):
                # One of them cannot be sent: by itself it is told so, and the others go on.
                for part in left:
                    part.stand(0)
                return
            else:
                for part in left:
                    part.stand()
                return

    async def _ask_all(self, parts: Sequence[_Part], error: Unavailable) -> None:
        await asyncio.gather(*(self._ask(part, error) for part in parts))

    async def _ask(self, part: _Part, error: Unavailable) -> None:
        """After an insert whose answer was lost: which of a stream's rows are there. The first that
        is not cannot come any more, and so none behind it: the command would stop there.
        """
        for index, (_, row) in enumerate(part.decided):
            try:
                there = await self._conflicts.ask(row, 0, error)
            except Unavailable:
                for one, _ in part.decided[index:]:
                    one.done.set_exception(error)
                del part.decided[index:]
                part.lost = True
                break
            if not there:
                part.stand(index)
                return
        part.stand()

    async def _apply(self, parts: Sequence[_Part]) -> None:
        rows = [row for part in parts for _, row in part.standing]
        if not rows:
            return
        try:
            with reaching():
                await write_all(self._database, rows)
                await advance_all(
                    self._database,
                    {part.stream: part.standing[-1][1]["last"] for part in parts},
                )
        except Unavailable:
            await asyncio.gather(*(self._apply_singly(part) for part in parts))
        for part in parts:
            if part.standing:
                self._tell(part)

    async def _apply_singly(self, part: _Part) -> None:
        """Through an outage: each row by itself, until the store's timeout."""
        deadline = self._database.clock.monotonic() + self._database.timeout
        for index, (_, row) in enumerate(part.standing):
            while True:
                try:
                    with reaching():
                        await apply(self._database, row)
                    break
                except Unavailable as error:
                    # It stands. Who touches the stream next applies it, at the latest the sweeper.
                    if self._database.clock.monotonic() < deadline:
                        await asyncio.sleep(PAUSE)
                        continue
                    for one, _ in part.standing[index:]:
                        one.done.set_exception(error)
                    del part.standing[index:]
                    part.lost = True
                    return

    def _tell(self, part: _Part) -> None:
        _, last = part.standing[-1]
        place = Place(last["org"], last["base"], last["last"], part.place.trimmed)
        self._streams.learn(part.stream, place)
        epoch = self._database.epoch(part.place.base)
        for one, row in part.standing:
            self._applied(row)
            if not one.done.done():
                one.done.set_result(Appended(epoch, row["seq"], stored(row, epoch)))

    async def _one_by_one(self, part: _Part) -> None:
        for one in part.aside:
            await settle(one, self._alone(one.prepared))


def _stopped(parts: Sequence[_Part], index: int) -> list[_Part]:
    """After an insert that stopped at the row of this number: those before it are in the log, those
    behind it are not. Returns the parts that were not reached.
    """
    for number, part in enumerate(parts):
        count = len(part.decided)
        if index < count:
            part.stand(index)
            return list(parts[number + 1 :])
        part.stand()
        index -= count
    return []
