"""Backups of a running server, uploads included, put back elsewhere and in the same place."""

import asyncio
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp

from tests.conftest import StartServer
from tests.support.rest import Account, Api
from tests.support.server import ROOT, ServerProcess


async def command(server: ServerProcess, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m server …` with this server's settings."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "server", *map(str, arguments)],
        cwd=ROOT,
        env=server.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def done(server: ServerProcess, *arguments: object) -> str:
    ended = await command(server, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


async def upload(who: Account, body: bytes) -> str:
    form = aiohttp.FormData()
    form.add_field(
        "file", io.BytesIO(body), content_type="application/octet-stream", filename="file.bin"
    )
    answer: Any = (await who.api.request("POST", "/uploads", data=form)).expect(201)
    return str(answer["id"])


async def download(who: Account, file: str) -> bytes | None:
    answer = await who.api.request("GET", f"/uploads/{file}")
    return answer.body if answer.status == 200 else None


def files(server: ServerProcess) -> list[str]:
    """The names of all files of uploads."""
    found = (server.data_dir / "uploads").rglob("*")
    return sorted(path.name for path in found if path.is_file())


async def test_a_server_restored_elsewhere_serves_the_uploads(
    fresh_server: ServerProcess, start_server: StartServer, tmp_path: Path
) -> None:
    copy = tmp_path / "backup.tar"
    async with Api(fresh_server.url) as api:
        ann = await api.register("Ann")
        bodies = {await upload(ann, body): body for body in (b"one", os.urandom(3_000_000))}
        gone = await upload(ann, b"deleted before")
        await ann.api.delete(f"/uploads/{gone}", 200)
        told = await done(fresh_server, "backup", copy)
        assert "2 uploads" in told
        assert copy.stat().st_mode & 0o077 == 0
        await upload(ann, b"uploaded after")

    other = start_server()
    await asyncio.to_thread(other.stop)
    assert "2 uploads" in await done(other, "restore", copy)
    await asyncio.to_thread(other.start)
    async with Api(other.url) as api:
        restored = await api.login(ann.email)
        page = await restored.api.get("/uploads")
        assert {item["id"] for item in page["items"]} == bodies.keys()
        for file, body in bodies.items():
            assert await download(restored, file) == body
    assert files(other) == sorted(bodies)


async def test_restored_in_place_is_as_it_was(fresh_server: ServerProcess, tmp_path: Path) -> None:
    server, copy = fresh_server, tmp_path / "backup.tar"
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        deleted, kept = await upload(ann, b"deleted later"), await upload(ann, b"kept")
        await done(server, "backup", copy)
        await ann.api.delete(f"/uploads/{deleted}", 200)
        new = await upload(ann, b"new")
        refused = await command(server, "restore", copy)
        assert refused.returncode == 1
        assert "in use" in refused.stderr
        assert await download(ann, new) == b"new"
        await asyncio.to_thread(server.stop)
        await done(server, "restore", copy)
        await asyncio.to_thread(server.start)
        assert [await download(ann, each) for each in (deleted, kept, new)] == [
            b"deleted later",
            b"kept",
            None,
        ]
    assert files(server) == sorted([deleted, kept])


async def test_a_backup_taken_while_files_come_and_go(
    fresh_server: ServerProcess, start_server: StartServer, tmp_path: Path
) -> None:
    copy = tmp_path / "backup.tar"
    running = True
    async with Api(fresh_server.url) as api:
        ann = await api.register("Ann")
        staying = [await upload(ann, os.urandom(200_000)) for _ in range(10)]

        async def come_and_go() -> None:
            while running:
                first, second = await upload(ann, b"first"), await upload(ann, b"second")
                await ann.api.delete(f"/uploads/{first}", 200)
                await ann.api.delete(f"/uploads/{second}", 200)

        busy = asyncio.create_task(come_and_go())
        await done(fresh_server, "backup", copy)
        running = False
        await busy

    other = start_server()
    await asyncio.to_thread(other.stop)
    await done(other, "restore", copy)
    await asyncio.to_thread(other.start)
    async with Api(other.url) as api:
        restored = await api.login(ann.email)
        shown = {item["id"] for item in (await restored.api.get("/uploads"))["items"]}
        assert shown >= set(staying)
        assert len(shown) <= len(staying) + 2
        assert all([await download(restored, file) for file in staying])
    assert shown >= set(files(other)), "no file that the database does not know"


async def test_an_upload_whose_file_is_lost_is_told(
    fresh_server: ServerProcess, tmp_path: Path
) -> None:
    async with Api(fresh_server.url) as api:
        ann = await api.register("Ann")
        lost, kept = await upload(ann, b"lost"), await upload(ann, b"kept")
        (path,) = (fresh_server.data_dir / "uploads").rglob(lost)
        path.unlink()
        told = await done(fresh_server, "backup", tmp_path / "backup.tar")
        assert "1 uploads have no file" in told
        assert lost in told
        await asyncio.to_thread(fresh_server.stop)
        assert lost in await done(fresh_server, "restore", tmp_path / "backup.tar")
        await asyncio.to_thread(fresh_server.start)
        assert [await download(ann, each) for each in (lost, kept)] == [None, b"kept"]


async def test_the_database_alone(fresh_server: ServerProcess, tmp_path: Path) -> None:
    server, copy = fresh_server, tmp_path / "copy.db"
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        old = await upload(ann, b"old")
        assert "without uploads" in await done(server, "backup", "--database-only", copy)
        new = await upload(ann, b"new")
        await asyncio.to_thread(server.stop)
        assert "as they were" in await done(server, "restore", copy)
        await asyncio.to_thread(server.start)
        assert [await download(ann, each) for each in (old, new)] == [b"old", None]
    assert files(server) == sorted([old, new])


async def test_a_new_epoch_on_demand(fresh_server: ServerProcess) -> None:
    server = fresh_server
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        group = await ann.api.post("/conversations", {"kind": "group", "client_id": "g"}, 201)
        stream = f"messages/{group['id']}"
        positions = {"streams": {stream: {"epoch": "", "seq": 0}}}
        old = (await ann.api.post("/sync", positions))["streams"][stream]
        refused = await command(server, "new-epoch")
        assert refused.returncode == 1
        assert "in use" in refused.stderr
        await asyncio.to_thread(server.stop)
        await done(server, "new-epoch")
        await asyncio.to_thread(server.start)
        new = (await ann.api.post("/sync", positions))["streams"][stream]
        assert new["epoch"] != old["epoch"]


async def test_a_backup_needs_a_place_of_its_own(
    fresh_server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "there").touch()
    nowhere, there = await asyncio.gather(
        command(fresh_server, "backup", tmp_path / "no" / "where"),
        command(fresh_server, "backup", tmp_path / "there"),
    )
    assert (nowhere.returncode, there.returncode) == (1, 1)
    assert nowhere.stderr == f"parley: there is no directory {tmp_path}/no\n"
    assert "exists already" in there.stderr
    assert not list(tmp_path.glob("there.*"))


async def test_there_must_be_something_to_copy(tmp_path: Path) -> None:
    nothing = ServerProcess(tmp_path / "nothing")
    elsewhere = ServerProcess(tmp_path / "mongo", {"STORE_URL": "mongodb://127.0.0.1:1/parley"})
    copied, renamed, link, foreign = await asyncio.gather(
        command(nothing, "backup", tmp_path / "copy"),
        command(nothing, "new-epoch"),
        command(nothing, "reset-link", "ann@example.com"),
        command(elsewhere, "backup", tmp_path / "copy"),
    )
    for refused in (copied, renamed, link):
        assert refused.returncode == 1
        assert "there is no database" in refused.stderr
        assert "PARLEY_ENV_FILE" in refused.stderr
    assert "its own tools" in foreign.stderr
    assert not list(tmp_path.glob("copy*"))
