"""Sessions: refreshing, reuse of a refresh token, ending."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from actions.accounts.sessions import MAX_AGE, Origin
from domain.accounts.accounts import Session, Tokens
from domain.clock import timestamp
from domain.errors import Invalid, NotFound, Unauthenticated
from domain.principals import Role
from store.accounts.accounts import SERVER
from store.accounts.sessions import CHANGES, SESSIONS
from tests.support.accounts import (
    AWAY,
    HOME,
    REFRESH_TTL,
    AccountsNode,
    AccountsWorld,
    accounts_world,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccountsWorld]:
    async with accounts_world(tmp_path) as made:
        yield made


@pytest.fixture
async def node(world: AccountsWorld) -> AccountsNode:
    return await world.node()


async def refused(node: AccountsNode, refresh_token: str) -> None:
    with pytest.raises(Unauthenticated):
        await node.sessions.refresh(refresh_token, HOME)


async def test_refreshing_gives_a_new_pair_of_the_same_session(
    node: AccountsNode, world: AccountsWorld
) -> None:
    first = await node.register()
    await world.turn(600)
    second = await node.sessions.refresh(first["refresh_token"], AWAY)
    TypeAdapter(Tokens).validate_python(second, strict=True)
    assert second["refresh_token"] != first["refresh_token"]
    one, two = await node.principal(first), await node.principal(second)
    assert (one.user, one.session) == (two.user, two.session)
    assert two.expires_at == one.expires_at + 600
    (session,) = await node.sessions.mine(two)
    TypeAdapter(Session).validate_python(session, strict=True)
    assert session["current"]
    assert session["remote"] == AWAY.remote
    assert session["last_used_at"] > session["created_at"]


async def test_a_session_lives_as_long_as_it_is_refreshed(
    node: AccountsNode, world: AccountsWorld
) -> None:
    tokens = await node.register()
    for _ in range(4):
        await world.turn(REFRESH_TTL - 60)
        tokens = await node.sessions.refresh(tokens["refresh_token"], HOME)
    world.clock.turn(REFRESH_TTL)
    await refused(node, tokens["refresh_token"])


async def test_a_refresh_token_used_twice_ends_its_session_for_both(node: AccountsNode) -> None:
    first = await node.register(email="ann@example.com")
    other = await node.login("ann@example.com")
    second = await node.sessions.refresh(first["refresh_token"], HOME)
    third = await node.sessions.refresh(second["refresh_token"], HOME)
    await refused(node, first["refresh_token"])
    await refused(node, third["refresh_token"])
    for tokens in (first, second, third):
        with pytest.raises(Unauthenticated):
            await node.principal(tokens)
    await node.principal(other)
    await node.sessions.refresh(other["refresh_token"], HOME)


async def test_a_session_has_a_greatest_age(node: AccountsNode, world: AccountsWorld) -> None:
    tokens = await node.register()
    for _ in range(5):
        await world.turn(MAX_AGE / 5 - 20)
        tokens = await node.sessions.refresh(tokens["refresh_token"], HOME)
    assert tokens["expires_in"] == 100
    (session,) = await node.sessions.mine(await node.principal(tokens))
    assert session["expires_at"] == timestamp(world.clock.now() + 100)
    world.clock.turn(100)
    await refused(node, tokens["refresh_token"])


async def test_rubbish_ends_nobodys_session(node: AccountsNode) -> None:
    tokens = await node.register()
    for rubbish in ("", "rt_", tokens["access_token"], tokens["refresh_token"][:-3] + "AAA"):
        await refused(node, rubbish)
    await node.sessions.refresh(tokens["refresh_token"], HOME)


async def test_the_store_holds_no_token(node: AccountsNode, world: AccountsWorld) -> None:
    tokens = await node.register()
    kept = str(await world.engine.find("default", SESSIONS, {}))
    assert tokens["refresh_token"] not in kept
    assert tokens["access_token"] not in kept


async def test_logging_out_ends_this_session_alone(node: AccountsNode) -> None:
    here, there = await node.register(email="ann@example.com"), await node.login("ann@example.com")
    await node.sessions.end_own(await node.principal(here))
    with pytest.raises(Unauthenticated):
        await node.principal(here)
    await refused(node, here["refresh_token"])
    me = await node.principal(there)
    assert [each["current"] for each in await node.sessions.mine(me)] == [True]


async def test_logging_out_everywhere(node: AccountsNode) -> None:
    many = [await node.register(email="ann@example.com")]
    many += [await node.login("ann@example.com") for _ in range(3)]
    bob = await node.register("Bob")
    me = await node.principal(many[0])
    assert len(await node.sessions.mine(me)) == 4
    await node.sessions.end_all(me.org, me.user)
    for tokens in many:
        with pytest.raises(Unauthenticated):
            await node.principal(tokens)
        await refused(node, tokens["refresh_token"])
    await node.principal(bob)


async def test_ending_one_of_several_sessions(node: AccountsNode) -> None:
    here, there = await node.register(email="ann@example.com"), await node.login("ann@example.com")
    me, other = await node.principal(here), await node.principal(there)
    await node.sessions.end(me, other.session)
    with pytest.raises(Unauthenticated):
        await node.principal(there)
    await node.principal(here)
    with pytest.raises(NotFound):
        await node.sessions.end(me, other.session)


async def test_nobody_ends_the_session_of_somebody_else(node: AccountsNode) -> None:
    ann, bob = await node.register("Ann"), await node.register("Bob")
    eve, _ = await node.somebody(Role.OWNER, "Eve", "other")
    target = await node.principal(bob)
    for stranger in (await node.principal(ann), eve):
        with pytest.raises(NotFound):
            await node.sessions.end(stranger, target.session)
    await node.principal(bob)


async def test_one_session_is_shown_to_its_user_alone(
    node: AccountsNode, world: AccountsWorld
) -> None:
    here, there = await node.register(email="ann@example.com"), await node.login("ann@example.com")
    me, other = await node.principal(here), await node.principal(there)
    shown = await node.sessions.one(me, other.session)
    TypeAdapter(Session).validate_python(shown, strict=True)
    assert shown in await node.sessions.mine(me)
    assert not shown["current"]
    assert (await node.sessions.one(other, other.session))["current"]
    bob = await node.principal(await node.register("Bob"))
    eve, _ = await node.somebody(Role.OWNER, "Eve", "other")
    for stranger in (bob, eve):
        with pytest.raises(NotFound):
            await node.sessions.one(stranger, other.session)
    await node.sessions.end(me, other.session)
    with pytest.raises(NotFound):
        await node.sessions.one(me, other.session)
    world.clock.turn(REFRESH_TTL)
    for attempt in (node.sessions.one, node.sessions.end):
        with pytest.raises(NotFound):
            await attempt(me, me.session)


async def test_the_session_unused_for_longest_makes_room(
    node: AccountsNode, world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.accounts.accounts.MAX_SESSIONS", 3)
    tokens = [await node.register(email="ann@example.com")]
    for _ in range(2):
        world.clock.turn(1)
        tokens.append(await node.login("ann@example.com"))
    world.clock.turn(1)
    tokens[0] = await node.sessions.refresh(tokens[0]["refresh_token"], HOME)
    world.clock.turn(1)
    tokens.append(await node.login("ann@example.com"))
    await node.principal(tokens[0])
    with pytest.raises(Unauthenticated):
        await node.principal(tokens[1])
    assert len(await node.sessions.mine(await node.principal(tokens[3]))) == 3


async def test_long_user_agents_are_cut(node: AccountsNode) -> None:
    tokens = await node.accounts.register(
        "ann@example.com", "Kestrel over 7 weirs", "Ann", None, Origin("192.0.2.1", "x" * 9999)
    )
    (session,) = await node.sessions.mine(await node.principal(tokens))
    assert len(session["user_agent"]) == 256


async def test_what_nobody_needs_is_forgotten(node: AccountsNode, world: AccountsWorld) -> None:
    tokens = await node.register()
    await node.sessions.end_own(await node.principal(tokens))
    assert await world.engine.count(SERVER, CHANGES, {}) == 1
    world.clock.turn(REFRESH_TTL + 1)
    await node.sessions.trim()
    assert await world.engine.count("default", SESSIONS, {}) == 0
    assert await world.engine.count(SERVER, CHANGES, {}) == 0


async def test_an_ended_session_is_forgotten_after_a_day_and_its_tokens_stay_refused(
    node: AccountsNode, world: AccountsWorld
) -> None:
    first = await node.register(email="ann@example.com")
    me = await node.principal(first)
    second = await node.sessions.refresh(first["refresh_token"], HOME)
    await node.sessions.refresh(second["refresh_token"], HOME)
    await refused(node, first["refresh_token"])
    stays = await node.login("ann@example.com")
    await world.turn(86_400 - 1)
    await node.sessions.trim()
    assert await node.session_repository.session(me.org, me.session) is not None
    await world.turn(2)
    await node.sessions.trim()
    assert await node.session_repository.session(me.org, me.session) is None
    for tokens in (first, second):
        await refused(node, tokens["refresh_token"])
        with pytest.raises(Unauthenticated):
            await node.principal(tokens)
    await node.sessions.refresh(stays["refresh_token"], HOME)


# -- auth.refresh on a socket -----------------------------------------------------------------


async def test_a_connection_lives_on_with_a_newer_token(
    node: AccountsNode, world: AccountsWorld
) -> None:
    tokens = await node.register()
    client, outlet = await node.connect(tokens["access_token"], transport="t1")
    sibling, _ = await node.connect(tokens["access_token"], transport="t1")
    tab, tab_outlet = await node.connect(tokens["access_token"], transport="t2")
    await world.turn(600)
    newer = await node.sessions.refresh(tokens["refresh_token"], HOME)
    answer = await node.sessions.extend(client, newer["access_token"], HOME.remote)
    assert answer["expires_in"] == 900
    assert client.principal.expires_at == sibling.principal.expires_at == world.clock.now() + 900
    assert tab.principal.expires_at == world.clock.now() + 300
    world.clock.turn(301)
    node.expirations.check()
    assert outlet.closing is None
    assert tab_outlet.closing == "token_expired"


async def test_an_older_token_does_not_shorten_a_connection(
    node: AccountsNode, world: AccountsWorld
) -> None:
    older = await node.register()
    world.clock.turn(10)
    newer = await node.sessions.refresh(older["refresh_token"], HOME)
    client, _ = await node.connect(newer["access_token"])
    assert (await node.sessions.extend(client, older["access_token"], HOME.remote))[
        "expires_in"
    ] == 900


async def test_a_connection_takes_no_token_of_another_session(node: AccountsNode) -> None:
    tokens = await node.register(email="ann@example.com")
    client, _ = await node.connect(tokens["access_token"])
    for other in (await node.login("ann@example.com"), await node.register("Bob")):
        with pytest.raises(Invalid):
            await node.sessions.extend(client, other["access_token"], HOME.remote)
    for rubbish in ("x", tokens["refresh_token"]):
        with pytest.raises(Unauthenticated):
            await node.sessions.extend(client, rubbish, HOME.remote)
