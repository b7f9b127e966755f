"""What the operator's pages show to be typed does what they say."""

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from deploy.local.ports import free_port
from tests.conftest import StartServer
from tests.integration.operations.test_backup import download, upload
from tests.support.client import connect
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import PASSWORD, Api
from tests.support.server import ROOT, ServerProcess, clean_environment
from tests.support.snippets import block


def here(text: str) -> str:
    """A command with the interpreter of the tests."""
    return re.sub(r"(\.venv/bin/)?python -m server", f"{sys.executable} -m server", text)


async def until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    async with Api(f"http://127.0.0.1:{port}") as api:
        while True:
            assert process.poll() is None, log.read_text()
            try:
                if (await api.request("GET", "//health/ready")).status == 200:
                    return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


@asynccontextmanager
async def typed(command: str, directory: Path, **settings: object) -> AsyncIterator[str]:
    """A server that a command in a shell has started; its address."""
    port, log = free_port(), directory / "log"
    (directory / "empty.env").touch()
    own = {"ENV_FILE": directory / "empty.env", "DATA_DIR": directory, "PORT": port, **settings}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-euc", here(command)],
            cwd=ROOT,
            env={**clean_environment(), **{f"PARLEY_{k}": str(v) for k, v in own.items()}},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(30):
            await until_ready(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        await asyncio.to_thread(process.wait, 20)


@pytest.mark.parametrize("page", ["cluster.md", "workers.md"])
async def test_a_node_starts_with_the_documented_command(
    page: str, mongodb: str, tmp_path: Path
) -> None:
    require_redis()
    with RedisProcess(tmp_path / "redis") as redis, scratch(mongodb) as database:
        command = re.sub(r"mongodb://\S+", database.url, block(page, "sh"))
        command = re.sub(r"redis://\S+", redis.url, command)
        command = command.replace("SECRET_KEY=…", f"SECRET_KEY={secrets.token_hex(32)}")
        async with typed(command, tmp_path) as url, Api(url) as api:
            checks = (await api.request("GET", "//health/ready")).expect(200)["checks"]
            assert checks.keys() >= {"store", "bus"}


async def test_the_documented_settings_of_a_service(tmp_path: Path) -> None:
    lines = block("operations.md", "sh", 1).replace("/var/lib/parley", str(tmp_path))
    lines = lines.replace("SECRET_KEY=", f"SECRET_KEY={secrets.token_hex(32)}")
    lines = lines.replace("ADMIN_PASSWORD=", f"ADMIN_PASSWORD={PASSWORD}")
    file = tmp_path / "parley.env"
    file.write_text(lines)
    settings = {"ENV_FILE": file, "DATA_DIR": tmp_path}
    async with typed("exec python -m server", tmp_path, **settings) as url, Api(url) as api:
        account = await api.login("you@example.com", PASSWORD)
        assert account.user["role"] in {"admin", "owner"}
        stranger = {"email": "a@example.com", "password": PASSWORD, "name": "A"}
        assert (await api.request("POST", "/auth/register", json=stranger)).status == 403
    file.write_text(re.sub("PARLEY_ADMIN_PASSWORD=.*\n", "", lines))  # as the page has it
    async with typed("exec python -m server", tmp_path, **settings) as url, Api(url) as api:
        await api.login("you@example.com", PASSWORD)
    assert '"event": "started"' in (tmp_path / "log").read_text().replace('":"', '": "')


def test_wrong_settings_are_answered_as_shown(tmp_path: Path) -> None:
    (tmp_path / "empty.env").touch()
    asked = re.findall(
        r"^\$ (\S+)=(\S+) make run\n(.*)$", block("configuration.md", "console"), re.M
    )
    assert len(asked) == 2
    for name, value, answer in asked:
        own = {"ENV_FILE": tmp_path / "empty.env", "DATA_DIR": tmp_path, "PORT": free_port()}
        process = subprocess.Popen(
            [sys.executable, "-m", "server"],
            cwd=ROOT,
            env={
                **clean_environment(),
                **{f"PARLEY_{k}": str(v) for k, v in own.items()},
                name: value,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert process.stderr.readline() == f"{answer}\n"
        process.kill()
        process.communicate()


async def test_what_an_administrator_types(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(ADMIN_EMAIL="root@example.com", ADMIN_PASSWORD=PASSWORD)
    (tmp_path / "login.json").write_text(
        json.dumps({"email": "root@example.com", "password": PASSWORD})
    )
    async with Api(server.url) as api:
        ben = await api.register("Ben")
        async with await connect(server.url, "/messages", ben.token) as client:
            typed_here = block("operations.md", "sh", 2)
            for there, instead in (
                ("http://127.0.0.1:8000", server.url),
                ("ben@example.com", ben.email),
                ("019a…", ben.id),
                ("DlLwk…", client.ready["connection"]),
                ("python3", sys.executable),
            ):
                assert there in typed_here
                typed_here = typed_here.replace(there, instead)
            done = await asyncio.to_thread(
                subprocess.run,
                ["sh", "-euc", typed_here],
                cwd=tmp_path,
                env=clean_environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert (await client.wait_for("closing"))["code"] == "revoked"
        answers = [json.loads(line) for line in done.stdout.splitlines() if line]
        invite, found, link, there_is, *_ = answers
        assert [each["id"] for each in found["items"]] == [ben.id]
        assert [each["user"] for each in there_is["items"]] == [ben.id]
        new = {"email": "eve@example.com", "password": PASSWORD, "name": "Eve"}
        answer = await api.request(
            "POST", "/auth/register", json={**new, "invite": invite["token"]}
        )
        answer.expect(201)
        login = {"email": ben.email, "password": ben.password}
        assert (await api.request("POST", "/auth/login", json=login)).status in {401, 403}
        assert link["user"] == ben.id


class Shell:
    """The commands of the pages, in a shell, for a server of the tests in place of the service."""

    def __init__(self, server: ServerProcess, directory: Path) -> None:
        self._server = server
        self._directory = directory
        settings = server.environment().items()
        (directory / "parley.env").write_text(
            "".join(
                f"{name}={value}\n"
                for name, value in settings
                if name.startswith("PARLEY_") and name != "PARLEY_ENV_FILE"
            )
        )

    async def type(self, commands: str) -> None:
        """Run each line."""
        for line in commands.splitlines():
            if line.startswith("systemctl "):
                does = {"stop": self._server.stop, "start": self._server.start}[line.split()[1]]
                await asyncio.to_thread(does)
                continue
            typed_here = line
            for there, instead in (
                ("sudo -u parley ", "env "),
                ("/etc/parley.env", str(self._directory / "parley.env")),
                ("/var/lib/parley", str(self._server.data_dir)),
                (" backups/", f" {self._directory}/backups/"),
                # Where there is no rsync: what this one does to a place that is not there yet.
                ("rsync -a --exclude tmp ", f"mkdir -p {self._directory}/backups; cp -a "),
            ):
                typed_here = typed_here.replace(there, instead)
            done = await asyncio.to_thread(
                subprocess.run,
                ["sh", "-euc", here(typed_here)],
                cwd=ROOT,
                env=clean_environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


async def test_backup_and_restore_as_typed(fresh_server: ServerProcess, tmp_path: Path) -> None:
    shell = Shell(fresh_server, tmp_path)
    async with Api(fresh_server.url) as api:
        ann = await api.register("Ann")
        file = await upload(ann, b"kept")
        await shell.type(block("operations.md", "sh", 3))
        await shell.type(block("operations.md", "sh", 4))
        ben = await api.register("Ben")
    assert (fresh_server.data_dir / "backup.db").is_file()
    assert [each.read_bytes() for each in (tmp_path / "backups").rglob("*" + file)] == [b"kept"]
    await shell.type(block("operations.md", "sh", 5))
    async with Api(fresh_server.url) as api:
        assert await download(await api.login(ann.email), file) == b"kept"
        lost = {"email": ben.email, "password": ben.password}
        assert (await api.request("POST", "/auth/login", json=lost)).status == 401
