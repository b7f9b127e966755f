"""MongoDB dies under load and comes back: senders are told, nothing acknowledged is lost, and what
is sent again is there once.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos.load import Load
from tests.chaos.nodes import nodes_on
from tests.conftest import StartServer
from tests.support.mongod import Mongod
from tests.support.outages import check_no_error
from tests.support.rest import Api
from tests.support.server import ServerProcess

STORE_TIMEOUT = 2.0

ANSWER_SECONDS = 2 * STORE_TIMEOUT + 4
"""Within which a command is answered `unavailable`, from the store's end or from when it was sent: it
may wait for the store once before it is in the log and once after; the rest is what a busy machine
takes."""

UNREADY_SECONDS = 10.0
"""From the store's end until a node says that it is not ready."""

BACK_SECONDS = 15.0
"""From the store's return until every node is ready and acknowledges commands again."""

ACKS = 40


class Watch:
    """Looks at a node's readiness all the time."""

    def __init__(self, node: ServerProcess) -> None:
        self._node = node
        self._ready = True
        self._looking = asyncio.create_task(self._look())
        self.failures = 0
        """Answers that it is not ready because of the store."""
        self.blind = False
        """Whether it said last that it cannot know whose access was revoked."""

    @property
    def ready(self) -> bool:
        """What it said last.

        Raises:
            Exception: it could not be asked, or said something else.
        """
        if self._looking.done():
            self._looking.result()
        return self._ready

    async def _look(self) -> None:
        async with Api(self._node.url) as api:
            while True:
                reply = await api.request("GET", "//health/ready")
                self._ready = reply.status == 200
                self.blind = reply.json["checks"]["access"] != "ok"
                if not self._ready:
                    assert reply.status == 503
                    self.failures += reply.json["checks"]["store"] != "ok"
                await asyncio.sleep(0.1)

    async def end(self) -> None:
        """Look no more.

        Raises:
            Exception: as `ready`.
        """
        self._looking.cancel()
        await asyncio.wait([self._looking])
        if not self._looking.cancelled():
            self._looking.result()


@asynccontextmanager
async def watched(nodes: Sequence[ServerProcess]) -> AsyncIterator[list[Watch]]:
    """All nodes are looked at during the block."""
    watches = [Watch(node) for node in nodes]
    try:
        yield watches
    finally:
        for watch in watches:
            await watch.end()


def acknowledged(load: Load) -> Counter[str]:
    """How many commands each node has acknowledged, of those that have senders."""
    counts: Counter[str] = Counter()
    for guest in load.guests[: load.senders]:
        counts[guest.url] += guest.acknowledged
    return counts


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("mongodb")  # says whether there can be one
async def test_the_store_dies_and_comes_back(
    start_server: StartServer, tmp_path: Path, full: bool
) -> None:
    outage, count, senders, listeners, rooms = (20, 3, 12, 48, 6) if full else (6, 2, 3, 3, 2)
    mongod = Mongod(tmp_path / "mongod")
    with mongod:
        async with (
            nodes_on(
                f"{mongod.url}/parley",
                tmp_path,
                start_server,
                count,
                STORE_TIMEOUT=f"{STORE_TIMEOUT:g}s",
            ) as nodes,
            Api(nodes[0].url) as api,
            Load(
                api,
                senders=senders,
                listeners=listeners,
                rooms=rooms,
                writers=2,
                urls=[node.url for node in nodes],
                apart=full,
                pause=0.2 if full else 0.02,
                patience=120,
            ) as load,
            watched(nodes) as watches,
        ):
            await load.until(
                lambda: all(guest.connected for guest in load.guests),
                timeout=60,
                what="connection of all",
            )
            await load.progress(ACKS)
            dies = time.monotonic()
            await asyncio.to_thread(mongod.kill)
            connections = sum(guest.connections for guest in load.guests)
            before = load.ledger.total
            await load.until(
                lambda: not any(each.ready for each in watches),
                timeout=UNREADY_SECONDS,
                what="node that is not ready",
            )
            unready = time.monotonic() - dies
            await load.until(
                lambda: time.monotonic() - dies >= outage, timeout=outage + 5, what="return"
            )
            meanwhile = load.ledger.total - before
            refused = sum(guest.unavailable for guest in load.guests)
            assert not any(each.ready for each in watches)
            assert all(each.blind for each in watches) or not full, "it was long enough for that"
            back = time.monotonic()
            await asyncio.to_thread(mongod.start)
            known = acknowledged(load)
            await load.until(
                lambda: (
                    all(each.ready for each in watches)
                    and all(now > known[node] for node, now in acknowledged(load).items())
                ),
                timeout=BACK_SECONDS,
                what="service",
            )
            served = time.monotonic() - back
            for node in nodes:  # who is ready lets people in
                async with Api(node.url, load.people[0].token) as asking:
                    await load.heads_now(asking)
            await load.progress(ACKS)
            await load.finish()
            await load.check()
            slowest = max(
                answered - max(asked, dies)
                for guest in load.guests
                for asked, answered in guest.refused
            )
            told = sum(guest.unavailable for guest in load.guests)
            lost = sum(guest.connections for guest in load.guests) - connections
            print(
                f"\nMongoDB away for {outage} s, {count} nodes: not ready after {unready:.2f} s "
                f"({min(each.failures for each in watches)} or more answers each); {refused} "
                f"commands told `unavailable` while it was away, {told} in all, after "
                f"{slowest:.2f} s at most; {meanwhile} acknowledged after its end, 0 lost, 0 "
                f"twice; {lost} connections lost; every node ready and acknowledging {served:.2f} s "
                f"after its start; {load}"
            )
            assert refused >= senders
            assert slowest < ANSWER_SECONDS
            assert lost == 0
        for node in nodes:
            check_no_error(node.log())
