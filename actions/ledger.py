"""The one way in which events of streams come to be: stored, and told as soon as they are."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from domain.errors import ParleyError
from domain.events import Actor
from fanout.publisher import Publisher
from store.engine import (
    Append,
    Appended,
    Change,
    Engine,
    Guard,
    GuardFailed,
    Key,
    KeyReused,
    NewEvent,
    Redaction,
)


class Must(NamedTuple):
    """A guard with what is said when it does not hold. A bare one says that what the append was
    decided on has changed: look again.
    """

    guard: Guard
    refusal: Callable[[], ParleyError | Awaitable[ParleyError]]
    """Makes the error; called when it is raised."""


class Ledger:
    """Appends to streams, and publishes what was appended."""

    def __init__(self, engine: Engine, publisher: Publisher) -> None:
        self._engine = engine
        self._publisher = publisher

    async def append(
        self,
        org: str,
        stream: str,
        actor: Actor,
        at: str,
        events: Sequence[NewEvent],
        changes: Sequence[Change] = (),
        guards: Sequence[Guard | Must] = (),
        *,
        key: Key | None = None,
        reused: Callable[[], ParleyError] | None = None,
        redactions: Sequence[Redaction] = (),
        first: Callable[[Appended], None] | None = None,
    ) -> Appended:
        """Append as `store.engine.Append` says, and tell it at once, with nothing between the two.
        A retry with the key of an earlier append is answered with that one and tells nothing.

        Args:
            reused: makes the error when the key is there with another digest.
            first: is called when the events are stored and nobody has heard of them, to have
                those follow the stream who are to hear them.

        Raises:
            ParleyError: what the first guard that does not hold says; what `reused` makes.
            GuardFailed: the first that does not hold is a bare one.
            StoreError: as `Engine.append`.
        """
        bare = [each.guard if isinstance(each, Must) else each for each in guards]
        try:
            appended = await self._engine.append(
                Append(org, stream, actor, at, events, changes, bare, key, redactions)
            )
        except GuardFailed as failed:
            broken = guards[bare.index(failed.guard)]
            if not isinstance(broken, Must):
                raise
            error = broken.refusal()
            raise (error if isinstance(error, ParleyError) else await error) from None
        except KeyReused:
            if reused is None:
                raise
            raise reused() from None
        if not appended.replayed:
            if first is not None:
                first(appended)
            self._publisher.stored(appended.events)
        return appended
