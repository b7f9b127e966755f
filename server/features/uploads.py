"""Uploads: files, and what pictures are made into."""

from collections.abc import Mapping
from dataclasses import dataclass

from actions.uploads.avatars import Avatars
from actions.uploads.pictures import Pictures
from actions.uploads.uploads import Limits, Uploads
from config.settings import Settings
from domain.events import EventType
from domain.rates import DEFAULT, HOUR, MINUTE, Rate
from handlers.command import CommandSet
from handlers.uploads.uploads import UploadCommands
from server.core import Core
from server.features.feature import Feature, Job
from store.engine import Collection
from store.uploads import uploads as uploads_store
from store.uploads.blobs import Blobs
from store.uploads.uploads import UploadRepository

COLLECTIONS: tuple[Collection, ...] = (*uploads_store.COLLECTIONS,)
EVENTS: tuple[EventType, ...] = ()
COMMANDS: tuple[type[CommandSet], ...] = (UploadCommands,)
LIMITS: Mapping[str, Rate] = {
    # The routes of `server.http.uploads`.
    "upload.create": Rate(120, MINUTE),
    "upload.download": DEFAULT,
}


@dataclass(frozen=True, kw_only=True)
class UploadsFeature(Feature):
    """With what other features build on."""

    files: UploadRepository
    uploads: Uploads


def build(core: Core, settings: Settings, blobs: Blobs, avatars: Avatars) -> UploadsFeature:
    """The feature on one node."""
    files = UploadRepository(core.engine)
    pictures = Pictures(max_pixels=settings.image_pixels, metadata=settings.image_metadata.value)
    uploads = Uploads(
        files,
        blobs,
        core.rules,
        core.clock,
        Limits(settings.upload_max, settings.upload_quota, settings.upload_unattached),
        pictures,
    )
    uploads.on_removed.append(avatars.removed)
    uploads.shows = avatars.shows

    async def close() -> None:
        pictures.close()

    return UploadsFeature(
        name="uploads",
        commands=[UploadCommands(uploads)],
        jobs=[Job("uploads", HOUR, uploads.sweep)],
        close=close,
        files=files,
        uploads=uploads,
    )
