"""All nodes are restarted one after the other under load: clients move on gently, no send fails for
good.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.crowd import Guest
from tests.chaos.load import Load
from tests.chaos.nodes import nodes_on
from tests.conftest import StartServer
from tests.support.mongod import scratch
from tests.support.rest import Api
from tests.support.server import ServerProcess

SPREAD = 0.25
"""The part of SHUTDOWN_GRACE over which a node spreads the ends of its connections."""

ACKS_BETWEEN = 40


class Move:
    """How a node's clients went elsewhere."""

    def __init__(self, guests: Sequence[Guest]) -> None:
        """`guests`: those that it has, before it is told to stop."""
        self._guests = [(guest, len(guest.left), len(guest.came)) for guest in guests]

    @property
    def done(self) -> bool:
        """Whether all have left and are back."""
        return all(
            len(guest.left) > left and len(guest.came) > came for guest, left, came in self._guests
        )

    def left(self) -> list[float]:
        """When they left, ascending."""
        return sorted(guest.left[count] for guest, count, _ in self._guests)

    def away(self) -> list[float]:
        """How long each was not connected, ascending."""
        return sorted(guest.came[came] - guest.left[left] for guest, left, came in self._guests)

    def came(self) -> list[float]:
        """When they were back, ascending."""
        return sorted(guest.came[count] for guest, _, count in self._guests)


def _span(moments: Sequence[float]) -> float:
    """Seconds in which the middle four fifths of them lie."""
    tenth = len(moments) // 10
    return moments[-1 - tenth] - moments[tenth]


def _most(moments: Sequence[float], seconds: float) -> int:
    """How many of them fall into any such time at most."""
    return max(sum(first <= each < first + seconds for each in moments) for first in moments)


async def _restart(node: ServerProcess, load: Load, grace: float) -> tuple[Move, float]:
    """Restart one node as an operator does; how its clients went, and how long it took to end."""
    move = Move([guest for guest in load.guests if guest.url == node.url])
    told = time.monotonic()
    assert await asyncio.to_thread(node.stop, grace + 20) == 0
    ended = time.monotonic() - told
    await load.until(lambda: move.done, timeout=30, what="return of all to other nodes")
    await asyncio.to_thread(node.start, 60)
    return move, ended


@pytest.mark.timeout(1200)
async def test_all_nodes_are_restarted_one_after_the_other(
    mongodb: str, start_server: StartServer, tmp_path: Path, full: bool
) -> None:
    if full:
        count, grace, senders, listeners, rooms, pause = 3, 20.0, 30, 270, 30, 1.0
    else:
        count, grace, senders, listeners, rooms, pause = 2, 5.0, 4, 16, 2, 0.1
    with scratch(mongodb) as database:
        async with (
            nodes_on(
                database.url, tmp_path, start_server, count, SHUTDOWN_GRACE=f"{grace:g}s"
            ) as nodes,
            Api(nodes[0].url) as api,
            Load(
                api,
                senders=senders,
                listeners=listeners,
                rooms=rooms,
                writers=1,
                urls=[node.url for node in nodes],
                apart=True,
                pause=pause,
                patience=180,
            ) as load,
        ):
            await load.until(
                lambda: all(guest.connected for guest in load.guests),
                timeout=60,
                what="connection of all",
            )
            spread = grace * SPREAD
            for number, node in enumerate(nodes, 1):
                await load.progress(ACKS_BETWEEN)
                move, ended = await _restart(node, load, grace)
                left, came, away = move.left(), move.came(), move.away()
                print(
                    f"\nnode {number} of {count} ended after {ended:.2f} s; {len(left)} clients "
                    f"left over {left[-1] - left[0]:.2f} s, the middle four fifths over "
                    f"{_span(left):.2f} s; {_most(left, spread / 10)} at most in "
                    f"{spread / 10:g} s; back over {came[-1] - came[0]:.2f} s, "
                    f"{_most(came, spread / 10)} at most in {spread / 10:g} s; away for "
                    f"{away[len(away) // 2]:.2f} s in the median, {away[-1]:.2f} s at most",
                    flush=True,
                )
                assert _span(left) > spread / 3, "they were sent away all at once"
            await load.progress(ACKS_BETWEEN)
            await load.finish()
            await load.check()
            told = [guest.main.named("closing") for guest in load.guests]
            assert sum(map(len, told)) == sum(len(guest.left) for guest in load.guests)
            assert all(
                each == {"code": "shutdown", "reconnect": True} for got in told for each in got
            )
            print(
                f"{count} nodes restarted; sends failed for good 0, lost 0, twice 0, out of order "
                f"0; {load}"
            )
