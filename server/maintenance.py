"""What an operator does to the store beside the server: copies, putting back, ways back in."""

import asyncio
from pathlib import Path

import structlog

from actions.accounts.resets import operators_reset
from config.settings import Settings, sqlite_path
from domain.accounts.accounts import PasswordReset
from domain.clock import SystemClock
from server.app import NotStarted, make_engine, uploads_directory
from server.metrics.condition import BACKUP_MARK
from store.accounts.accounts import AccountRepository
from store.engine import StoreError
from store.mongo import new_epoch as mongo_new_epoch
from store.sqlite import archive
from store.sqlite import backup as sqlite_backup
from store.sqlite import restore as sqlite_restore

log = structlog.get_logger(__name__)


async def backup(settings: Settings, target: Path, *, database_only: bool = False) -> str:
    """Copy the database and the uploads to a file that must not exist yet; a server may be running.

    Args:
        database_only: leave the uploads out.

    Returns:
        What was copied, in words.

    Raises:
        NotStarted: the store has its own tools for this, the file exists, or there is no database.
    """
    done = await asyncio.to_thread(
        _backup, _sqlite_file(settings), uploads_directory(settings), target, database_only
    )
    mark = settings.data_dir / BACKUP_MARK
    try:
        mark.touch()
    except OSError as error:
        log.warning("backup_not_marked", file=str(mark), reason=error.strerror)
    return done


def _backup(database: Path, uploads: Path, target: Path, database_only: bool) -> str:
    if target.exists():
        raise NotStarted(f"{target} exists already")
    if not target.absolute().parent.is_dir():
        raise NotStarted(f"there is no directory {target.absolute().parent}")
    _look_for(database)
    if database_only:
        sqlite_backup(database, target)
        return "the database, without uploads"
    return _told(archive.take(database, uploads, target))


async def restore(settings: Settings, source: Path) -> str:
    """Put a copy in the place of the database, and of the uploads if it has them; no server may be
    running.

    Returns:
        What was restored, in words.

    Raises:
        NotStarted: the copy cannot be used, or a server is running.
    """
    try:
        return await asyncio.to_thread(
            _restore, source, _sqlite_file(settings), uploads_directory(settings)
        )
    except StoreError as error:
        raise NotStarted(str(error)) from None


def _restore(source: Path, database: Path, uploads: Path) -> str:
    if archive.is_database(source):
        sqlite_restore(source, database)
        return "the database; the uploads are as they were"
    return _told(archive.put_back(source, database, uploads))


def _told(copied: archive.Copied) -> str:
    text = f"the database and {copied.files} uploads ({copied.bytes:,} bytes)"
    if copied.missing:
        text += f"; {len(copied.missing)} uploads have no file: {', '.join(copied.missing[:3])}"
    if copied.damaged:
        text += f"; {len(copied.damaged)} uploads are damaged: {', '.join(copied.damaged[:3])}"
    return text


async def new_epoch(settings: Settings) -> None:
    """Tell clients of a store that was put back by other means that its history is not the one
    they knew; no server may be running.

    Raises:
        NotStarted: a server is running, or there is no data.
    """
    try:
        if not settings.store_url.startswith("sqlite:"):
            await mongo_new_epoch(
                settings.store_url, clock=SystemClock(), timeout=settings.store_timeout
            )
            return
        _look_for(sqlite_path(settings.store_url))
        engine = make_engine(settings)
        await engine.start()
        try:
            await engine.new_epoch()
        finally:
            await engine.stop()
    except StoreError as error:
        raise NotStarted(str(error)) from None


async def reset_link(settings: Settings, email: str) -> PasswordReset:
    """A way back for somebody whom no administrator can help, as an only owner. On SQLite no server
    may be running.

    Raises:
        NotStarted: a server is running, or there is no data.
        NotFound: nobody has this address.
        Conflict: the user is disabled.
    """
    if settings.store_url.startswith("sqlite:"):
        _look_for(sqlite_path(settings.store_url))
    engine = make_engine(settings)
    try:
        await engine.start()
        try:
            return await operators_reset(AccountRepository(engine), SystemClock(), email)
        finally:
            await engine.stop()
    except StoreError as error:
        raise NotStarted(str(error)) from None


def _look_for(database: Path) -> None:
    if not database.is_file():
        where = "PARLEY_ENV_FILE or PARLEY_DATA_DIR says where it is"
        raise NotStarted(f"there is no database {database}: {where}")


def _sqlite_file(settings: Settings) -> Path:
    if not settings.store_url.startswith("sqlite:"):
        raise NotStarted("back up and restore MongoDB with its own tools: see docs/cluster.md")
    return sqlite_path(settings.store_url)
