"""A MongoDB for the tests: the one that `TEST_MONGODB_URL` names, or what stands for it."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

from pymongo import MongoClient

from deploy.local.mongod import Mongod, Unbuildable, binary

__all__ = ["Mongod", "Scratch", "Unbuildable", "binary", "scratch"]


class Scratch:
    """A database of a test's own."""

    def __init__(self, server: str) -> None:
        name = f"test_{secrets.token_hex(6)}"
        base, _, options = server.partition("?")
        self.url = f"{base.rstrip('/')}/{name}" + (f"?{options}" if options else "")
        self._client: MongoClient[dict[str, Any]] = MongoClient(self.url)
        self._name = name

    def wipe(self) -> None:
        """Remove all that is in it."""
        self._client.drop_database(self._name)

    def close(self) -> None:
        """Remove it."""
        self.wipe()
        self._client.close()


@contextlib.contextmanager
def scratch(server: str) -> Iterator[Scratch]:
    """A database at a server (an URL without a database's name), gone after the block."""
    database = Scratch(server)
    try:
        yield database
    finally:
        database.close()
