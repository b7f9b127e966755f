"""Following streams, in every namespace; and how long events stay."""

from collections.abc import Mapping

from actions.streams.retention import Retention
from config.settings import Settings
from domain.events import EventType
from domain.rates import HOUR, Rate
from handlers.command import CommandSet
from handlers.streams.streams import StreamCommands, SyncCommands
from server.core import Core
from server.features.feature import Feature, Job
from store.engine import Collection

COLLECTIONS: tuple[Collection, ...] = ()
EVENTS: tuple[EventType, ...] = ()
COMMANDS: tuple[type[CommandSet], ...] = (StreamCommands, SyncCommands)
LIMITS: Mapping[str, Rate] = {}


def build(core: Core, settings: Settings) -> Feature:
    """The feature on one node."""
    retention = Retention(
        core.engine, core.clock, keep=settings.retention_events, age=settings.retention_age
    )
    return Feature(
        name="streams",
        commands=[StreamCommands(core.streams), SyncCommands(core.streams)],
        jobs=[Job("retention", HOUR / 6, retention.run)],
    )
