"""Orders to the nodes of one user: who hears them, and what becomes of those that are lost."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from fanout import user_control
from fanout.bus import LocalBus
from fanout.control import CHANNEL
from fanout.user_control import UserControl
from tests.support.bus import LossyBus, Wire
from tests.support.counting import until


class Node:
    """A node's orders, and what it did."""

    def __init__(self, wire: Wire) -> None:
        self.bus = LossyBus(wire)
        self.control = UserControl(self.bus)
        self.done: list[tuple[str, int]] = []
        self.missed: list[str] = []
        self.control.on("do", lambda user, order: self.done.append((user, order["what"])))
        self.control.on_missed.append(self.missed.append)

    async def start(self) -> asyncio.Task[None]:
        await self.bus.start(self.control.receive, self.control.joined)
        self.bus.subscribe(CHANNEL)
        return asyncio.create_task(self.control.run())

    def do(self, what: int, *users: str) -> None:
        """Order something."""
        self.control.send(users or ["ann"], "do", what=what)

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Nothing that is said meanwhile arrives."""
        self.bus.lossy = True
        yield
        self.bus.lossy = False


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[Node, Node, Node]]:
    wire = Wire()
    made = Node(wire), Node(wire), Node(wire)
    tasks = [await each.start() for each in made]
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


Nodes = tuple[Node, Node, Node]


async def test_an_order_is_done_here_and_where_the_user_is(nodes: Nodes) -> None:
    here, there, elsewhere = nodes
    there.control.follow("ann")
    elsewhere.control.follow("bob")
    here.do(1, "ann", "cat")
    assert here.done == [("ann", 1), ("cat", 1)]
    assert there.done == [("ann", 1)]
    assert elsewhere.done == []
    there.control.unfollow("ann")
    here.do(2)
    assert there.done == [("ann", 1)]


async def test_what_others_are_told_is_not_done_here(nodes: Nodes) -> None:
    here, there, _ = nodes
    there.control.follow("ann")
    here.control.tell_others("ann", "do", what=1)
    assert (here.done, there.done) == ([], [("ann", 1)])
    with here.unheard():
        here.control.tell_others("ann", "do", what=2)
    here.control.tell_others("ann", "do", what=3)
    assert there.missed == ["ann"]


async def test_orders_that_come_twice_are_done_once(nodes: Nodes) -> None:
    here, there, _ = nodes
    there.control.follow("ann")
    told: list[bytes] = []

    def note(_channel: str, message: bytes) -> bool:
        told.append(message)
        return False

    here.bus.loses = note
    for what in (1, 2):
        here.do(what)
    for message in told * 2:
        there.control.receive("user:ann", message)
    assert there.done == [("ann", 1), ("ann", 2)]
    assert there.missed == []


async def test_a_lost_order_is_noticed_with_the_next_one(nodes: Nodes) -> None:
    here, there, _ = nodes
    for user in ("ann", "bob"):
        there.control.follow(user)
    here.do(1)
    with here.unheard():
        here.do(2)
    here.do(3)
    here.do(4, "bob")
    assert there.done == [("ann", 1), ("ann", 3), ("bob", 4)]
    assert there.missed == ["ann"]


async def test_a_lost_last_order_is_noticed_in_two_seconds(nodes: Nodes) -> None:
    here, there, _ = nodes
    there.control.follow("ann")
    with here.unheard():
        here.do(1)
    async with asyncio.timeout(2):
        await until(lambda: there.missed == ["ann"])


async def test_it_is_said_twice_in_case_that_is_lost_too(nodes: Nodes) -> None:
    here, there, _ = nodes
    there.control.follow("ann")
    lost: list[bytes] = []

    def first_two(_channel: str, message: bytes) -> bool:
        lost.append(message)
        return len(lost) <= 2

    here.bus.loses = first_two
    here.do(1)
    async with asyncio.timeout(6):
        await until(lambda: there.missed == ["ann"])


async def test_however_many_there_are_the_last_order_to_each_is_said_once_more(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_control, "REMEMBERED", 2)
    here, there, _ = nodes
    there.control.follow("ann")
    with here.unheard():
        here.do(1)
    for number in range(5):
        here.do(number, f"u{number}")
    async with asyncio.timeout(2):
        await until(lambda: there.missed == ["ann"])


async def test_the_orders_of_a_node_that_died_may_have_been_missed(nodes: Nodes) -> None:
    _, there, _ = nodes
    for user in ("ann", "bob"):
        there.control.follow(user)
    there.control.all_may_have_missed()
    assert there.missed == ["ann", "bob"]


async def test_after_an_interruption_orders_may_have_been_missed(nodes: Nodes) -> None:
    _, there, _ = nodes
    there.control.follow("ann")
    assert there.missed == []
    there.bus.rejoin()
    assert there.missed == ["ann"]


async def test_who_comes_while_nothing_is_heard_may_have_missed_something(nodes: Nodes) -> None:
    _, there, _ = nodes
    there.bus._wire.cut = True
    there.control.follow("ann")
    assert not there.control.hears("ann")
    async with asyncio.timeout(1):
        await there.control.heard("ann")
    there.bus._wire.cut = False
    there.bus.rejoin()
    assert there.missed == ["ann"]
    assert there.control.hears("ann")


async def test_who_comes_waits_until_orders_are_heard(nodes: Nodes) -> None:
    _, there, _ = nodes
    there.bus.slow = True
    there.control.follow("ann")
    coming = asyncio.ensure_future(there.control.heard("ann"))
    await asyncio.sleep(0)
    assert not coming.done()
    there.bus.rejoin()
    await coming
    assert there.missed == []


async def test_what_is_not_understood_is_refused(nodes: Nodes) -> None:
    _, there, _ = nodes
    there.control.follow("ann")
    for message in (b"", b"[1]", b'{"number":1}', b'{"topic":"do"}'):
        with pytest.raises(ValueError, match=r"."):
            there.control.receive("user:ann", message)


async def test_a_single_node_hears_everything() -> None:
    control = UserControl(LocalBus())
    done: list[str] = []
    control.on("do", lambda user, _order: done.append(user))
    control.follow("ann")
    await control.heard("ann")
    assert control.hears("bob")
    control.send(["ann"], "do")
    assert done == ["ann"]
    with pytest.raises(ValueError, match="declared twice"):
        control.on("do", lambda _user, _order: None)
