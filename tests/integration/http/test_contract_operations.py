"""What an operator relies on: metrics, logs, backup and restore."""

import asyncio
import subprocess
import sys
from pathlib import Path

import orjson

from tests.conftest import StartServer
from tests.support.client import connect
from tests.support.rest import PASSWORD, Api
from tests.support.server import ROOT, ServerProcess


def samples(text: str) -> dict[str, float]:
    """Prometheus samples by name with labels."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_metrics(api: Api) -> None:
    async def read() -> dict[str, float]:
        return samples((await api.request("GET", "//metrics")).body.decode())

    ann = await api.register("Ann")
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", ann.token),
    ):
        before = await read()
        group = await alice.call("conversation.create", {"kind": "group", "client_id": "g"})
        request = {"conversation": group["id"], "client_id": "1", "body": "x"}
        await alice.call("message.send", request)
        await alice.wait_for("message.created")
        await alice.request("message.send", {**request, "body": "y"})
        after = await read()
        assert after['parley_connections{namespace="/messages"}'] >= 2
        for name, least in (
            ('parley_commands_total{command="message.send",outcome="ok"}', 1),
            ('parley_commands_total{command="message.send",outcome="conflict"}', 1),
            ('parley_command_seconds_count{command="message.send"}', 2),
            ("parley_deliveries_total", 4),
            ("parley_append_seconds_count", 2),
            ("parley_commit_batch_size_count", 2),
        ):
            assert after[name] >= before.get(name, 0) + least, name
        for name in ("parley_queued_bytes", "parley_event_loop_lag_seconds_count"):
            assert name in after
    await ann.api.post("/auth/logout")


async def test_a_close_on_purpose_is_counted_by_its_code(api: Api) -> None:
    ann = await api.register("Ann")
    async with await connect(api.url, "/messages", ann.token) as alice:
        await ann.api.post("/auth/logout")
        await alice.wait_closed()
    text = (await api.request("GET", "//metrics")).body.decode()
    assert samples(text)['parley_closes_total{code="revoked"}'] >= 1


async def test_logs_are_json_and_hold_neither_tokens_nor_what_people_write(
    start_server: StartServer,
) -> None:
    server = start_server(LOG_FORMAT="json", LOG_LEVEL="debug")
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        secrets = {ann.token, ann.refresh_token, PASSWORD, "dear diary"}
        async with await connect(api.url, "/messages", ann.token) as alice:
            group = await alice.call("conversation.create", {"kind": "group", "client_id": "g"})
            request = {"conversation": group["id"], "client_id": "1", "body": "dear diary"}
            await alice.call("message.send", request)
            await alice.request("message.send", {**request, "body": {"dear diary": 1}})
        await ann.api.request("GET", "/search/messages", params={"q": "dear diary"})
        await ann.api.post(
            f"/conversations/{group['id']}/messages", {"client_id": "2", "body": "dear diary"}, 201
        )
        tokens = await api.post("/auth/refresh", {"refresh_token": ann.refresh_token})
        secrets |= {tokens["access_token"], tokens["refresh_token"]}
        mine = {"X-Request-ID": "find-me"}
        await ann.api.request("GET", "/users/me", headers=mine)
    log = server.log()
    entries = [orjson.loads(line) for line in log.splitlines()]
    assert any(entry.get("request_id") == "find-me" for entry in entries)
    assert not [secret for secret in secrets if secret in log]


def run(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=server.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def test_backup_and_restore(fresh_server: ServerProcess, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    server = fresh_server
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        group = await ann.api.post("/conversations", {"kind": "group", "client_id": "g"}, 201)
        path, stream = f"/conversations/{group['id']}/messages", f"messages/{group['id']}"
        await ann.api.post(path, {"client_id": "1", "body": "kept"}, 201)
        taken = await asyncio.to_thread(run, server, "backup", copy)
        assert taken.returncode == 0, taken.stderr
        assert Path(copy).stat().st_mode & 0o077 == 0
        assert (await asyncio.to_thread(run, server, "backup", copy)).returncode == 1
        await ann.api.post(path, {"client_id": "2", "body": "after the backup"}, 201)
        async with await connect(api.url, "/messages", ann.token) as alice:
            refused = await asyncio.to_thread(run, server, "restore", copy)
            assert refused.returncode == 1
            assert "in use" in refused.stderr
            await asyncio.to_thread(server.stop)
            restored = await asyncio.to_thread(run, server, "restore", copy)
            assert restored.returncode == 0, restored.stderr
            await asyncio.to_thread(server.start)
            old = alice.ready["streams"][stream]
            await alice.reconnect()
            new = alice.ready["streams"][stream]
            assert new == {"epoch": new["epoch"], "seq": 2, "recovered": False}
            assert new["epoch"] != old["epoch"]
            (message,) = (await ann.api.get(path))["items"]
            assert message["body"] == "kept"
            sent = await alice.call(
                "message.send", {"conversation": group["id"], "client_id": "2", "body": "again"}
            )
            assert sent["seq"] == 3
