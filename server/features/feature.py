"""What a feature is: a value that says all that the server has to know of it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from handlers.command import CommandSet
from server.gateway import Follower, Greeting


class Job(NamedTuple):
    """Work that is done again and again."""

    name: str
    seconds: float
    run: Callable[[], Awaitable[object]]
    everywhere: bool = False
    """Done by every node for itself; otherwise by one for all, and safe to be done by two at once
    all the same: see `server.jobs.shared`."""


async def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature of one node, built and not started.

    What stands beside its `build`, because it is needed before anything can be built: `COLLECTIONS`,
    what it stores; `EVENTS`, what it tells; `COMMANDS`, the kinds of what it is asked; `LIMITS`, how
    often what is no declared command may be done, by bucket.
    """

    name: str
    commands: Sequence[CommandSet] = ()
    followers: Sequence[Follower] = ()
    """Told who comes and goes, in this order."""
    greetings: Mapping[str, Greeting] = field(default_factory=dict)
    """What `ready` says besides, by namespace without its slash."""
    services: Sequence[Callable[[], Awaitable[object]]] = ()
    """Run for as long as the node does."""
    jobs: Sequence[Job] = ()
    start: Callable[[], Awaitable[None]] = _nothing
    """What must be there before the first request."""
    close: Callable[[], Awaitable[None]] = _nothing
    """Let go of what it holds."""
