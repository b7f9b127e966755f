"""The one write path of streams. See `docs/decisions/0010-append-on-mongodb.md`.

1. Read what the guards and changes are about, as of the head that this node knows.
2. Decide: judge the guards, work out the documents as the append leaves them.
3. Reserve unique values.
4. Insert the row into the log, at the place behind the head: from here on the append stands.
5. Apply it: write the documents, then the stream's head.

The insert fails if the head has moved since, so what was read in 1 is what the append comes upon.

A node that has just appended knows the head and is ahead of all others in the next race. So one that
keeps losing says so in the stream's row, and the others, who see it in 5, let it go first.
"""

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable

from pymongo.errors import DuplicateKeyError

from domain.errors import Unavailable
from store.engine import Append, Appended, Duplicate, ForeignStream, GuardFailed, KeyReused
from store.mongo.appends import Decided, Key, Prepared, read_rows, reads
from store.mongo.conflicts import ATTEMPTS, Conflicts, Moved
from store.mongo.database import Database
from store.mongo.faults import reaching
from store.mongo.kinds import Kind, Row
from store.mongo.lines import Lines
from store.mongo.log import is_append, key_of, new_row, stored
from store.mongo.projection import apply
from store.mongo.rounds import Rounds
from store.mongo.streams import Place, Streams, new_base

PAUSE = 0.002
"""Seconds that the first retry waits on average; later ones longer, up to `LONGEST_PAUSE`."""

LONGEST_PAUSE = 0.02

LOSSES = 3
"""Races lost before a node asks to be let in."""

COURTESY = 0.05
"""Seconds that the others then leave it."""

ASKED = 1000
"""Milliseconds for which its asking counts."""


class Appender:
    """Appends of one node, which do not race each other for a place in the log: those to one stream
    take turns, or go together (see `rounds`).
    """

    def __init__(
        self,
        database: Database,
        streams: Streams,
        conflicts: Conflicts,
        applied: Callable[[Row], None],
    ) -> None:
        """`applied` is told each row of the log that was applied."""
        self._database = database
        self._streams = streams
        self._conflicts = conflicts
        self._applied = applied
        rounds = Rounds(database, streams, conflicts, applied, self._append, self._let_in)
        self._lines = Lines(database.clock, self._append, rounds.carry_out)

    async def append(self, append: Append) -> Appended:
        """As the interface says."""
        return await self._lines.append(Prepared(self._database, append))

    async def _append(self, prepared: Prepared) -> Appended:
        attempt = _Attempt(self._database, self._streams, self._conflicts, prepared)
        stream = prepared.append.stream
        asked = False
        try:
            for turn in range(ATTEMPTS):
                place = self._streams.known(stream)
                if place is None:
                    place = await self._streams.place(stream)
                try:
                    done = await attempt.at(place)
                except Moved:
                    self._streams.forget(stream)
                    if turn % LOSSES == LOSSES - 1:
                        await self._ask_in(stream)
                        asked = True
                    longest = min(LONGEST_PAUSE, PAUSE * 2 ** min(turn, 10))
                    await asyncio.sleep(random.uniform(0, longest))
                    continue
                if isinstance(done, Appended):
                    await attempt.release()
                    return done
                return await self._apply(place, done, asked=asked)
        except BaseException:
            self._streams.forget(stream)
            with contextlib.suppress(Unavailable):  # the reason is what the caller should see
                await attempt.release()
            raise
        raise Unavailable("Too many writes to the stream.")

    async def _ask_in(self, stream: str) -> None:
        now = {"$set": {"wanted": self._database.milliseconds()}}
        await self._database.streams.update_one({"_id": stream}, now)

    async def _apply(self, place: Place, row: Row, *, asked: bool) -> Appended:
        wanted = await self._carry_out(row)
        self._applied(row)
        if asked:
            with contextlib.suppress(Unavailable), reaching():  # it ends by itself too
                stream = {"_id": row["stream"], "wanted": wanted}
                await self._database.streams.update_one(stream, {"$set": {"wanted": 0}})
        elif wanted:
            self._let_in(row["stream"], wanted)
        after = Place(row["org"], row["base"], row["last"], place.trimmed)
        if row["seq"] == 1:  # another base counts if somebody else applied it
            after = await self._streams.place(row["stream"])
        else:
            self._streams.learn(row["stream"], after)
        epoch = self._database.epoch(after.base)
        return Appended(epoch, row["seq"], stored(row, epoch))

    def _let_in(self, stream: str, wanted: int) -> None:
        # Another node asked at this moment, in Unix milliseconds.
        if wanted > self._database.milliseconds() - ASKED:
            self._lines.leave(stream, COURTESY)

    async def _carry_out(self, row: Row) -> int:
        """Apply what is in the log already, through a short outage too."""
        deadline = self._database.clock.monotonic() + self._database.timeout
        while True:
            try:
                with reaching():
                    return await apply(self._database, row)
            except Unavailable:
                # It stands. Who touches the stream next applies it, at the latest the sweeper.
                if self._database.clock.monotonic() >= deadline:
                    raise
                await asyncio.sleep(LONGEST_PAUSE)


class _Attempt:
    """One append, tried until its place in the log is free."""

    def __init__(
        self, database: Database, streams: Streams, conflicts: Conflicts, prepared: Prepared
    ) -> None:
        self._database = database
        self._streams = streams
        self._conflicts = conflicts
        self._prepared = prepared
        self._token = secrets.token_hex(8)
        self._reserved: dict[Key, Kind] = {}

    async def at(self, place: Place) -> Row | Appended:
        """Try it at a place: the row that is in the log now, to be applied; or the first result,
        if the key was used before.

        Raises:
            Moved: the stream does not stand there any more.
            GuardFailed, KeyReused, Duplicate, ForeignStream: as `Engine.append`.
        """
        append = self._prepared.append
        if place.seq and place.org != append.org:
            raise ForeignStream(append.stream)
        seq = place.seq + 1
        try:
            rows = await read_rows(self._database, reads([self._prepared]))
            self._prepared.judge(rows)
            decided = self._prepared.decide(rows, seq)
            await self._reserve(decided, seq, place.bar)
        except (GuardFailed, Duplicate, ValueError, TypeError):
            # Nothing was written. But the key goes first, and what was read may be of a moment
            # at which the next append was half applied.
            replay = await self._replay()
            if replay is not None:
                return replay
            if (await self._streams.place(append.stream))[:3] != place[:3]:
                raise Moved from None
            raise
        base = place.base or new_base()
        changes = [one.image.change() for one in decided]
        row = new_row(append, seq, base, self._token, changes)
        if await self._insert(row, place.bar):
            self._reserved.clear()
            return row
        replay = await self._replay()
        if replay is None:
            raise Moved
        return replay

    async def _reserve(self, decided: list[Decided], seq: int, bar: int) -> None:
        stream = self._prepared.append.stream
        for kind, image, fresh in decided:
            if fresh and kind.unique:
                self._reserved[kind.name, image.row["_id"]] = kind
                await self._conflicts.reserve(kind, image, stream, seq, bar, self._token)

    async def release(self) -> None:
        """Give back what was reserved and is not used."""
        for (_, id), kind in self._reserved.items():
            await self._conflicts.release(kind, id, self._token)
        self._reserved.clear()

    async def _insert(self, row: Row, bar: int) -> bool:
        """Take the place in the log; False if it is taken, or the key is used.

        Raises:
            Unavailable: the store is away. Whether the row is there can then only be unknown if
                the store stayed away while it was asked.
        """
        log = self._database.log
        try:
            with reaching():
                if bar:
                    same = {"_id": row["_id"], "void": bar}
                    return bool((await log.replace_one(same, row)).matched_count)
                await log.insert_one(row)
                return True
        except DuplicateKeyError:
            return False
        except Unavailable as error:
            return await self._conflicts.ask(row, bar, error)

    async def _replay(self) -> Appended | None:
        """The first result of the append's key, if it was used.

        Raises:
            KeyReused: it was used with another digest.
        """
        append = self._prepared.append
        key = key_of(append)
        if key is None or append.key is None:
            return None
        used = await self._database.log.find_one({"key": key}, {"digest": 1})
        if used is None:
            return None
        if used["digest"] != append.key.digest:
            raise KeyReused
        # The first one may have been cut short, or one that redacts it.
        place = await self._streams.place(append.stream)
        row = await self._database.log.find_one({"_id": used["_id"]})
        if row is None:
            return None
        epoch = self._database.epoch(place.base)
        whole = is_append(row) and row["seq"] > place.trimmed
        events = stored(row, epoch) if whole else ()
        return Appended(epoch, int(row["seq"]), events, replayed=True)
