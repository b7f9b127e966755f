"""When somebody is disabled, what this one owned is handed over: soon, and whatever happens between;
and so it is when an agent's key ends.

It is noted before the user is disabled, and the note goes when all is done. A node that is cut short
leaves the note to the job that looks for such.
"""

import asyncio

import structlog

from actions.accounts.people import People
from actions.messaging.owners import Owners
from domain.clock import Clock, parse_timestamp
from domain.errors import ParleyError
from store.messaging.handovers import HandoverRepository

log = structlog.get_logger(__name__)

AT_ONCE = 100
"""Users who are looked at in one round."""

SETTLED = 60.0
"""Seconds after which somebody who was to be disabled, and is not, will not be."""


class Handovers:
    """Hands over the conversations of those who are disabled."""

    def __init__(
        self, notes: HandoverRepository, owners: Owners, people: People, clock: Clock
    ) -> None:
        self._notes = notes
        self._owners = owners
        self._people = people
        self._clock = clock
        self._wake = asyncio.Event()

    async def begin(self, org: str, user: str, at: float | None = None) -> None:
        """A user is about to be disabled, or an agent to end at a time (Unix seconds). Raises what
        the store raises.
        """
        await self._notes.note(org, user, self._clock.now() if at is None else at)

    def go_on(self) -> None:
        """The user is disabled."""
        self._wake.set()

    async def finish(self) -> int:
        """Hand over what is noted; returns for how many users. Safe to be done twice at once."""
        done = 0
        for note in await self._notes.some(self._clock.now(), AT_ONCE):
            org, user = note["org"], note["id"]
            if not await self._people.existing(org, [user]):
                await self._owners.hand_over_all(org, user)
                done += 1
            elif parse_timestamp(note["at"]) > self._clock.now() - SETTLED:
                continue
            await self._notes.done(org, note)
        return done

    async def run(self) -> None:
        """Hand over without delay for as long as the node runs; what fails is left to the job."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.finish()
            except ParleyError as error:
                log.warning("handover_failed", code=error.code)
