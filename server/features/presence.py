"""Presence: who is there, on which devices, and what they want others to see of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from actions.presence.presence import Presences
from actions.presence.watch import PresenceWatch
from config.settings import Settings
from domain.events import EventType
from domain.presence import presence
from domain.presence.presence import SEEN_EVERY
from domain.rates import Rate
from fanout.presence import PresenceRegistry
from handlers.command import CommandSet
from handlers.presence.presence import PresenceCommands
from server.core import Core
from server.features.accounts import AccountsFeature
from server.features.feature import Feature, Job
from store.accounts.contacts import ContactRepository
from store.engine import Collection
from store.presence import presence as presence_store
from store.presence.presence import PresenceRepository

COLLECTIONS: tuple[Collection, ...] = (*presence_store.COLLECTIONS,)
EVENTS: tuple[EventType, ...] = (*presence.EVENTS,)
COMMANDS: tuple[type[CommandSet], ...] = (PresenceCommands,)
LIMITS: Mapping[str, Rate] = {}

LEASE_RENEWED = 5.0
"""Seconds: a node that dies takes its connections offline within a minute."""


@dataclass(frozen=True, kw_only=True)
class PresenceFeature(Feature):
    """With what is measured of it."""

    presences: Presences
    watch: PresenceWatch


def build(
    core: Core, settings: Settings, registry: PresenceRegistry, accounts: AccountsFeature
) -> PresenceFeature:
    """The feature on one node."""
    core.connect_presence(registry)
    kept = PresenceRepository(core.engine)
    presences = Presences(registry, kept, core.control, core.clock, settings.presence_grace)
    watch = PresenceWatch(
        registry,
        kept,
        ContactRepository(core.engine),
        core.rules,
        core.hub,
        core.clients,
        core.publisher,
        core.control,
        core.clock,
    )
    accounts.sessions.on_ended.append(presences.logged_out)
    accounts.contacts.on_block.append(watch.blocked)

    async def close() -> None:
        await watch.close()
        await presences.close()

    return PresenceFeature(
        name="presence",
        commands=[PresenceCommands(presences, watch)],
        followers=[presences],
        jobs=[
            Job("presence", LEASE_RENEWED, presences.maintain, everywhere=True),
            Job("last_seen", SEEN_EVERY, presences.keep_seen, everywhere=True),
        ],
        close=close,
        presences=presences,
        watch=watch,
    )
