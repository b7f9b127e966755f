"""Backups of database and files together: what is damaged, cut short, lost or not ours."""

import hashlib
import tarfile
from pathlib import Path

import pytest

from domain.errors import Unavailable
from domain.ids import new_id
from store.engine import Collection, StoreError
from store.sqlite import archive
from store.uploads.blobs_disk import place
from store.uploads.uploads import UPLOADS, State
from tests.support.stores import ORG, ROOMS
from tests.unit.store.conftest import SqliteStores

COLLECTIONS: tuple[Collection, ...] = (UPLOADS, ROOMS)


class Data:
    """A database with uploads, and a backup of it."""

    def __init__(self, sqlite: SqliteStores, directory: Path) -> None:
        self.stores = sqlite
        self.uploads = directory / "uploads"
        self.backup = directory / "backup.tar"

    async def add(self, body: bytes, state: State = State.READY) -> str:
        """An upload of the database and its file."""
        engine = await self.stores.engine(COLLECTIONS)
        id = new_id()
        known = {"sha256": hashlib.sha256(body).hexdigest(), "state": state.value}
        await engine.insert(ORG, UPLOADS, {"id": id, "owner": "ann", "client_id": None, **known})
        await self.stores.stop(engine)
        path = self.uploads / place(id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return id

    def take(self) -> archive.Copied:
        """Make the backup."""
        return archive.take(self.stores.path, self.uploads, self.backup)

    def put_back(self, source: Path | None = None) -> archive.Copied:
        """Restore it."""
        return archive.put_back(source or self.backup, self.stores.path, self.uploads)

    def files(self) -> dict[str, bytes]:
        """Contents of all files of uploads, by name."""
        found = self.uploads.rglob("*")
        return {path.name: path.read_bytes() for path in found if path.is_file()}


@pytest.fixture
def data(sqlite: SqliteStores, tmp_path: Path) -> Data:
    return Data(sqlite, tmp_path)


async def test_what_the_database_knows_is_copied_and_put_back(data: Data) -> None:
    ready = await data.add(b"ready")
    await data.add(b"half", State.RECEIVING)
    await data.add(b"going", State.DELETING)
    taken = data.take()
    assert (taken.files, taken.bytes, taken.missing, taken.damaged) == (1, 5, [], [])
    await data.add(b"after")
    (data.uploads / place(ready)).write_bytes(b"spoilt")
    put = data.put_back()
    assert (put.files, put.bytes, put.missing, put.damaged) == (1, 5, [], [])
    assert data.files() == {ready: b"ready"}
    engine = await data.stores.engine(COLLECTIONS)
    assert len(await engine.find(ORG, UPLOADS, {})) == 3


async def test_a_database_without_uploads_and_a_place_without_any(data: Data) -> None:
    engine = await data.stores.engine((ROOMS,))
    await engine.insert(ORG, ROOMS, {"id": "r"})
    await data.stores.stop(engine)
    assert data.take().files == 0
    assert data.put_back().files == 0
    assert data.uploads.is_dir()


async def test_a_lost_file_is_told_both_times(data: Data) -> None:
    lost, kept = await data.add(b"lost"), await data.add(b"kept")
    (data.uploads / place(lost)).unlink()
    assert data.take().missing == [lost]
    assert data.put_back().missing == [lost]
    assert data.files() == {kept: b"kept"}


async def test_changed_bytes_are_told(data: Data) -> None:
    id = await data.add(b"as it was received")
    data.take()
    data.backup.write_bytes(data.backup.read_bytes().replace(b"received", b"changed."))
    assert data.put_back().damaged == [id]
    assert data.files() == {id: b"as it was changed."}


async def test_what_is_no_whole_backup_changes_nothing(data: Data, tmp_path: Path) -> None:
    await data.add(b"x" * 5000)
    await data.add(b"y" * 5000)
    data.take()
    await data.add(b"later")
    before = data.files()
    whole = data.backup.read_bytes()
    bad: dict[str, bytes] = {"text": b"hello" * 1000, "nothing": b"", "zeros": bytes(10_240)}
    with tarfile.open(data.backup) as original:
        members = original.getmembers()
        bad["without its end"] = whole[: members[-1].offset]
        bad["cut in a file"] = whole[: members[-2].offset_data + 100]
        bad["cut in the database"] = whole[: members[0].offset_data + 100]
        with tarfile.open(tmp_path / "escaping", "w") as changed:
            for member in members:
                member.name = member.name.replace("uploads/", "../../")
                changed.addfile(member, original.extractfile(member))
        with tarfile.open(tmp_path / "twice", "w") as changed:
            for member in [*members[:2], *members[1:]]:
                changed.addfile(member, original.extractfile(member))
    bad["escaping"] = (tmp_path / "escaping").read_bytes()
    bad["twice"] = (tmp_path / "twice").read_bytes()
    with tarfile.open(tmp_path / "foreign", "w") as other:
        other.add(__file__, "parley.db")
    bad["foreign"] = (tmp_path / "foreign").read_bytes()
    for content in bad.values():
        (tmp_path / "bad.tar").write_bytes(content)
        with pytest.raises(StoreError):
            data.put_back(tmp_path / "bad.tar")
        assert data.files() == before
    engine = await data.stores.engine(COLLECTIONS)
    assert len(await engine.find(ORG, UPLOADS, {})) == 3
    assert not [path.name for path in tmp_path.iterdir() if "restore" in path.name]


async def test_it_refuses_while_a_server_runs(data: Data) -> None:
    await data.add(b"one")
    data.take()
    await data.stores.engine(COLLECTIONS)
    with pytest.raises(StoreError, match="in use"):
        data.put_back()


async def test_what_cannot_be_written_leaves_nothing(data: Data, tmp_path: Path) -> None:
    await data.add(b"one")
    data.backup = tmp_path / "nowhere" / "backup.tar"
    with pytest.raises(Unavailable):
        data.take()
    assert {path.name for path in tmp_path.iterdir()} == {"data", "uploads"}


def test_a_database_is_told_from_an_archive(tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_bytes(b"SQLite format 3\0" + bytes(100))
    (tmp_path / "backup.tar").write_bytes(bytes(10_240))
    assert archive.is_database(tmp_path / "copy.db")
    assert not archive.is_database(tmp_path / "backup.tar")
    with pytest.raises(StoreError, match="cannot be read"):
        archive.is_database(tmp_path / "missing")
