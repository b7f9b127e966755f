"""What the pages show to be typed or sent works as it stands there, and is answered as shown."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import connect
from tests.support.node import run_to_end
from tests.support.rest import Account, Api
from tests.support.server import ROOT, ServerProcess, clean_environment
from tests.support.snippets import DOCS, block, blocks, script

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\5\0\1\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82"

INDEX = DOCS / "README.md"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(set(DOCS.glob("*.md")) - {INDEX}),
]

NOT_RUN = "not run: "
BLOCKS = {
    "README.md": [
        f"console: {NOT_RUN}what the demo says, shortened; test_readme.py runs the demo",
        f"sh: {NOT_RUN}the targets are here, and what they run in test_readme.py and every test",
        "js: test_readme.py, test_cluster_command.py",
        "python: test_readme.py, test_cluster_command.py",
    ],
    "CONTRIBUTING.md": [
        f"sh: {NOT_RUN}it is what runs the tests; the targets are here",
        f": {NOT_RUN}a list of directories",
        "python: here",
    ],
    "architecture.md": [f": {NOT_RUN}a drawing", f": {NOT_RUN}a drawing"],
    "authentication.md": [": here"],
    "benchmarks.md": [
        f"sh: {NOT_RUN}takes minutes; tests/unit/bench/test_report.py reads the options",
        f"sh: {NOT_RUN}takes minutes; tests/unit/bench/test_report.py reads the options",
    ],
    "clients.md": [
        "js: test_docs.py, test_balancers.py, test_base_path.py, test_proxy.py",
        "js: test_docs.py",
        "js: test_docs.py",
        "python: test_docs.py, test_balancers.py, test_base_path.py, test_proxy.py",
        "python: test_docs.py",
    ],
    "cluster.md": [
        "sh: test_typed.py",
        "haproxy: test_balancers.py",
        ": tests/unit/fanout/redis/test_user.py",
        ": tests/unit/fanout/redis/test_user.py",
        f"sh: {NOT_RUN}MongoDB's own tools, which are not in Debian",
        f"sh: {NOT_RUN}MongoDB's own tools; test_backup.py runs new-epoch",
    ],
    "configuration.md": ["console: test_typed.py"],
    "contacts.md": ["json: here"],
    "operations.md": [
        f"sh: {NOT_RUN}as another user, below /opt; .ci/run installs the lock",
        "sh: test_typed.py",
        "nginx: test_proxy.py, test_base_path.py",
        "nginx: test_base_path.py",
        "js: test_base_path.py",
        "sh: test_typed.py",
        "promql: test_monitoring.py",
        "sh: test_typed.py",
        "sh: test_typed.py, with cp in place of rsync",
        "sh: test_typed.py",
    ],
    "presence.md": ["json: here"],
    "receipts.md": ["json: here"],
    "streams.md": ["json: here", "json: here", "js: here", "js: here", "sh: here"],
    "uploads.md": ["sh: here", "json: here", "js: here"],
    "workers.md": ["sh: test_typed.py", "js: here"],
}
"""By page, each block in its order: its language, and where it is run, or why not."""


def shown(page: str, number: int = 0) -> dict[str, Any]:
    """A JSON block."""
    found: dict[str, Any] = json.loads(block(page, "json", number))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    told = BLOCKS.get(page.name, [])
    assert [language for language, _ in blocks(page)] == [each.partition(":")[0] for each in told]
    for each in told:
        for path in re.findall(r"[\w/]+\.py", each):
            found = [ROOT / path] if "/" in path else [*(ROOT / "tests/integration").rglob(path)]
            assert [each.is_file() for each in found] == [True], path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_is_to_be_made_is_a_target(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^|\n|talk:  |run )make ([a-z][a-z-]*)", text)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(named) <= set(targets)


def test_what_the_server_is_asked_to_do_is_a_command() -> None:
    named = {
        command
        for page in [*PAGES, INDEX]
        for command in re.findall(r"python -m server ([a-z][a-z-]*)", page.read_text())
    }
    helped = subprocess.run(
        [sys.executable, "-m", "server", "--help"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert named <= set(re.findall(r"^    ([a-z][a-z-]*)", helped, re.MULTILINE))
    assert {"backup", "restore", "new-epoch"} <= named


def test_the_index_has_no_blocks() -> None:
    assert not list(blocks(INDEX))


async def test_the_example_of_a_test_is_one(server: ServerProcess, api: Api) -> None:
    (source,) = [text for kind, text in blocks(ROOT / "CONTRIBUTING.md") if kind == "python"]
    names: dict[str, Any] = {"ServerProcess": ServerProcess, "Api": Api, "connect": connect}
    exec(source, names)
    await names["test_a_message_reaches_the_other"](server, api)


async def test_the_ways_in_are_those(api: Api) -> None:
    held: dict[str, Any] = {
        "email": "ways.in@example.com",
        "password": "Ada likes 2 chat",
        "name": "Ada",
    }
    lines = block("authentication.md", "").splitlines()
    for line in lines:
        found = re.match(r"(\w+) (/\S+) +(?:\{(.*?)\})? *→ (201)?", line)
        assert found, line
        method, path, fields, status = found.groups()
        body = {name: held[name] for name in fields.split(", ")} if fields else None
        bearer = {"Authorization": f"Bearer {held.get('access_token')}"}
        answer = await api.request(method, f"/{path}", json=body, headers={} if fields else bearer)
        told = answer.expect(int(status or 200))
        held.update(told or {})
    assert len(lines) == 4


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
