"""How many conversations a user is on the way into, where there is hardly room for more."""

from store.engine import Collection, Document, Engine

PLACES = Collection("conversation_places")
"""`{id: <user>, coming, at}`: `at` is when the last one set out."""

COLLECTIONS = (PLACES,)


class PlaceRepository:
    """Counts who is on the way."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def take(self, org: str, user: str, at: str, lost_before: str) -> int:
        """Set out; how many are on the way with this one. Where none has set out since
        `lost_before`, those from before have not come to their end, and no longer count.
        """
        doc: Document = {"id": user, "coming": 0, "at": at}
        there = await self._engine.insert_or_get(org, PLACES, doc)
        if there["at"] < lost_before:
            where = {"at": there["at"]}
            await self._engine.update(org, PLACES, user, set={"coming": 0, "at": at}, where=where)
        taken = await self._engine.update(org, PLACES, user, set={"at": at}, inc={"coming": 1})
        return int(taken["coming"]) if taken is not None else 1

    async def give_back(self, org: str, user: str) -> None:
        """Arrived, or turned back."""
        await self._engine.update(org, PLACES, user, inc={"coming": -1})
