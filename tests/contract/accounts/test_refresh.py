"""Refresh tokens that come twice, over every engine: two tabs and lost answers are no thieves."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from actions.accounts.hashing import PasswordHasher
from domain.errors import Unauthenticated
from store.accounts.sessions import SESSIONS
from tests.support.accounts import AWAY, COLLECTIONS, HOME, AccountsNode, AccountsWorld
from tests.support.local import TurnedClock
from tests.support.stores import Stores

GRACE = 30.0


@pytest.fixture
async def world(stores: Stores) -> AsyncIterator[AccountsWorld]:
    hasher = PasswordHasher(4)
    yield AccountsWorld(await stores.start(COLLECTIONS), TurnedClock(), hasher)
    hasher.close()


@pytest.fixture
async def node(world: AccountsWorld) -> AccountsNode:
    return await world.node()


async def caught(node: AccountsNode, refresh_token: str) -> None:
    """The whole family dies, and the log tells."""
    with capture_logs() as logs, pytest.raises(Unauthenticated):
        await node.sessions.refresh(refresh_token, AWAY)
    assert [each["event"] for each in logs] == ["refresh_token_reused"]


async def test_two_tabs_that_race_stay_logged_in(world: AccountsWorld, full: bool) -> None:
    nodes = [await world.node() for _ in range(2)]
    tokens = await nodes[0].register()
    for _ in range(1000 if full else 50):
        pairs = await asyncio.gather(
            *(each.sessions.refresh(tokens["refresh_token"], HOME) for each in nodes)
        )
        assert pairs[0]["refresh_token"] == pairs[1]["refresh_token"] != tokens["refresh_token"]
        for node, pair in zip(nodes, pairs, strict=True):
            await node.principal(pair)
        tokens = pairs[1]
        await world.turn(900)


async def test_a_thief_who_comes_31_seconds_later_ends_the_session(
    node: AccountsNode, world: AccountsWorld
) -> None:
    first = await node.register()
    second = await node.sessions.refresh(first["refresh_token"], HOME)
    await node.principal(second)
    await world.turn(GRACE)
    again = await node.sessions.refresh(first["refresh_token"], HOME)
    assert again["refresh_token"] == second["refresh_token"]
    await world.turn(1)
    await caught(node, first["refresh_token"])
    for tokens in (first, second, again):
        with pytest.raises(Unauthenticated):
            await node.principal(tokens)
        with pytest.raises(Unauthenticated):
            await node.sessions.refresh(tokens["refresh_token"], HOME)


async def test_an_answer_that_was_lost_is_given_again_however_late(
    node: AccountsNode, world: AccountsWorld
) -> None:
    first = await node.register()
    lost = await node.sessions.refresh(first["refresh_token"], HOME)
    await world.turn(86400)
    found = await node.sessions.refresh(first["refresh_token"], HOME)
    assert found["refresh_token"] == lost["refresh_token"]
    await node.principal(found)
    await node.sessions.refresh(found["refresh_token"], HOME)
    await caught(node, first["refresh_token"])


async def test_the_successor_of_a_token_is_in_no_record(
    node: AccountsNode, world: AccountsWorld
) -> None:
    first = await node.register()
    second = await node.sessions.refresh(first["refresh_token"], HOME)
    kept = str(await world.engine.find("default", SESSIONS, {}))
    for tokens in (first, second):
        assert tokens["refresh_token"] not in kept
        assert tokens["access_token"] not in kept
