"""Who has how many of what there is a bounded number of, and who has most."""

from collections.abc import Iterator
from typing import Generic, TypeVar

Member = TypeVar("Member")


class Crowd(Generic[Member]):
    """Members by the party they belong to. Each call takes constant time, however many there are."""

    def __init__(self) -> None:
        self._members: dict[str, dict[Member, None]] = {}
        self._by_size: dict[int, dict[str, None]] = {}
        self._most = 0

    def add(self, party: str, member: Member) -> None:
        """One more of `party`, which does not have it yet; it is now its newest."""
        members = self._members.get(party)
        if members is None:
            members = self._members[party] = {}
        size = len(members)
        members[member] = None
        self._move(party, size, size + 1)
        self._most = max(self._most, size + 1)

    def remove(self, party: str, member: Member) -> None:
        """One less; nothing happens if `party` does not have it."""
        members = self._members.get(party)
        if members is None or member not in members:
            return
        size = len(members)
        del members[member]
        if size == 1:
            del self._members[party]
        self._move(party, size, size - 1)
        if self._most not in self._by_size:
            self._most -= 1  # that of this party now

    def _move(self, party: str, before: int, after: int) -> None:
        if before:
            same = self._by_size[before]
            del same[party]
            if not same:
                del self._by_size[before]
        if after:
            self._by_size.setdefault(after, {})[party] = None

    def count(self, party: str) -> int:
        """How many `party` has."""
        return len(self._members.get(party, ()))

    def largest(self) -> str | None:
        """Who has most, of several the one that has for longest; None if nobody has any."""
        return next(iter(self._by_size[self._most])) if self._most else None

    def descending(self) -> Iterator[str]:
        """Everybody, who has most first."""
        for size in sorted(self._by_size, reverse=True):
            yield from self._by_size[size]

    def of(self, party: str) -> Iterator[Member]:
        """What `party` has, oldest first."""
        return iter(self._members.get(party, ()))
