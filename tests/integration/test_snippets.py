"""What the pages show to be typed or sent works as it stands there, and is answered as shown."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import connect
from tests.support.node import run_to_end
from tests.support.rest import Account, Api
from tests.support.server import ROOT, ServerProcess
from tests.support.snippets import block, blocks, script

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\5\0\1\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82"

INDEX = ROOT / "docs" / "README.md"
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {INDEX})]

NOT_RUN = {
    "README.md console": "the demo's output, shortened: test_readme.py runs the demo",
    "benchmarks.md sh": "takes minutes; the options are those of tests/unit/bench",
    "cluster.md haproxy": "a fragment: test_cluster_command.py runs deploy/haproxy.cfg",
    "cluster.md sh": "MongoDB's own tools, which are not here",
    "operations.md promql": "needs a Prometheus",
    "operations.md sh": "as another user, below /opt: test_backup.py runs the commands",
    "workers.md sh": "test_workers.py starts the same",
}
"""Kinds of blocks that no test runs as they stand, by page, and why."""

RUN = {
    "README.md js": "test_readme.py",
    "README.md python": "test_readme.py",
    "README.md sh": "test_readme.py runs the demo, every test the server",
    "clients.md js": "test_docs.py",
    "clients.md python": "test_docs.py",
    "configuration.md console": "test_settings.py, test_load.py",
    "contacts.md json": "here",
    "operations.md js": "test_base_path.py",
    "operations.md nginx": "test_proxy.py, test_base_path.py",
    "presence.md json": "here",
    "receipts.md json": "here",
    "streams.md js": "here",
    "streams.md json": "here",
    "streams.md sh": "here",
    "uploads.md js": "here",
    "uploads.md json": "here",
    "uploads.md sh": "here",
    "workers.md js": "here",
}
"""Those that a test runs."""


def shown(page: str, number: int = 0) -> dict[str, Any]:
    """A JSON block."""
    found: dict[str, Any] = json.loads(block(page, "json", number))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_kind_of_block_is_run_or_says_why_not(page: Path) -> None:
    kinds = {f"{page.name} {language}" for language, _ in blocks(page)}
    listed = {name for name in RUN | NOT_RUN if name.startswith(f"{page.name} ")}
    assert kinds == listed
    assert not RUN.keys() & NOT_RUN.keys()


def test_the_index_has_none() -> None:
    assert not list(blocks(INDEX))


@pytest.fixture
async def ann(api: Api) -> Account:
    return await api.register("Ann")


async def a_group(url: str, account: Account) -> tuple[str, dict[str, Any]]:
    """A conversation with one message: its id, and that message's event."""
    async with await connect(url, "/messages", account.token) as client:
        group = await client.call("conversation.create", {"kind": "group", "client_id": "g"})
        sent = {"conversation": group["id"], "body": "Hi", "client_id": "1"}
        await client.call("message.send", sent)
        return group["id"], await client.wait_for("message.created")


async def shell(command: str, server: ServerProcess, token: str, cwd: Path) -> Any:
    """What a command with `curl` is answered, that is written for a server at the default port."""
    source = command.replace("http://127.0.0.1:8000", server.url).replace("curl ", "curl -sS ")
    environment = {"TOKEN": token, "PATH": os.environ["PATH"]}
    return json.loads(
        await run_to_end("sh", "-eu", source=source, environment=environment, cwd=cwd)
    )


async def test_an_upload_is_sent_and_shown(
    server: ServerProcess, ann: Account, tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(PNG)
    made = await shell(block("uploads.md", "sh"), server, ann.token, tmp_path)
    assert shown("uploads.md").keys() <= made.keys()
    assert made["name"] == shown("uploads.md")["name"]
    source = (
        f"const id = {json.dumps(made['id'])}, image = {{}}, there = fetch;\n"
        "globalThis.fetch = (path, options) => there(url + path, options);\n"
        f"{block('uploads.md', 'js')}\nprint([answer.status, image.src.slice(0, 5)]);"
    )
    assert await script(source, server.url, ann.token) == [200, "blob:"]


async def test_streams_are_resumed_subscribed_and_synced(
    server: ServerProcess, ann: Account, tmp_path: Path
) -> None:
    conversation, event = await a_group(server.url, ann)
    assert event.keys() == shown("streams.md").keys()

    def real(text: str) -> str:
        text = text.replace("messages/019a…", f"messages/{conversation}")
        return text.replace("684589f6ad01", event["epoch"]).replace("seq: 15", "seq: 1")

    stream = f"messages/{conversation}"
    resume = f"const socket = {real(block('streams.md', 'js', 0)).strip()};\n"
    ready = await script(f'{resume}socket.on("ready", print);', server.url, ann.token)
    assert shown("streams.md", 1).keys() <= ready.keys()
    assert ready["streams"][stream] == {"epoch": event["epoch"], "seq": 2, "recovered": True}

    first, comment = real(block("streams.md", "js", 1)).strip().split("\n")
    subscribe = f'{resume}socket.on("ready", async () => print(\n{first}\n));'
    answer = await script(subscribe, server.url, ann.token)
    (told,) = answer["data"]["streams"].values()
    assert all(name in comment for name in told)
    assert [each["seq"] for each in told["events"]] == [2]

    command = real(block("streams.md", "sh")).replace('"seq": 15', '"seq": 1')
    missed = await shell(command, server, ann.token, tmp_path)
    assert [each["seq"] for each in missed["streams"][stream]["events"]] == [2]


async def test_contacts_presence_and_receipts_are_as_shown(
    server: ServerProcess, api: Api, ann: Account
) -> None:
    bob = await api.register("Bob")
    conversation, event = await a_group(server.url, ann)
    async with Api(server.url, ann.token) as rest:
        contact = await rest.put(f"/contacts/{bob.id}/block")
        assert shown("contacts.md").keys() == contact.keys()
        read = await rest.put(f"/conversations/{conversation}/read", {"seq": event["seq"]})
        assert shown("receipts.md").keys() == read.keys()
    async with await connect(server.url, "/presence", ann.token) as client:
        assert (
            shown("presence.md").keys()
            == (
                await client.call("presence.set", {"status": "busy", "text": "in a meeting"})
            ).keys()
        )


async def test_a_client_may_say_websocket_alone(server: ServerProcess, ann: Account) -> None:
    source = (
        f"const socket = {block('workers.md', 'js').strip()};\n"
        'socket.io.on("open", () => print(socket.io.engine.transport.name));'
    )
    assert await script(source, server.url, ann.token) == "websocket"
