"""MongoDB engines as of several nodes."""

from collections.abc import Sequence
from typing import Any

from domain.clock import SystemClock
from store.engine import Collection
from store.mongo import MongoEngine
from tests.support.mongod import Scratch
from tests.support.stores import Stores


class MongoStores(Stores):
    """Engines, as of several nodes, on one database."""

    def __init__(self, database: Scratch) -> None:
        self.url = database.url
        self.options: dict[str, Any] = {}
        super().__init__(self._made, database.wipe)

    def _made(self, collections: Sequence[Collection]) -> MongoEngine:
        options = {"clock": SystemClock(), "url": self.url, **self.options}
        return MongoEngine(options.pop("url"), collections, **options)

    async def node(self, **options: Any) -> MongoEngine:
        """A started engine with these options."""
        self.options = options
        engine = await self.start()
        assert isinstance(engine, MongoEngine)
        return engine
