"""What an append costs: CPU per append, appends per second, waiting time.

    python -m bench.engine [--callers 1 100] [--seconds 5] [--synchronous FULL]

An append is a sent message: two guards, one event, one idempotency key, one stored message with
search, in 100 conversations of 10. Pin it to a core (`taskset -c 0`) to have callers and writer
compete as they do in a busy server.
"""

import argparse
import asyncio
import gc
import itertools
import os
import random
import resource
import tempfile
import time
from pathlib import Path

import uvloop

from domain.clock import SystemClock, timestamp
from domain.events import Actor
from domain.ids import key_digest, new_id
from store.engine import Append, Guard, Insert, Key, NewEvent
from store.messaging.conversations import CONVERSATIONS, MEMBERS
from store.messaging.messages import MESSAGES
from store.sqlite import SqliteEngine

ROOMS = 100
ROOM_SIZE = 10


def cpu() -> float:
    """Seconds of processor time that this process has used, kernel included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def fill(engine: SqliteEngine) -> list[tuple[str, str]]:
    """Make the conversations; returns (conversation, user) of every member."""
    members = []
    for _ in range(ROOMS):
        room = new_id()
        changes = [Insert(CONVERSATIONS, {"id": room, "kind": "group", "title": "A room"})]
        for _ in range(ROOM_SIZE):
            user = new_id()
            members.append((room, user))
            doc = {"id": f"{room}:{user}", "conversation": room, "user": user, "role": "member"}
            changes.append(Insert(MEMBERS, doc))
        await engine.write("default", changes)
    return members


def sending(room: str, user: str) -> Append:
    """One message as `message.send` stores it."""
    at = timestamp(time.time())
    message = {
        "id": new_id(),
        "conversation": room,
        "seq": 0,
        "sender": user,
        "body": " ".join(random.choices(WORDS, k=18)),
        "attachments": [],
        "reply_to": None,
        "thread": None,
        "mentions": [],
        "created_at": at,
        "edited_at": None,
        "deleted_at": None,
        "version": 1,
    }
    return Append(
        "default",
        f"messages/{room}",
        Actor(user),
        at,
        [NewEvent("message.created", message, stamp="seq")],
        [Insert(MESSAGES, message, stamp="seq")],
        [Guard(CONVERSATIONS, room), Guard(MEMBERS, f"{room}:{user}")],
        Key(str(message["id"])[:18], key_digest(str(message["body"]))),
    )


WORDS = [f"word{n}" for n in range(5000)]


async def measure(engine: SqliteEngine, callers: int, seconds: float) -> str:
    """Let so many callers append, each waiting for its own before the next."""
    members = await fill(engine)
    waits: list[float] = []
    end = time.monotonic() + seconds
    turn = itertools.cycle(random.sample(members, len(members)))

    async def caller() -> None:
        while (now := time.monotonic()) < end:
            await engine.append(sending(*next(turn)))
            waits.append(time.monotonic() - now)

    gc.collect()
    start, used = time.monotonic(), cpu()
    await asyncio.gather(*(caller() for _ in range(callers)))
    took, used = time.monotonic() - start, cpu() - used
    made = time.monotonic()
    for _ in range(2000):
        sending(*next(turn))
    making = (time.monotonic() - made) / 2000
    waits.sort()
    count = len(waits)
    return (
        f"{callers:4} callers: {count / took:7,.0f} appends/s, "
        f"{used / count * 1e6 - making * 1e6:5.0f} us CPU each, "
        f"waiting p50 {waits[count // 2] * 1e3:.2f} ms, p99 {waits[count * 99 // 100] * 1e3:.2f} ms, "
        f"max {waits[-1] * 1e3:.1f} ms"
    )


class Batches:
    """How many operations the commits carried."""

    def __init__(self) -> None:
        self.commits = 0
        self.operations = 0

    def append(self, seconds: float) -> None:
        """One append."""

    def batch(self, size: int) -> None:
        """One commit."""
        self.commits += 1
        self.operations += size


async def main() -> None:
    """Measure as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--synchronous", default="FULL")
    parser.add_argument("--dir", type=Path, default=None)
    asked = parser.parse_args()
    for callers in asked.callers:
        with tempfile.TemporaryDirectory(dir=asked.dir) as directory:
            batches = Batches()
            engine = SqliteEngine(
                Path(directory) / "bench.db",
                [CONVERSATIONS, MEMBERS, MESSAGES],
                clock=SystemClock(),
                synchronous=asked.synchronous,
                observer=batches,
            )
            await engine.start()
            line = await measure(engine, callers, asked.seconds)
            await engine.stop()
            size = batches.operations / max(batches.commits, 1)
            print(f"{line}, {size:.1f} per commit", flush=True)


if __name__ == "__main__":
    print(f"cores: {sorted(os.sched_getaffinity(0))}")
    uvloop.run(main())
