"""`python -m bench lists`: how quick lists, search and `/sync` are in a store that has grown.

Fills SQLite directly, then asks a real server over HTTP.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from bench.peers import LOGS, ROOT, scratch
from bench.process import BenchError
from deploy.local.ports import free_port
from domain.ids import new_id
from domain.messaging.conversations import stream_of
from server.features import COLLECTIONS
from store.engine import Collection, Document
from store.messaging.conversations import CONVERSATIONS, MEMBERS
from store.messaging.messages import MESSAGES
from store.messaging.receipts import POSITIONS
from store.sqlite.tables import Table, tables

PEER = "0-peer"
AT = "2026-01-01T00:00:00.000Z"
PASSWORD = "Analytical-Engine-1"
EMAIL = "lists@example.com"
START_LIMIT = 120.0


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench lists", description=__doc__)
    add = parser.add_argument
    add("--messages", type=int, default=1_000_000, help="all together")
    add("--conversations", type=int, default=2_000, help="all of them one user's")
    add("--unread", type=int, default=800_000, help="messages the user has not read")
    add("--rounds", type=int, default=100, help="how often each question is asked")
    add("--keep", type=Path, help="a directory for the store, used again if it is filled")
    return parser.parse_args(argv)


class Server:
    """Parley on a directory of its own."""

    def __init__(self, data: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        LOGS.mkdir(parents=True, exist_ok=True)
        environment = {name: each for name, each in os.environ.items() if "PARLEY" not in name}
        environment |= {
            "PARLEY_PORT": str(port),
            "PARLEY_DATA_DIR": str(data),
            "PARLEY_STORE_URL": f"sqlite:///{data / 'parley.db'}",
            "PARLEY_RATE_LIMITS": "off",
        }
        with (LOGS / "lists.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self.token = ""

    def __enter__(self) -> "Server":
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end:
            try:
                self.ask("GET", "/health/ready")
            except (OSError, BenchError):
                time.sleep(0.1)
            else:
                return self
        self.__exit__()
        raise BenchError("the server does not start, see the log")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer of one request."""
        request = urllib.request.Request(
            self.url + path, method=method, data=orjson.dumps(body) if body is not None else None
        )
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise BenchError(f"{method} {path}: {error.read().decode()[:300]}") from error


def fill(path: Path, org: str, user: str, options: argparse.Namespace) -> None:
    """Write conversations and messages past the server, which is stopped."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    made = tables(COLLECTIONS)
    conversations = [new_id() for _ in range(options.conversations)]
    each = options.messages // options.conversations
    read = each - options.unread // options.conversations
    db.execute("BEGIN")
    ids: dict[str, int] = {}
    for conversation in conversations:
        cursor = db.execute(
            "INSERT INTO streams (org, name, epoch, trimmed) VALUES (?, ?, ?, ?)",
            (org, stream_of(conversation), new_id(), each),
        )
        ids[conversation] = int(cursor.lastrowid or 0)
    db.executemany(
        "INSERT INTO events VALUES (?, ?, 'message.created', ?, ?, 'user', '{}')",
        [(stream, each + 1, AT, PEER) for stream in ids.values()],
    )

    def put(collection: Collection, docs: Iterator[tuple[Document, int | None]]) -> None:
        _insert(db, made[collection.name], org, docs)

    put(CONVERSATIONS, ((_conversation(id, user), ids[id]) for id in conversations))
    members = ((id, who) for id in conversations for who in (user, PEER))
    put(MEMBERS, ((_member(id, who), ids[id]) for id, who in members))
    put(POSITIONS, ((_position(id, user, read + 1), None) for id in conversations))
    chance = random.Random(1)
    words = [f"word{number}" for number in range(20_000)]

    def messages() -> Iterator[tuple[Document, int | None]]:
        for number in range(each):
            for id in conversations:
                body = " ".join(["common", *chance.choices(words, k=8)])
                yield _message(id, number + 2, body), ids[id]

    put(MESSAGES, messages())
    db.execute("COMMIT")
    db.close()


def _insert(
    db: sqlite3.Connection, table: Table, org: str, docs: Iterator[tuple[Document, int | None]]
) -> None:
    names = ", ".join(["_org", "id", *(f'"{each}"' for each in table.columns), "_stream", "_doc"])
    marks = ", ".join("?" * (4 + len(table.columns)))
    db.executemany(
        f"INSERT INTO {table.name} ({names}) VALUES ({marks})",
        (
            [org, doc["id"], *table.values(doc), stream, orjson.dumps(doc).decode()]
            for doc, stream in docs
        ),
    )


def _conversation(id: str, owner: str) -> Document:
    return {
        "id": id,
        "kind": "group",
        "title": f"Conversation {id}",
        "topic": "",
        "created_at": AT,
        "created_by": owner,
        "owner": owner,
        "size": 2,
    }


def _member(id: str, user: str) -> Document:
    return {
        "id": f"{id}:{user}",
        "conversation": id,
        "user": user,
        "role": "member",
        "joined_at": AT,
        "joined_seq": 1,
    }


def _position(id: str, user: str, seq: int) -> Document:
    return {
        "id": f"{id}:{user}",
        "conversation": id,
        "user": user,
        "delivered_seq": seq,
        "delivered_at": AT,
        "read_seq": seq,
        "read_at": AT,
    }


def _message(conversation: str, seq: int, body: str) -> Document:
    return {
        "id": new_id(),
        "conversation": conversation,
        "seq": seq,
        "sender": PEER,
        "body": body,
        "attachments": [],
        "reply_to": None,
        "thread": None,
        "mentions": [],
        "created_at": AT,
        "edited_at": None,
        "deleted_at": None,
        "version": 1,
        "pinned_at": None,
        "pinned_by": None,
    }


def measure(name: str, rounds: int, ask: Callable[[], object]) -> None:
    """Print how long a question takes, in milliseconds."""
    begin = time.perf_counter()
    ask()
    first = time.perf_counter() - begin
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        ask()
        times.append(time.perf_counter() - begin)
    times.sort()
    at = [times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99)]
    print(
        f"{name:44} first {first * 1000:9.1f}  p50 {at[0] * 1000:8.1f}  p99 {at[1] * 1000:8.1f}",
        flush=True,
    )


def run(options: argparse.Namespace) -> None:
    """Fill, start, ask, print.

    Raises:
        BenchError: the server does not start or refuses.
    """
    with scratch() as directory:
        _run(options.keep or directory, options)


def _run(data: Path, options: argparse.Namespace) -> None:
    filled = data / "filled"
    if not filled.exists():
        data.mkdir(parents=True, exist_ok=True)
        with Server(data) as server:
            body = {"email": EMAIL, "password": PASSWORD, "name": "Lists"}
            who = server.ask("POST", "/api/v1/auth/register", body)["user"]
        begin = time.perf_counter()
        fill(data / "parley.db", who.get("org", "default"), who["id"], options)
        filled.touch()
        print(f"filled in {time.perf_counter() - begin:.0f} s", flush=True)
    with Server(data) as server:
        body = {"email": EMAIL, "password": PASSWORD}
        server.token = server.ask("POST", "/api/v1/auth/login", body)["access_token"]
        _ask_all(server, options.rounds)


def _ask_all(server: Server, rounds: int) -> None:
    listed: list[str] = []

    def page() -> None:
        listed[:] = [each["id"] for each in server.ask("GET", "/api/v1/conversations")["items"]]

    def whole() -> None:
        cursor, listed[:] = "", []
        while True:
            found = server.ask("GET", f"/api/v1/conversations?limit=200{cursor}")
            listed.extend(each["id"] for each in found["items"])
            if found["next"] is None:
                return
            cursor = f"&cursor={found['next']}"

    measure("conversation list, a page of 50", rounds, page)
    measure("conversation list, all", max(1, rounds // 20), whole)
    few = max(1, rounds // 4)
    search = "/api/v1/search/messages?q="
    measure("search, a word in every message", few, lambda: server.ask("GET", search + "common"))
    measure("search, in two of five messages", few, lambda: server.ask("GET", search + "word17"))
    measure("search, a rare word", few, lambda: server.ask("GET", search + "word7777"))
    one = f"&conversation={listed[0]}"
    measure("search, in one conversation", few, lambda: server.ask("GET", search + "common" + one))
    place = {"epoch": "none", "seq": 1}
    body = {"streams": {f"messages/{each}": place for each in listed[:2000]}}
    found = server.ask("POST", "/api/v1/sync", body)["streams"]
    body = {
        "streams": {
            name: {"epoch": each["epoch"], "seq": each["seq"]} for name, each in found.items()
        }
    }
    measure("/sync of all streams", few, lambda: server.ask("POST", "/api/v1/sync", body))
