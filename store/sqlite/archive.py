"""Whole backups: the database and the uploads in one file, a tar archive.

The database is copied first, then the files of the uploads that the copy knows. A file never changes,
and is there before the database knows it, so all of them are there, but for what was deleted while
the copy was made. Put back is the other way round: files that nobody knows yet harm nothing, so they
come first, and what the restored database does not know is removed last.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from domain.errors import Unavailable
from store.engine import StoreError
from store.sqlite.copies import backup, prepared, sync
from store.sqlite.lock import FileLock
from store.sqlite.tables import Table
from store.uploads.blobs_disk import place
from store.uploads.uploads import UPLOADS, State, thumbnail_blob

DATABASE = "parley.db"
"""The first member."""
FILES = "uploads/"
"""What the names of the files begin with; then as in the directory of uploads."""
END = "end.json"
"""The last member, `{"uploads": <how many>}`: without it the archive was cut short."""

PIECE = 1024 * 1024
"""Bytes copied at a time."""

_SQLITE = b"SQLite format 3\0"


@dataclass(slots=True)
class Copied:
    """What was done with the uploads."""

    files: int = 0
    bytes: int = 0
    missing: list[str] = field(default_factory=list)
    """Uploads that the database knows and that have no file: deleted while the copy was made, or
    lost before."""
    damaged: list[str] = field(default_factory=list)
    """Uploads whose bytes are not those that were received."""


def is_database(source: Path) -> bool:
    """Whether a backup is a database without uploads.

    Raises:
        StoreError: there is no such file.
    """
    try:
        with source.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise StoreError(f"the backup {source} cannot be read: {error.strerror}") from error


# -- taking ---------------------------------------------------------------------------------------


def take(database: Path, uploads: Path, target: Path) -> Copied:
    """Copy a database and its uploads, also while a server uses them. Blocks.

    The archive appears under its name only when it is whole and on disk.

    Args:
        uploads: the directory of a `DiskBlobs`.

    Raises:
        Unavailable: something cannot be read, or the target not be written.
    """
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    copy = target.with_name(f"{target.name}.database-{os.getpid()}")
    try:
        backup(database, copy)
        partial.unlink(missing_ok=True)
        partial.touch(0o600)  # it has everybody's messages
        with partial.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(copy, DATABASE, filter=_plain)
                done = _add(archive, uploads, known(copy))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        sync(target.parent)
        return done
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"The backup failed: {error}") from error
    finally:
        for name in (partial, copy):
            name.unlink(missing_ok=True)


def known(database: Path) -> Mapping[str, str]:
    """The files that a database says uploads have, thumbnails too, each with its SHA-256."""
    table = Table(UPLOADS)
    db = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        there = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
        if not db.execute(there, (table.plain,)).fetchone()[0]:
            return {}
        found: dict[str, str] = {}
        for id, digest, thumbnails in db.execute(
            f"SELECT id, json_extract(_doc, '$.sha256'), json_extract(_doc, '$.thumbnails') "  # noqa: S608
            f"FROM {table.name} WHERE {table.column('state')} = ? ORDER BY id",
            (State.READY.value,),
        ):
            found[id] = digest
            for size, thumbnail in json.loads(thumbnails or "{}").items():
                found[thumbnail_blob(id, size)] = thumbnail["sha256"]
        return found
    finally:
        db.close()


def _add(archive: tarfile.TarFile, uploads: Path, wanted: Mapping[str, str]) -> Copied:
    done = Copied()
    for id in wanted:
        path = place(id)
        try:
            file = (uploads / path).open("rb")
        except FileNotFoundError:
            done.missing.append(id)
            continue
        with file:
            info = _plain(archive.gettarinfo(arcname=f"{FILES}{path.as_posix()}", fileobj=file))
            archive.addfile(info, file)
        done.files += 1
        done.bytes += info.size
    text = _end(done.files)
    info = tarfile.TarInfo(END)
    info.size = len(text)
    archive.addfile(info, io.BytesIO(text))
    return done


def _end(files: int) -> bytes:
    return json.dumps({"uploads": files}).encode()


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whose files they are here says nothing elsewhere."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o600
    return info


# -- putting back ---------------------------------------------------------------------------------


def put_back(source: Path, database: Path, uploads: Path) -> Copied:
    """Put an archive in the place of a database and its uploads. Every stream gets a new epoch.
    Until all of the archive is known to be good, nothing is changed. Blocks.

    Raises:
        StoreError: a server uses the database, or the archive is damaged or of a newer version.
        Unavailable: a file cannot be read or written.
    """
    lock = FileLock(database)
    lock.acquire()
    staging = uploads.with_name(f"{uploads.name}.restore")
    try:
        _fresh(staging)
        with tarfile.open(source, mode="r:") as archive:
            members = iter(archive)
            copy = staging / DATABASE
            _extract(archive, next(members, None), DATABASE, copy)
            with prepared(copy, database) as put:
                wanted = known(copy)
                done = _unpack(archive, members, wanted, staging)
                _move(staging, uploads, wanted.keys() - done.missing)
                put()
                _remove_others(uploads, wanted)
        return done
    except tarfile.TarError as error:
        raise StoreError(f"{source} is not a backup, or damaged: {error}") from error
    except OSError as error:
        raise Unavailable(f"The backup cannot be restored: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        lock.release()


def _fresh(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
    directory.mkdir(mode=0o700, parents=True)


def _extract(
    archive: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, target: Path
) -> str:
    """Write one member to a file; returns its SHA-256."""
    if member is None or member.name != name or not member.isreg():
        raise StoreError(f"the backup is damaged: {name} is missing")
    digest = hashlib.sha256()
    left = member.size
    with _opened(archive, member) as file, target.open("xb") as copy:
        while piece := file.read(PIECE):
            digest.update(piece)
            copy.write(piece)
            left -= len(piece)
        copy.flush()
        os.fsync(copy.fileno())
    if left:
        raise StoreError(f"the backup is damaged: {name} is cut short")
    return digest.hexdigest()


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None, "a regular file"
    return file


def _unpack(
    archive: tarfile.TarFile,
    members: Iterator[tarfile.TarInfo],
    wanted: Mapping[str, str],
    staging: Path,
) -> Copied:
    """Write all files to the staging directory, by id."""
    done = Copied()
    missing = dict.fromkeys(wanted)
    for member in members:
        if member.name == END:
            if _opened(archive, member).read() != _end(done.files):
                break
            done.missing = list(missing)
            return done
        id = member.name.rpartition("/")[2]
        if id not in missing:
            raise StoreError(f"the backup is damaged: {member.name} has no place in it")
        name = f"{FILES}{place(id).as_posix()}"
        if _extract(archive, member, name, staging / id) != wanted[id]:
            done.damaged.append(id)
        del missing[id]
        done.files += 1
        done.bytes += member.size
    raise StoreError("the backup was cut short")


def _move(staging: Path, uploads: Path, ids: Iterable[str]) -> None:
    uploads.mkdir(mode=0o700, exist_ok=True)
    touched = {uploads, uploads.parent}
    for id in ids:
        target = uploads / place(id)
        target.parent.mkdir(parents=True, exist_ok=True)
        (staging / id).replace(target)
        touched |= {target.parent, target.parent.parent}
    for directory in touched:
        sync(directory)


def _remove_others(uploads: Path, wanted: Mapping[str, str]) -> None:
    for path in uploads.rglob("*"):
        if path.is_file() and path.name not in wanted:
            path.unlink()
