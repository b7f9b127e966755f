"""An end to guessing passwords, and nobody keeps an owner out."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actions.accounts.guesses import SHUT
from actions.accounts.sessions import Origin
from domain.accounts.accounts import MOST_IN_A_ROW, email_key
from domain.errors import RateLimited, Unauthenticated
from tests.support.accounts import AWAY, HOME, AccountsNode, AccountsWorld, accounts_world

ANN = "ann@example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccountsWorld]:
    async with accounts_world(tmp_path) as made:
        yield made


@pytest.fixture
async def node(world: AccountsWorld) -> AccountsNode:
    return await world.node()


async def guess(node: AccountsNode, times: int, origin: Origin = AWAY, email: str = ANN) -> str:
    message = ""
    for _ in range(times):
        with pytest.raises(Unauthenticated) as refused:
            await node.login(email, "Wrong 2 word guess", origin)
        message = refused.value.message
    return message


async def test_after_a_hundred_failures_only_the_accounts_own_networks_count(
    node: AccountsNode,
) -> None:
    await node.register(email=ANN)
    assert await guess(node, MOST_IN_A_ROW) != SHUT
    assert await guess(node, 1) == SHUT
    with pytest.raises(Unauthenticated, match="Too many"):
        await node.login(ANN, origin=AWAY)
    await node.login(ANN, origin=HOME)
    await node.login(ANN, origin=AWAY)


async def test_a_network_of_its_own_that_guesses_is_shut_out_too(node: AccountsNode) -> None:
    await node.register(email=ANN)
    await node.login(ANN, origin=AWAY)
    await guess(node, MOST_IN_A_ROW, AWAY)
    assert await guess(node, 1, AWAY) == SHUT
    await node.login(ANN, origin=HOME)


async def test_an_administrators_reset_clears_it(node: AccountsNode) -> None:
    await node.register(email=ANN)
    await guess(node, MOST_IN_A_ROW + 1, AWAY)
    await node.guesses.clear(email_key(ANN))
    await node.login(ANN, origin=AWAY)


async def test_an_address_without_an_account_looks_the_same(node: AccountsNode) -> None:
    assert await guess(node, MOST_IN_A_ROW + 1, AWAY, "nobody@example.com") == SHUT


async def test_many_at_once_do_not_slip_through(world: AccountsWorld) -> None:
    nodes = [await world.node() for _ in range(2)]
    await nodes[0].register(email=ANN)
    await guess(nodes[0], MOST_IN_A_ROW - 10)
    await asyncio.gather(
        *(nodes[i % 2].login(ANN, "Wrong 2 word guess", AWAY) for i in range(20)),
        return_exceptions=True,
    )
    assert await guess(nodes[1], 1) == SHUT
    assert await nodes[0].guess_repository.failures(email_key(ANN)) >= MOST_IN_A_ROW


async def test_registrations_of_one_address_are_limited(world: AccountsWorld) -> None:
    node = await world.node(limits={"register.made": (2, 3600.0)})
    for name in ("Ann", "Bob"):
        await node.register(name)
    with pytest.raises(RateLimited):
        await node.register("Cat")
    await world.turn(1801)
    await node.register("Cat")
