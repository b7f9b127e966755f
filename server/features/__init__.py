"""The features of the server: each a value that its module builds, added up here."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from config.settings import Settings
from domain.events import EventType
from domain.rates import Rate
from fanout.limits import RateLimiter
from fanout.presence import PresenceRegistry
from handlers.command import CommandSet
from server.core import Core
from server.features import accounts, cluster, messaging, presence, streams, uploads
from server.features.feature import Feature, Job
from server.gateway import Follower, Greeting
from store.engine import Collection
from store.uploads.blobs import Blobs

MODULES = (streams, accounts, uploads, messaging, presence, cluster)

COLLECTIONS: tuple[Collection, ...] = tuple(one for each in MODULES for one in each.COLLECTIONS)
"""Everything that is stored."""

EVENTS: tuple[EventType, ...] = tuple(one for each in MODULES for one in each.EVENTS)
"""Everything that is told."""

COMMANDS: tuple[type[CommandSet], ...] = tuple(one for each in MODULES for one in each.COMMANDS)
"""Everything that can be asked for, but for what `server.http` has routes of its own for."""

NAMESPACES: tuple[str, ...] = tuple(sorted({each.namespace for each in COMMANDS if each.namespace}))

LIMITS: Mapping[str, Rate] = {
    **{name: rate for each in MODULES for name, rate in each.LIMITS.items()},
    **{name: rate for each in COMMANDS for name, rate in each.limits().items()},
}
"""How often everything may be done, by bucket. A command is counted in the bucket of its name."""


class Features:
    """All features of one node."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        blobs: Blobs,
        limiter: RateLimiter,
        registry: PresenceRegistry,
    ) -> None:
        self.accounts = accounts.build(core, settings, limiter)
        self.uploads = uploads.build(core, settings, blobs, self.accounts.avatars)
        self.presence = presence.build(core, settings, registry, self.accounts)
        self.all: Sequence[Feature] = (
            streams.build(core, settings),
            self.accounts,
            self.uploads,
            messaging.build(core, limiter, self.accounts, self.uploads),
            self.presence,
        )

    @property
    def commands(self) -> list[CommandSet]:
        """All that can be asked for."""
        return [one for each in self.all for one in each.commands]

    @property
    def followers(self) -> list[Follower]:
        """Who is told of clients that come and go."""
        return [one for each in self.all for one in each.followers]

    @property
    def greetings(self) -> Mapping[str, Greeting]:
        """What `ready` says besides, by namespace."""
        return {name: one for each in self.all for name, one in each.greetings.items()}

    @property
    def services(self) -> list[Callable[[], Awaitable[object]]]:
        """What runs for as long as the node does."""
        return [one for each in self.all for one in each.services]

    @property
    def jobs(self) -> list[Job]:
        """What is done again and again."""
        return [one for each in self.all for one in each.jobs]

    async def start(self) -> None:
        """What must be there before the first request.

        Raises:
            SettingsError: the first administrator cannot be made.
            Unavailable: the store is out of reach.
        """
        for each in self.all:
            await each.start()

    async def close(self) -> None:
        """Let go of what the features hold, the last first."""
        for each in reversed(self.all):
            await each.close()
