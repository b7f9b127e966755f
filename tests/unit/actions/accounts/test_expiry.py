"""Connections hear of their token's end, and are closed when it comes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from actions.connections.clients import Client
from domain.accounts.accounts import Expiry
from domain.clock import timestamp
from domain.principals import Principal, Role
from tests.support.accounts import AccountsNode, AccountsWorld, accounts_world
from tests.support.local import LocalOutlet, local_client


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccountsWorld]:
    async with accounts_world(tmp_path) as made:
        yield made


@pytest.fixture
async def node(world: AccountsWorld) -> AccountsNode:
    made = await world.node()
    made.expirations.check()
    return made


def watched(node: AccountsNode, seconds: float) -> tuple[Client, LocalOutlet]:
    """A connection whose token ends in so many seconds."""
    ends = node.clock.now() + seconds
    client, outlet = local_client(Principal("u", "default", Role.MEMBER, "s", ends))
    node.expirations.add(client)
    return client, outlet


def turn(node: AccountsNode, seconds: float) -> None:
    node.clock.turn(seconds)
    node.expirations.check()


def warnings(outlet: LocalOutlet) -> list[Expiry]:
    return [data for name, data in outlet.received if name == "auth.expiring"]


async def test_warned_a_minute_before_then_closed(node: AccountsNode) -> None:
    client, outlet = watched(node, 900)
    turn(node, 839)
    assert warnings(outlet) == []
    turn(node, 1)
    (warning,) = warnings(outlet)
    TypeAdapter(Expiry).validate_python(warning, strict=True)
    assert warning == {
        "expires_in": 60,
        "expires_at": timestamp(client.principal.expires_at),
    }
    turn(node, 59)
    assert outlet.closing is None
    turn(node, 1)
    assert outlet.closing == "token_expired"
    assert len(warnings(outlet)) == 1
    assert node.expirations.watched == 0


async def test_a_token_that_ends_within_the_minute_is_warned_at_once(node: AccountsNode) -> None:
    _, outlet = watched(node, 5.5)
    assert [each["expires_in"] for each in warnings(outlet)] == [6]
    turn(node, 5.4)
    assert outlet.closing is None
    turn(node, 0.6)
    assert outlet.closing == "token_expired"


async def test_checks_that_came_late_are_made_up_for(node: AccountsNode) -> None:
    both = [watched(node, 100), watched(node, 900), watched(node, 5000)]
    turn(node, 950)
    assert [outlet.closing for _, outlet in both] == ["token_expired", "token_expired", None]
    assert warnings(both[2][1]) == []
    turn(node, 5000 - 950 - 30)
    assert [each["expires_in"] for each in warnings(both[2][1])] == [30]


async def test_a_new_token_puts_the_end_off(node: AccountsNode) -> None:
    client, outlet = watched(node, 900)
    turn(node, 850)
    assert len(warnings(outlet)) == 1
    later = Principal("u", "default", Role.MEMBER, "s", node.clock.now() + 900)
    node.expirations.update(client, later)
    turn(node, 100)
    assert outlet.closing is None
    turn(node, 740)
    assert [each["expires_in"] for each in warnings(outlet)] == [50, 60]
    turn(node, 60)
    assert outlet.closing == "token_expired"


async def test_a_transport_is_warned_once_whatever_it_opened(node: AccountsNode) -> None:
    ends = node.clock.now() + 900

    def opened(transport: str, session: str = "s") -> tuple[Client, LocalOutlet]:
        who = Principal("u", "default", Role.MEMBER, session, ends)
        client, outlet = local_client(who, session=transport)
        node.expirations.add(client)
        return client, outlet

    namespaces = [opened("t1") for _ in range(3)]
    other_tab = opened("t2")
    other_login = opened("t1", "s2")
    turn(node, 840)
    namespaces.append(opened("t1"))  # within the minute
    assert [len(warnings(outlet)) for _, outlet in namespaces] == [1, 0, 0, 0]
    assert len(warnings(other_tab[1])) == len(warnings(other_login[1])) == 1

    later = Principal("u", "default", Role.MEMBER, "s", node.clock.now() + 30)
    for client, _ in namespaces:
        node.expirations.update(client, later)
    assert [len(warnings(outlet)) for _, outlet in namespaces] == [2, 0, 0, 0]
    turn(node, 60)
    assert [outlet.closing for _, outlet in namespaces] == ["token_expired"] * 4
    assert node.expirations.watched == 0
    assert not node.expirations._warned


async def test_if_the_one_that_was_told_goes_another_is_told(node: AccountsNode) -> None:
    ends = node.clock.now() + 900
    who = Principal("u", "default", Role.MEMBER, "s", ends)
    first, second, third = (local_client(who, session="t") for _ in range(3))
    for client, _ in (first, second, third):
        node.expirations.add(client)
    turn(node, 850)
    assert [len(warnings(outlet)) for _, outlet in (first, second, third)] == [1, 0, 0]
    node.expirations.remove(third[0])
    node.expirations.remove(first[0])
    assert [each["expires_in"] for each in warnings(second[1])] == [50]
    assert not warnings(third[1]), "it had gone before"
    node.expirations.remove(second[0])
    assert not node.expirations._warned
    assert node.expirations.watched == 0


async def test_who_has_gone_hears_nothing(node: AccountsNode) -> None:
    for seconds in (900, 30):
        client, outlet = watched(node, seconds)
        heard = len(outlet.received)
        node.expirations.remove(client)
        node.expirations.remove(client)
        turn(node, 1000)
        assert outlet.closing is None
        assert len(outlet.received) == heard
    assert node.expirations.watched == 0


async def test_what_has_no_end_is_not_watched(node: AccountsNode) -> None:
    client, outlet = watched(node, float("inf"))
    assert node.expirations.watched == 0
    turn(node, 1e6)
    assert outlet.received == []
    node.expirations.remove(client)


async def test_a_connection_is_watched_from_its_coming_to_its_going(node: AccountsNode) -> None:
    client, _ = await node.connect((await node.register())["access_token"])
    assert node.expirations.watched == 1
    await node.expirations.left(client)
    assert node.expirations.watched == 0
