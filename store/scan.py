"""Walking through a collection, or what matches in it, in pages: whatever there is, no more than a page
of it is in memory.

What is there from the beginning to the end, and keeps its place in the order, comes once. What comes
or goes meanwhile may be met or not.
"""

from collections.abc import AsyncIterator, Sequence

from store.engine import Collection, Document, Engine, Filter, Value

PAGE = 500
"""Documents read at once."""


async def pages(
    engine: Engine,
    org: str,
    collection: Collection,
    where: Filter,
    *,
    order: Sequence[str] = ("id",),
    after: Sequence[Value] | None = None,
    size: int = PAGE,
) -> AsyncIterator[list[Document]]:
    """What `Engine.find` finds, in pages of at most `size`, none of them empty.

    Raises:
        Unavailable: in the middle, too: `after` goes on behind what was given last.
    """
    fields = _fields(order)
    while True:
        page = await engine.find(org, collection, where, order=order, after=after, limit=size)
        if page:
            after = [page[-1].get(name) for name in fields]
            yield page
        if len(page) < size:
            return


async def pages_any_org(
    engine: Engine,
    collection: Collection,
    where: Filter,
    *,
    order: Sequence[str],
    after: Sequence[Value] | None = None,
    size: int = PAGE,
) -> AsyncIterator[list[Document]]:
    """As `pages`, of what `Engine.find_any_org` finds in an order."""
    fields = (*_fields(order), "org")
    while True:
        page = await engine.find_any_org(collection, where, size, order=order, after=after)
        if page:
            after = [page[-1].get(name) for name in fields]
            yield page
        if len(page) < size:
            return


async def scan(
    engine: Engine,
    org: str,
    collection: Collection,
    where: Filter,
    *,
    order: Sequence[str] = ("id",),
    size: int = PAGE,
) -> AsyncIterator[Document]:
    """As `pages`, one by one."""
    async for page in pages(engine, org, collection, where, order=order, size=size):
        for doc in page:
            yield doc


def _fields(order: Sequence[str]) -> tuple[str, ...]:
    fields = tuple(name.removeprefix("-") for name in order)
    return fields if "id" in fields else (*fields, "id")
