"""Following streams, in every namespace; and how long events stay."""

from actions.streams.retention import Retention
from config.settings import Settings
from domain.events import EventType
from handlers.streams.streams import StreamCommands, SyncCommands
from server.core import Core
from server.features.feature import HOUR, Feature, Job
from store.engine import Collection

COLLECTIONS: tuple[Collection, ...] = ()
EVENTS: tuple[EventType, ...] = ()
NAMESPACES: tuple[str, ...] = ()


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
