"""Nodes of a real cluster are killed under load: what was acknowledged is there, once, in order, and
every client is whole soon.
"""

import asyncio
import random
from pathlib import Path

import pytest

from tests.chaos.load import Load
from tests.chaos.nodes import nodes_on
from tests.conftest import StartServer
from tests.support.mongod import scratch
from tests.support.rest import Api
from tests.support.server import ServerProcess

NODES = 3
WHOLE_SECONDS = 10.0
"""From the crash until every client, wherever it was connected, is connected to a living node and
was sent all that was stored when the node was dead."""

ACKS_BETWEEN = 40
"""Acknowledged commands between two crashes, at least."""


async def _crash(node: ServerProcess, living: ServerProcess, load: Load) -> float:
    """Kill a node, and start it again when its clients have gone elsewhere.

    Returns:
        Seconds until every client was whole.
    """
    began = asyncio.get_running_loop().time()
    lost = [guest for guest in load.guests if guest.url == node.url and guest.connected]
    await asyncio.to_thread(node.kill)
    async with Api(living.url, load.people[0].token) as api:
        heads = await load.heads_now(api)
    await load.until(
        lambda: all(guest.came[-1] > began for guest in lost) and load.all_reached(heads),
        timeout=60,
        what="level of all",
    )
    took = asyncio.get_running_loop().time() - began
    returns = sorted(guest.came[-1] - began for guest in load.guests if guest.came[-1] > began)
    print(
        f"{len(returns)} clients lost their node; half of them connected after "
        f"{returns[len(returns) // 2]:.2f} s, nine in ten after {returns[len(returns) * 9 // 10]:.2f} s,"
        f" all after {returns[-1]:.2f} s; whole after {took:.2f} s",
        flush=True,
    )
    await asyncio.to_thread(node.start, 60)
    return took


def _clients(load: Load, node: ServerProcess) -> int:
    return sum(guest.url == node.url and guest.connected for guest in load.guests)


@pytest.mark.timeout(1800)
async def test_nodes_are_killed_one_after_the_other(
    mongodb: str, start_server: StartServer, tmp_path: Path, full: bool
) -> None:
    if full:  # 30 writers, a command a second each
        crashes, senders, listeners, rooms, writers, pause = 20, 30, 270, 30, 1, 1.0
    else:
        crashes, senders, listeners, rooms, writers, pause = 3, 3, 6, 2, 2, 0.02
    chance = random.Random(crashes)
    with scratch(mongodb) as database:
        async with nodes_on(database.url, tmp_path, start_server, NODES) as nodes:
            urls = [node.url for node in nodes]
            whole: list[float] = []
            cut = 0
            async with (
                Api(urls[0]) as api,
                Load(
                    api,
                    senders=senders,
                    listeners=listeners,
                    rooms=rooms,
                    writers=writers,
                    urls=urls,
                    apart=full,
                    pause=pause,
                    patience=180,
                ) as load,
            ):
                for _ in range(crashes):
                    await load.progress(ACKS_BETWEEN)
                    await asyncio.sleep(chance.uniform(0, 0.2))
                    killed = chance.choice([node for node in nodes if _clients(load, node)])
                    cut += _clients(load, killed)
                    living = chance.choice([node for node in nodes if node is not killed])
                    whole.append(await _crash(killed, living, load))
                await load.progress(ACKS_BETWEEN)
                await load.finish()
                await load.check()
                print(
                    f"{crashes} crashes of {NODES} nodes, {cut} connections lost; acknowledged but missing 0, twice 0, out "
                    f"of order 0; every client whole after {max(whole):.2f} s at most, "
                    f"{sorted(whole)[crashes // 2]:.2f} s in the median; {load}"
                )
    assert max(whole) < WHOLE_SECONDS
