"""`python -m bench appends`: how many appends a store takes when many want the same stream, and
when many want many.

Against the engine itself, as one node uses it: MongoDB (the one that `TEST_MONGODB_URL` names, or the
stand-in of the tests), as it is and with 3 ms added to each of its answers, and SQLite.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from bench.peers import ROOT
from domain.clock import SystemClock
from domain.events import Actor
from store.engine import Append, Collection, Engine, Guard, Index, Insert, Key, NewEvent
from store.mongo import MongoEngine
from store.sqlite import SqliteEngine
from tests.support.mongod import Mongod

NOTES = Collection("notes", indexes=(Index(("room", "seq")),), text="body")
ROOMS = Collection("rooms")
MEMBERS = Collection("members")
COLLECTIONS = (NOTES, ROOMS, MEMBERS)
ORG = "acme"
BODY = "What has to be said, and is about as long as what people say to each other in a chat."
DELAY = 3.0
"""Milliseconds."""

SCENES = (
    ("a lone sender", 1, 1),
    ("one stream, 100 senders", 1, 100),
    ("200 streams, 200 senders", 200, 200),
)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench appends", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each is measured")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured")
    return parser.parse_args(argv)


@contextlib.contextmanager
def delayed(url: str, milliseconds: float) -> Iterator[str]:
    """The same server, with each answer so much later."""
    address = url.removeprefix("mongodb://").partition("/")[0].rpartition("@")[2]
    port = address.partition(":")[2] or "27017"
    proxy = subprocess.Popen(
        [sys.executable, "-m", "bench.delay", port, str(milliseconds)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert proxy.stdout is not None
        yield url.replace(address, f"127.0.0.1:{int(proxy.stdout.readline())}")
    finally:
        assert proxy.stdin is not None
        proxy.stdin.close()
        proxy.wait(10)


async def send(engine: Engine, stream: str, sender: str, number: int) -> None:
    """What `message.send` asks of the store: an event, a new document, two guards, a key."""
    id = f"{stream}.{sender}.{number}"
    doc = {"id": id, "room": stream, "seq": None, "body": BODY, "sender": sender}
    await engine.append(
        Append(
            ORG,
            stream,
            Actor(sender),
            "2026-01-01T00:00:00.000Z",
            (NewEvent("message.created", doc, "seq"),),
            (Insert(NOTES, doc, "seq"),),
            (Guard(ROOMS, stream, {"open": True}), Guard(MEMBERS, f"{stream}.{sender}")),
            Key(f"{number}", "digest"),
        )
    )


async def measure(
    engine: Engine, streams: int, senders: int, seconds: float
) -> tuple[float, list[float]]:
    """Appends per second, and the seconds each took, sorted."""
    took: list[float] = []
    start = time.monotonic()
    tag = f"{start:.6f}"
    names = [f"messages/{tag}-{n}" for n in range(streams)]
    everyone = [(names[n % streams], f"s{n}") for n in range(senders)]
    for name in names:
        await engine.insert(ORG, ROOMS, {"id": name, "open": True})
    await asyncio.gather(
        *(
            engine.insert(ORG, MEMBERS, {"id": f"{stream}.{sender}", "read": 0})
            for stream, sender in everyone
        )
    )
    for name in names:
        await engine.append(
            Append(ORG, name, Actor("s"), "2026-01-01T00:00:00.000Z", (NewEvent("made", {}),))
        )
    start = time.monotonic()
    end = start + seconds

    async def sender(stream: str, name: str) -> None:
        number = 0
        while (began := time.monotonic()) < end:
            number += 1
            await send(engine, stream, name, number)
            took.append(time.monotonic() - began)

    await asyncio.gather(*(sender(stream, name) for stream, name in everyone))
    return len(took) / (time.monotonic() - start), sorted(took)


async def _measured(engine: Engine, name: str, options: argparse.Namespace) -> None:
    await engine.start()
    try:
        for scene, streams, senders in SCENES:
            for _ in range(options.rounds):
                cpu = time.process_time()
                rate, took = await measure(engine, streams, senders, options.seconds)
                cpu = (time.process_time() - cpu) / len(took)
                half, most = took[len(took) // 2], took[len(took) * 99 // 100]
                sys.stdout.write(
                    f"| {name} | {scene} | {rate:,.0f} | {half * 1e3:.1f} | {most * 1e3:.1f} "
                    f"| {cpu * 1e6:.0f} |\n"
                )
                sys.stdout.flush()
    finally:
        await engine.stop()


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    sys.stdout.write(
        "| store | | appends/s | p50 ms | p99 ms | node's CPU, µs each |\n|---|---|---|---|---|---|\n"
    )
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        engine = SqliteEngine(Path(scratch) / "bench.db", COLLECTIONS, clock=clock)
        uvloop.run(_measured(engine, "SQLite", options))
        url = os.environ.get("TEST_MONGODB_URL")
        if url is None:
            url = stack.enter_context(Mongod(Path(scratch) / "mongod")).url
        database = f"/bench{os.getpid()}"
        uvloop.run(
            _measured(MongoEngine(url + database, COLLECTIONS, clock=clock), "MongoDB", options)
        )
        with delayed(url, DELAY) as late:
            engine_late = MongoEngine(late + database, COLLECTIONS, clock=clock)
            uvloop.run(_measured(engine_late, f"MongoDB + {DELAY:.0f} ms", options))
