"""What is kept of users' presence: what they chose, and when they were last seen. Whether they
are there now is not stored but known by the nodes they are connected to.
"""

from collections.abc import Mapping, Sequence

from domain.presence.presence import Profile
from store.engine import Collection, Engine, Put

PROFILES = Collection("presence_profiles")
"""`{id: <user>, status, text, at}`."""

SEEN = Collection("presence_seen")
"""`{id: <user>, at}`."""

COLLECTIONS = (PROFILES, SEEN)

WRITTEN_AT_ONCE = 500


class PresenceRepository:
    """Reads and writes what is kept of presence. Everything is a plain write."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def profiles(self, org: str, users: Sequence[str]) -> dict[str, Profile]:
        """What users chose; all users are there."""
        found = await self._engine.get_many(org, PROFILES, users)
        nothing = Profile()
        return {
            user: Profile(doc["status"], doc["text"], doc["at"])
            if (doc := found.get(user)) is not None
            else nothing
            for user in users
        }

    async def choose(self, org: str, user: str, profile: Profile) -> None:
        """Keep what a user chose."""
        await self._engine.write(org, [Put(PROFILES, {"id": user, **profile._asdict()})])

    async def seen(self, org: str, users: Sequence[str]) -> dict[str, str]:
        """When users were last seen; those who never were are left out."""
        found = await self._engine.get_many(org, SEEN, users)
        return {user: doc["at"] for user, doc in found.items()}

    async def see(self, org: str, users: Mapping[str, str]) -> None:
        """Keep when users were last seen."""
        puts = [Put(SEEN, {"id": user, "at": at}) for user, at in users.items()]
        for start in range(0, len(puts), WRITTEN_AT_ONCE):
            await self._engine.write(org, puts[start : start + WRITTEN_AT_ONCE])
