"""Whose conversations are to be handed over, because they are being disabled or will end."""

from domain.clock import timestamp
from store.engine import Collection, Document, Engine, Index, Is, Put

HANDOVERS = Collection("handovers", indexes=(Index(("at",), any_org=True, ordered=True),))
"""`{id: <user>, at}`: an agent's may be in the future, when its key ends."""

COLLECTIONS = (HANDOVERS,)


class HandoverRepository:
    """Keeps what is to be done until it is done."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def note(self, org: str, user: str, now: float) -> None:
        """Remember a user who is about to be disabled, or will end then."""
        await self._engine.write(org, [Put(HANDOVERS, {"id": user, "at": timestamp(now)})])

    async def some(self, now: float, limit: int) -> list[Document]:
        """Those that are to be done, of all organizations, the oldest first."""
        where = {"at": Is("<=", timestamp(now))}
        return await self._engine.find_any_org(HANDOVERS, where, limit, order=("at",))

    async def done(self, org: str, note: Document) -> None:
        """Forget one, unless it was noted again since."""
        await self._engine.delete(org, HANDOVERS, {"id": note["id"], "at": note["at"]})
