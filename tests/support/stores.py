"""What the tests of engines share: small collections, short ways to say things, data that lasts
over a restart.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from domain.events import Actor
from store.engine import (
    Append,
    Appended,
    Change,
    Collection,
    Engine,
    Guard,
    Index,
    Insert,
    Key,
    NewEvent,
    Redaction,
)

ORG = "acme"
OTHER = "globex"
ADA = Actor("ada")
BOB = Actor("bob")
AT = "2026-01-01T00:00:00.000Z"

NOTES = Collection(
    "notes",
    indexes=(
        Index(("room", "seq")),
        Index(("author", "pinned", "at")),
        Index(("room", "tags", "seq")),
    ),
    sets=("tags",),
    text="body",
    fields=("kind",),
)
PEOPLE = Collection("people", indexes=(Index(("email",), unique=True), Index(("age",))))
ROOMS = Collection("rooms")
COLLECTIONS = (NOTES, PEOPLE, ROOMS)


def note(id: str, **fields: Any) -> dict[str, Any]:
    """A document of NOTES."""
    return {"id": id, **fields}


def appending(
    stream: str = "messages/r1",
    *events: NewEvent,
    org: str = ORG,
    actor: Actor = ADA,
    at: str = AT,
    changes: Sequence[Change] = (),
    guards: Sequence[Guard] = (),
    key: Key | None = None,
    redactions: Sequence[Redaction] = (),
) -> Append:
    """An append; with one event if none is given."""
    return Append(
        org,
        stream,
        actor,
        at,
        events or (NewEvent("message.created", {"text": "hello"}),),
        changes,
        guards,
        key,
        redactions,
    )


async def send(
    engine: Engine, id: str, *, stream: str = "messages/r1", body: str = "hello", **more: Any
) -> Appended:
    """Append one event that stores a note with its seq."""
    doc = note(id, room=stream, seq=None, body=body)
    return await engine.append(
        appending(
            stream,
            NewEvent("message.created", doc, stamp="seq"),
            changes=(Insert(NOTES, doc, stamp="seq"), *more.pop("changes", ())),
            **more,
        )
    )


async def seqs(engine: Engine, stream: str = "messages/r1", org: str = ORG) -> list[int]:
    """The seqs still in a stream's log."""
    return [event.seq for event in await engine.read(org, stream, 0, 1_000_000)]


async def gathered(*calls: Any) -> list[Any]:
    """Results or exceptions of calls made at once."""
    return list(await asyncio.gather(*calls, return_exceptions=True))


class Inside(NamedTuple):
    """What is seen of an engine's data, and done to it, past the engine."""

    records: Callable[[], str]
    """All records there are, as text."""
    make_newer: Callable[[], None]
    """Mark the data as of a program's version that does not exist yet."""


class Stores:
    """Engines on the same data, one after the other."""

    def __init__(
        self,
        make: Callable[[Sequence[Collection]], Engine],
        wipe: Callable[[], None],
        inside: Inside | None = None,
    ) -> None:
        self._make = make
        self._wipe = wipe
        self._inside = inside
        self._open: list[Engine] = []

    @property
    def inside(self) -> Inside:
        """Past the engine."""
        assert self._inside is not None
        return self._inside

    async def start(self, collections: Sequence[Collection] = COLLECTIONS) -> Engine:
        """A started engine; stopped at the test's end if the test does not."""
        engine = self._make(collections)
        await engine.start()
        self._open.append(engine)
        return engine

    async def stop(self, engine: Engine) -> None:
        """Stop one of them."""
        self._open.remove(engine)
        await engine.stop()

    async def restart(self, engine: Engine) -> Engine:
        """Stop it and start another on the same data."""
        await self.stop(engine)
        return await self.start()

    async def before_and_after_restart(self, engine: Engine) -> AsyncIterator[Engine]:
        """The engine, then another on the same data."""
        yield engine
        yield await self.restart(engine)

    async def clear(self) -> None:
        """Stop what is running and remove all data."""
        await self.close()
        self._wipe()

    async def close(self) -> None:
        """Stop what is still running."""
        for engine in self._open:
            await engine.stop()
        self._open.clear()


class Fragile(NamedTuple):
    """Engines whose store can be taken away."""

    stores: Stores
    away: Callable[[], AbstractAsyncContextManager[None]]
    """The store is out of reach for as long as the block takes."""
    reads_too: bool
    """Whether what was read before is out of reach too."""
