"""The quota of uploads: what is reserved for a file while it comes in."""

from domain.clock import Clock, timestamp
from domain.errors import TooLarge, Unavailable
from domain.principals import Principal
from store.uploads.uploads import UploadRepository

RESERVE = 1024 * 1024
"""Bytes reserved at a time for an upload that does not say how large it is."""

STALE = 3600.0
"""Seconds without progress after which an upload, or a removal, was cut off by a crash."""

TOO_SLOW = "The upload took too long without progress."


class Reservation:
    """What is reserved of the owner's quota for one upload."""

    def __init__(
        self, repository: UploadRepository, clock: Clock, quota: int, owner: Principal, id: str
    ) -> None:
        self._repository = repository
        self._clock = clock
        self._quota = quota
        self._owner = owner
        self._id = id
        self._reserved = 0
        self._noted = clock.monotonic()

    async def cover(self, size: int) -> None:
        """Have at least `size` bytes reserved, a step more where the quota allows it, and have it
        known that the upload goes on.

        Raises:
            TooLarge: the quota does not have them.
            Unavailable: the upload was cleared away meanwhile.
        """
        missing = size - self._reserved
        if missing > 0:
            if missing >= RESERVE or not await self._try(RESERVE):
                await self.take(missing)
        elif self._clock.monotonic() - self._noted > STALE / 4:
            await self._note()

    async def take(self, size: int) -> None:
        """Reserve exactly so many bytes more; errors as of `cover`."""
        if not await self._try(size):
            raise TooLarge(
                f"Your uploads may have {self._quota} bytes altogether.",
                data={"quota": self._quota},
            )

    async def _try(self, size: int) -> bool:
        owner = self._owner
        now = timestamp(self._clock.now())
        reserved = await self._repository.reserve(
            owner.org, owner.user, self._id, size, now, self._quota
        )
        if reserved is None:
            raise Unavailable(TOO_SLOW)
        self._noted = self._clock.monotonic()
        if reserved:
            self._reserved += size
        return reserved

    async def _note(self) -> None:
        now = timestamp(self._clock.now())
        if not await self._repository.touch(self._owner.org, self._owner.user, self._id, now):
            raise Unavailable(TOO_SLOW)
        self._noted = self._clock.monotonic()
