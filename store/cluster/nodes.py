"""Which nodes use this store: each says now and then that it does."""

from store.engine import Collection, Document, Engine, Is

NODES = Collection("nodes")
"""`{id, name, beat, at}`: `beat` goes up for as long as the node runs; `at` is its clock's time."""

COLLECTIONS: tuple[Collection, ...] = (NODES,)

ORG = "parley"
"""Nodes belong to the server, to no organization."""


class NodeRepository:
    """Reads and writes who is there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def say(self, node: str, name: str, beat: int, at: str) -> None:
        """Note that a node runs. `name` is what a person knows it by, `beat` another one than
        last time.
        """
        doc: Document = {"name": name, "beat": beat, "at": at}
        if await self._engine.update(ORG, NODES, node, set=doc) is None:
            await self._engine.insert_or_get(ORG, NODES, {"id": node, **doc})

    async def all(self) -> list[Document]:
        """Every node that has said so and was not forgotten, also those that ended without a word."""
        return await self._engine.find(ORG, NODES, {}, limit=None)

    async def time(self) -> float | None:
        """The store's own clock, in Unix seconds; None if it has none."""
        return await self._engine.time()

    async def forget(self, nodes: list[str]) -> None:
        """These nodes have ended."""
        await self._engine.delete(ORG, NODES, {"id": Is("in", nodes)})
