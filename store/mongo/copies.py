"""After a database was restored with MongoDB's own tools."""

from domain.clock import Clock
from store.engine import StoreError
from store.mongo import schema
from store.mongo.database import Database
from store.mongo.faults import reaching

QUIET = 15.0
"""Seconds without a sign of a node after which none runs: three rounds of a node's sweeper."""


async def new_epoch(url: str, *, clock: Clock, timeout: float = 5.0) -> None:
    """Give every stream a new epoch, because clients may have seen what the copy does not have.

    No node may be running: one would go on from the places in the streams that it remembers, and
    its clients from what they have seen.

    Args:
        url: as for `MongoEngine`.
        timeout: seconds that an answer of the server is waited for.

    Raises:
        StoreError: a node runs, or there is no data.
        Unavailable: the server does not answer.
    """
    database = Database(url, (), clock=clock, timeout=timeout, pool=1)
    await database.connect()
    try:
        with reaching():
            if await database.meta.find_one({"_id": "epochs"}) is None:
                raise StoreError(f"there is no data in the database {database.database.name}")
            silent = await schema.silence(database)
            if silent < QUIET:
                raise StoreError(
                    f"a node used the database {max(silent, 0):.0f} s ago: stop all nodes, and "
                    f"wait {QUIET:.0f} s"
                )
            await schema.new_generation(database)
    finally:
        await database.close()
