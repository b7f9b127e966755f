"""The clients shown in the documentation lose nothing, also when the server crashes."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.support.node import node, run_to_end
from tests.support.rest import Api
from tests.support.server import ROOT, ServerProcess

CLIENTS = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")

JAVASCRIPT = """
const url = process.env.PARLEY_URL;
const post = async (path, body) => (await fetch(`${url}/api/v1${path}`, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
})).json();
let tokens = await post("/auth/register", {
  email: `js.${Date.now()}@example.com`, password: "Ada likes 2 chat", name: "Ada",
});
const seqs = [];
const app = {
  token: tokens.access_token, places: {}, show() {}, fetch() {},
  apply(event) { seqs.push(event.seq); },
  async refresh() {
    tokens = await post("/auth/refresh", { refresh_token: tokens.refresh_token });
    app.token = tokens.access_token;
  },
};
const socket = follow(url, app);
const { id } = await call(socket, "conversation.create", { kind: "group", client_id: "g" });
for (let n = 0; n < 40; n++) {
  await call(socket, "message.send", { conversation: id, client_id: `${n}`, body: "x" });
  await new Promise((done) => setTimeout(done, 50));
}
while (seqs.length < 41) await new Promise((done) => setTimeout(done, 20));
console.log(`heard ${seqs}`);
socket.disconnect();
"""

PYTHON = """
import os, time, aiohttp

async def main():
    url = os.environ["PARLEY_URL"]
    me = {"email": f"py.{time.time_ns()}@example.com", "password": "Ada likes 2 chat", "name": "Ada"}
    async with aiohttp.request("POST", f"{url}/api/v1/auth/register", json=me) as answer:
        tokens = await answer.json()
    seqs = []

    class App:
        token = tokens["access_token"]
        places = {}

        def apply(self, event):
            seqs.append(event["seq"])

        def show(self, name, event):
            pass

        async def fetch(self, stream):
            pass

    app = App()
    client = follow(app)
    await client.connect(
        url, namespaces=[NS], auth=lambda: {"token": app.token, "resume": app.places}
    )
    group = await call(client, "conversation.create", {"kind": "group", "client_id": "g"})
    for n in range(40):
        request = {"conversation": group["id"], "client_id": str(n), "body": "x"}
        await call(client, "message.send", request)
        await asyncio.sleep(0.05)
    while len(seqs) < 41:
        await asyncio.sleep(0.02)
    print("heard", ",".join(map(str, seqs)))
    await client.disconnect()

asyncio.run(main())
"""


def example(name: str) -> str:
    """The code block that follows `<!-- name -->`."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", CLIENTS, re.DOTALL)
    assert found, f"docs/clients.md has no {name}"
    return found[1]


async def sent(api: Api) -> float:
    """Messages that the server has taken since it started."""
    text = (await api.request("GET", "//metrics")).body.decode()
    found = re.search(r'parley_commands_total{command="message.send",outcome="ok"} (\S+)', text)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("language", ["javascript", "python"])
async def test_the_documented_client_hears_everything_once(
    fresh_server: ServerProcess, tmp_path: Path, language: str
) -> None:
    environment = {"PARLEY_URL": fresh_server.url}
    if language == "javascript":
        source = example("parley.mjs") + JAVASCRIPT
        running = run_to_end(
            node(), "--input-type=module", "-", source=source, environment=environment
        )
    else:
        source = example("parley.py") + PYTHON
        running = run_to_end(
            sys.executable, "-", source=source, environment=environment, cwd=tmp_path
        )
    client = asyncio.create_task(running)
    async with Api(fresh_server.url) as api:
        while not client.done() and await sent(api) < 5:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(fresh_server.restart, kill=True)
    output = await client
    assert f"heard {','.join(map(str, range(1, 42)))}" in output
