"""The clients shown in the documentation lose nothing and stay logged in, whatever happens."""

import asyncio
import re
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.door import Door, door
from tests.support.node import NODE_DIR, node, run_to_end
from tests.support.rest import Api
from tests.support.server import ServerProcess
from tests.support.snippets import DOCS, block, named

JAVASCRIPT = """
const url = process.env.PARLEY_URL;
const post = async (path, body) => (await fetch(`${url}/api/v1${path}`, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
})).json();
const tokens = await post("/auth/register", {
  email: `js.${Date.now()}@example.com`, password: "Ada likes 2 chat", name: "Ada",
});
const state = new Map(), reacted = [], failed = [];
let saved = 0, loads = 0, later = 0;
const app = {
  save() { saved++; },
  ended(code) { console.log(`ended ${code}`); process.exit(1); },
  places(namespace) {
    return Object.fromEntries([...state].filter(([name]) => name.startsWith(namespace.slice(1) + "/")).map(([k, v]) => [k, v.place]));
  },
  place(stream) { return state.get(stream)?.place; },
  apply({ stream, epoch, seq, type, data }) {
    const held = state.get(stream);
    if (seq !== held.place.seq + 1) throw new Error(`${stream}: ${seq} after ${held.place.seq}`);
    held.place = { epoch, seq };
    if (type === "message.created") held.messages.set(data.id, data);
    if (type === "reaction.added") reacted.push(data.emoji);
  },
  async load(stream, place) {
    loads++;
    const messages = new Map(), [namespace, id] = stream.split("/");
    if (namespace === "messages" && id !== tokens.user.id)
      for (const each of (await session.get(`/conversations/${id}/messages?limit=200`)).items) messages.set(each.id, each);
    await new Promise((done) => setTimeout(done, 200)); // what comes meanwhile waits
    state.set(stream, { place, messages });
    if (namespace === "messages") later = Math.max(later, place.seq);
  },
  forget(stream) { state.delete(stream); },
  show() {},
  failed(error) { failed.push(`${error}`); },
};
const session = new Session(url, tokens, app);
const messages = follow(session, "/messages", app);
const reactions = follow(session, "/reactions", app);
follow(session, "/presence", app);
await Promise.all([session.refresh(), session.refresh(), session.refresh()]);
if (saved !== 1) throw new Error(`${saved} refreshes for three that asked at once`);
const { id } = await messages.call("conversation.create", { kind: "group", client_id: "g" });
const count = Number(process.env.COUNT);
const sends = [];
let first;
for (let n = 0; n < count; n++) {
  sends.push(messages.call("message.send", { conversation: id, client_id: `${n}`, body: `${n}` }));
  if (n % 2) await new Promise((done) => setTimeout(done, Number(process.env.PAUSE)));
  if (n === 3) first = await sends[0];
}
await Promise.all(sends);
await reactions.call("reaction.add", { message: first.id, emoji: "👍" });
const held = () => state.get(`messages/${id}`);
while ((held()?.place.seq ?? 0) < count + 1 || !state.has(`reactions/${id}`)) await new Promise((done) => setTimeout(done, 20));
const bodies = [...held().messages.values()].sort((a, b) => a.seq - b.seq).map((each) => each.body);
console.log(`holds ${bodies} at ${held().place.seq} refreshed ${saved} failed ${failed.length} ${failed}`);
process.exit(0);
"""

PYTHON = """
import os, sys, time

class App:
    def __init__(self):
        self.state, self.failures, self.saved = {}, [], 0

    async def save(self, tokens):
        self.saved += 1

    async def ended(self, code):
        print("ended", code, flush=True)
        os._exit(1)

    async def places(self, namespace):
        return {k: place for k, (place, _) in self.state.items() if k.startswith(namespace[1:] + "/")}

    async def place(self, stream):
        return self.state[stream][0] if stream in self.state else None

    async def apply(self, event):
        place, messages = self.state[event["stream"]]
        assert event["seq"] == place["seq"] + 1, event
        if event["type"] == "message.created":
            messages[event["data"]["id"]] = event["data"]
        self.state[event["stream"]] = {"epoch": event["epoch"], "seq": event["seq"]}, messages

    async def load(self, stream, place):
        namespace, _, id = stream.partition("/")
        messages = {}
        if namespace == "messages" and id != self.session.tokens["user"]["id"]:
            page = await self.session.get(f"/conversations/{id}/messages?limit=200")
            messages = {each["id"]: each for each in page["items"]}
        await asyncio.sleep(0.2)  # what comes meanwhile waits
        self.state[stream] = place, messages

    async def forget(self, stream):
        self.state.pop(stream, None)

    def show(self, name, event):
        pass

    def failed(self, error):
        self.failures.append(repr(error))

async def main():
    url = os.environ["PARLEY_URL"]
    me = {"email": f"py.{time.time_ns()}@example.com", "password": "Ada likes 2 chat", "name": "Ada"}
    async with aiohttp.request("POST", f"{url}/api/v1/auth/register", json=me) as answer:
        tokens = await answer.json()
    app = App()
    app.session = session = Session(url, tokens, app)
    followers = [Follower(session, name, app) for name in ("/messages", "/reactions", "/presence")]
    running = [asyncio.create_task(each.run()) for each in followers]
    messages, reactions, _ = followers
    await asyncio.gather(*(session.refresh() for _ in range(3)))
    assert app.saved == 1, f"{app.saved} refreshes for three that asked at once"
    group = await messages.call("conversation.create", {"kind": "group", "client_id": "g"})
    count, sends = int(os.environ["COUNT"]), []
    for n in range(count):
        request = {"conversation": group["id"], "client_id": str(n), "body": str(n)}
        sends.append(asyncio.create_task(messages.call("message.send", request)))
        if n % 2:
            await asyncio.sleep(int(os.environ["PAUSE"]) / 1000)
        if n == 3:
            first = await sends[0]
    await asyncio.gather(*sends)
    await reactions.call("reaction.add", {"message": first["id"], "emoji": "👍"})
    stream = f"messages/{group['id']}"
    while stream not in app.state or app.state[stream][0]["seq"] < count + 1 or f"reactions/{group['id']}" not in app.state:
        await asyncio.sleep(0.02)
    place, held = app.state[stream]
    bodies = ",".join(each["body"] for each in sorted(held.values(), key=lambda each: each["seq"]))
    print("holds", bodies, "at", place["seq"], "refreshed", app.saved, "failed", len(app.failures), app.failures, flush=True)
    os._exit(0)

asyncio.run(main())
"""


def example(name: str) -> str:
    """The code block that follows `<!-- name -->`."""
    return named(DOCS / "clients.md", name)


async def run(language: str, url: str, directory: Path, count: int, pause: int) -> str:
    """Run the documented client to its end; what it wrote."""
    environment = {"PARLEY_URL": url, "COUNT": str(count), "PAUSE": str(pause)}
    if language == "javascript":
        source = example("parley.mjs") + JAVASCRIPT
        command: tuple[str, ...] = (node(), "--input-type=module", "-")
        return await run_to_end(*command, source=source, environment=environment)
    source = example("parley.py") + PYTHON
    return await run_to_end(
        sys.executable, "-", source=source, environment=environment, cwd=directory
    )


async def sent(api: Api) -> float:
    """Messages that the server has taken since it started."""
    text = (await api.request("GET", "//metrics")).body.decode()
    found = re.search(r'parley_commands_total{command="message.send",outcome="ok"} (\S+)', text)
    return float(found[1]) if found else 0.0


async def after(count: int, server: ServerProcess, client: "asyncio.Task[str]") -> None:
    """Wait until so many messages have been taken since the server started."""
    async with Api(server.url) as api:
        while not client.done() and await sent(api) < count:
            await asyncio.sleep(0.02)


Trouble = Callable[[ServerProcess, Door, "asyncio.Task[str]"], Awaitable[None]]


async def a_crash_and_a_cut(
    server: ServerProcess, before: Door, client: "asyncio.Task[str]"
) -> None:
    """The network goes twice, and between them the server dies and comes back."""
    for count in (4, 8):
        await after(count, server, client)
        async with before.away():
            await asyncio.sleep(0.3)  # the client tries meanwhile
    await asyncio.to_thread(server.restart, kill=True)
    await after(4, server, client)
    async with before.away():
        await asyncio.sleep(0.3)


async def a_restart(server: ServerProcess, _before: Door, client: "asyncio.Task[str]") -> None:
    """The server is restarted as an operator does it."""
    await after(8, server, client)
    await asyncio.to_thread(server.restart)


@pytest.mark.parametrize("language", ["javascript", "python"])
@pytest.mark.parametrize(
    ("trouble", "life", "count", "pause", "refreshes"),
    [(a_crash_and_a_cut, "5s", 60, 120, 2), (a_restart, "5s", 60, 150, 2)],
    ids=["cut off, crash", "restart"],
)
async def test_the_documented_client_holds_everything_once_in_order_and_stays_logged_in(
    start_server: StartServer,
    tmp_path: Path,
    language: str,
    trouble: Trouble,
    life: str,
    count: int,
    pause: int,
    refreshes: int,
) -> None:
    server = start_server(ACCESS_TTL=life)
    async with door(server.port) as before:
        url = f"http://127.0.0.1:{before.port}"
        client = asyncio.create_task(run(language, url, tmp_path, count, pause))
        await trouble(server, before, client)
        output = await client
    found = re.search(r"holds (\S*) at (\d+) refreshed (\d+) failed (\d+)", output)
    assert found, output
    assert found[1] == ",".join(map(str, range(count))), output
    assert int(found[2]) == count + 1
    assert int(found[3]) >= refreshes
    assert found[4] == "0", output


USED = {
    "javascript": """
const url = process.env.PARLEY_URL, body = "Hi";
const post = async (path, body, headers) => (await fetch(`${url}/api/v1${path}`, {
  method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body),
})).json();
const me = { email: `used.${Date.now()}@example.com`, password: "Ada likes 2 chat", name: "Ada" };
const tokens = await post("/auth/register", me);
const bearer = { Authorization: `Bearer ${tokens.access_token}` };
const { id: conversation } = await post("/conversations", { kind: "group", client_id: "g" }, bearer);
const nothing = () => {};
const app = { save: nothing, ended: nothing, places: () => ({}), place: nothing, apply: nothing, load: nothing,
  forget: nothing, show: nothing, failed: nothing };
%s
const page = await session.get(`/conversations/${conversation}/messages`);
console.log(`sent ${page.items.map((each) => each.body)}`);
process.exit(0);
""",
    "python": """
import os, time, types, uuid

async def main():
    url = os.environ["PARLEY_URL"]
    me = {"email": f"used.{time.time_ns()}@example.com", "password": "Ada likes 2 chat", "name": "Ada"}
    async with aiohttp.request("POST", f"{url}/api/v1/auth/register", json=me) as answer:
        tokens = await answer.json()
    bearer, group = {"Authorization": f"Bearer {tokens['access_token']}"}, {"kind": "group", "client_id": "g"}
    async with aiohttp.request("POST", f"{url}/api/v1/conversations", json=group, headers=bearer) as answer:
        id = (await answer.json())["id"]
    async def nothing(*_):
        pass
    async def places(_):
        return {}
    app = types.SimpleNamespace(save=nothing, ended=nothing, places=places, place=nothing, apply=nothing,
        load=nothing, forget=nothing, show=lambda *_: None, failed=lambda _: None)
%s
    page = await session.get(f"/conversations/{id}/messages")
    print("sent", *(each["body"] for each in page["items"]))

asyncio.run(main())
""",
}


@pytest.mark.parametrize(("language", "marked"), [("javascript", "js"), ("python", "python")])
async def test_the_documented_client_is_used_as_shown(
    server: ServerProcess, tmp_path: Path, language: str, marked: str
) -> None:
    client, use = block("clients.md", marked, 0), block("clients.md", marked, 1)
    command: tuple[str, ...] = (node(), "--input-type=module", "-")
    place = NODE_DIR
    if language == "python":
        use, command, place = textwrap.indent(use, "    "), (sys.executable, "-"), tmp_path
    else:  # browsers have it, and Node since 19
        client = f'globalThis.crypto ??= (await import("node:crypto")).webcrypto;\n{client}'
    output = await run_to_end(
        *command,
        source=client + USED[language] % use,
        environment={"PARLEY_URL": server.url},
        cwd=place,
    )
    assert re.search(r"^sent Hi$", output, re.MULTILINE), output
    assert "Unclosed" not in output  # what the library says where nobody has ended the connection
    assert "Traceback" not in output


async def test_the_chat_in_a_terminal_sends_what_was_typed_offline(
    fresh_server: ServerProcess, tmp_path: Path
) -> None:
    for name in ("parley.mjs", "chat.mjs"):
        (tmp_path / name).write_text(named(DOCS / "clients.md", name))
    (tmp_path / "node_modules").symlink_to(NODE_DIR / "node_modules")
    async with Api(fresh_server.url) as api:
        ada, ben = await api.register("Ada"), await api.register("Ben")
        request = {"kind": "group", "members": [ada.id], "client_id": "g"}
        group = (await ben.api.request("POST", "/conversations", json=request)).expect(201)["id"]
        said = {"body": "before", "client_id": "1"}
        path = f"/conversations/{group}/messages"
        (await ben.api.request("POST", path, json=said)).expect(201)
    arguments = [fresh_server.url, ada.email, ada.password, group]
    chat = await asyncio.create_subprocess_exec(
        node(),
        str(tmp_path / "chat.mjs"),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert chat.stdin is not None
    assert chat.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await chat.stdout.readline() == b"#2 before\n"
            chat.stdin.write(b"live\n")
            assert await chat.stdout.readline() == b"#3 live\n"
            await asyncio.to_thread(fresh_server.stop)
            chat.stdin.write(b"offline\nand then\n")
            await asyncio.to_thread(fresh_server.start)
            assert await chat.stdout.readline() == b"#4 offline\n"
            assert await chat.stdout.readline() == b"#5 and then\n"
    finally:
        chat.kill()
        await chat.wait()
