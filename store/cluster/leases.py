"""Leases: of all nodes one at a time does a certain piece of work.

A lease is a document with its holder and the time at which it ends by itself. Taking it is a
compare-and-set, so of any number of nodes one gets it. Each time it is taken anew its `fence`
grows: whatever the holder writes can carry it, and refuse to be overtaken by one who held the lease
earlier and has not noticed its end (`Held.fence`). So do the writes of this module. A document of
others takes it along as a field, and is changed by
`engine.update(…, set={"fence": held.fence, …}, where={"fence": Is("<=", held.fence)})`.

Nodes compare times of their own clocks. A lease is taken over only `MARGIN` seconds after its end
and given up by its holder that much earlier, so that clocks may differ by twice as much.
"""

from dataclasses import dataclass

from domain.clock import Clock, parse_timestamp, timestamp
from store.engine import Collection, Document, Engine, Is

LEASES = Collection("leases")

COLLECTIONS: tuple[Collection, ...] = (LEASES,)

ORG = "parley"
"""Leases belong to the server, to no organization."""

MARGIN = 1.0
"""Seconds."""

NEVER = timestamp(0.0)


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that was obtained."""

    name: str
    holder: str
    fence: int
    """Greater than that of every holder before."""
    until: float
    """Monotonic time until which the holder may rely on it."""


class LeaseRepository:
    """Takes, keeps and gives up leases."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def acquire(self, name: str, holder: str, seconds: float) -> Held | None:
        """Take a lease, or renew one's own, for so many seconds from now. None if another holds it,
        or it rests.

        Args:
            holder: who; unique among all that may ask.
            seconds: at least three times `MARGIN`.

        Raises:
            Unavailable: the store is out of reach; then it is not known whether it was taken.
        """
        if seconds < 3 * MARGIN:
            raise ValueError(f"a lease of {seconds:g} s is too short")
        began = self._clock.monotonic()
        now = self._clock.now()
        ends = timestamp(now + seconds)
        new: Document = {"id": name, "holder": holder, "fence": 1, "ends_at": ends}
        found = await self._engine.insert_or_get(ORG, LEASES, new)
        ended = parse_timestamp(found["ends_at"])
        if found["holder"] != holder or ended <= now:
            # Its own clock tells whoever held it that it has ended; others wait.
            if found["holder"] != holder and ended + MARGIN > now:
                return None
            if parse_timestamp(found.get("rests_until") or NEVER) > now:
                return None
            found = {**found, "fence": found["fence"] + 1}
            taken = await self._engine.update(
                ORG,
                LEASES,
                name,
                set={"holder": holder, "fence": found["fence"], "ends_at": ends},
                where={"fence": found["fence"] - 1, "ends_at": found["ends_at"]},
            )
        elif found["ends_at"] == ends:
            taken = found
        else:
            taken = await self._engine.update(
                ORG,
                LEASES,
                name,
                set={"ends_at": ends},
                where={"holder": holder, "fence": found["fence"]},
            )
        if taken is None:
            return None
        return Held(name, holder, taken["fence"], began + seconds - MARGIN)

    async def release(self, held: Held, rest: float = 0.0) -> bool:
        """Give a lease up, so that another can have it at once, or nobody for `rest` seconds.

        Returns:
            Whether it was held; otherwise nothing is changed.

        Raises:
            Unavailable: the store is out of reach; the lease ends by itself.
        """
        released = await self._engine.update(
            ORG,
            LEASES,
            held.name,
            set={"ends_at": NEVER, "rests_until": timestamp(self._clock.now() + rest)},
            where={"holder": held.holder, "fence": held.fence, "ends_at": Is("!=", NEVER)},
        )
        return released is not None

    async def holder(self, name: str) -> str | None:
        """Who holds a lease at this moment."""
        found = await self._engine.get(ORG, LEASES, name)
        if found is None or parse_timestamp(found["ends_at"]) <= self._clock.now():
            return None
        holder: str = found["holder"]
        return holder
