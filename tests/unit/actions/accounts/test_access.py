"""Logout, disabling and the like take effect on tokens and connections, on every node."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actions.accounts import access
from actions.accounts.access import BLIND_AFTER, POLL_EVERY, REFUSED_FOR, Authenticator
from actions.accounts.tokens import KEY_PREFIX, random_token
from domain.errors import Forbidden, NotFound, RateLimited, Unauthenticated, Unavailable
from domain.principals import Role
from fanout.limits import Limit
from tests.support.accounts import (
    ACCESS_TTL,
    AWAY,
    HOME,
    KEY_TTL,
    PASSWORD,
    AccountsNode,
    AccountsWorld,
    accounts_world,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccountsWorld]:
    async with accounts_world(tmp_path) as made:
        yield made


async def pass_a_second(world: AccountsWorld, *nodes: AccountsNode) -> None:
    """What the nodes do of themselves in a second, without what the bus carried."""
    world.clock.turn(1)
    for node in nodes:
        await node.authenticator.look()
        await node.authenticator.review()


async def test_a_token_is_believed_without_asking_the_store(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node()
    tokens = await node.register()

    async def asked(*_: Any) -> None:
        raise AssertionError("the store was asked")

    monkeypatch.setattr(node.session_repository, "session", asked)
    monkeypatch.setattr(node.repository, "user", asked)
    await node.principal(tokens)


@pytest.mark.parametrize("lossy", [False, True])
async def test_logging_out_closes_the_sessions_connections_everywhere(
    world: AccountsWorld, lossy: bool
) -> None:
    nodes = [await world.node() for _ in range(2)]
    gone = await nodes[0].register(email="ann@example.com")
    stays = await nodes[0].login("ann@example.com")
    for node in nodes:
        node.bus.lossy = lossy
    closing = [await node.connect(gone["access_token"]) for node in nodes]
    staying = [await node.connect(stays["access_token"]) for node in nodes]
    await nodes[0].sessions.end_own(await nodes[0].principal(gone))
    await pass_a_second(world, *nodes)
    await pass_a_second(world, *nodes)
    assert [outlet.closing for _, outlet in closing] == ["revoked", "revoked"]
    assert [outlet.closing for _, outlet in staying] == [None, None]
    for node in nodes:
        with pytest.raises(Unauthenticated):
            await node.principal(gone)
        await node.principal(stays)


async def test_without_losses_it_takes_no_second(world: AccountsWorld) -> None:
    nodes = [await world.node() for _ in range(2)]
    running = [asyncio.ensure_future(node.authenticator.run()) for node in nodes]
    try:
        tokens = await nodes[0].register()
        _, outlet = await nodes[1].connect(tokens["access_token"])
        closed = asyncio.Event()
        nodes[1].authenticator.on_revoked.append(lambda _: closed.set())
        await nodes[0].sessions.end_own(await nodes[0].principal(tokens))
        with pytest.raises(Unauthenticated):
            await nodes[1].principal(tokens)
        await asyncio.wait_for(closed.wait(), 10)
        assert outlet.closing == "revoked"
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_change_whose_writer_died_before_telling_takes_effect(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [await world.node() for _ in range(2)]
    tokens = await nodes[0].register()
    _, outlet = await nodes[1].connect(tokens["access_token"])
    monkeypatch.setattr(Authenticator, "tell", lambda self, user: None)
    me = await nodes[0].principal(tokens)
    await nodes[0].authenticator.note(me.user)
    await pass_a_second(world, *nodes)
    assert outlet.closing is None
    at = "2027-01-01T00:00:00.000Z"
    await nodes[0].session_repository.revoke(me.org, me.session, at, forget_at=at)
    await pass_a_second(world, *nodes)
    await pass_a_second(world, *nodes)
    assert outlet.closing == "revoked"
    with pytest.raises(Unauthenticated):
        await nodes[1].principal(tokens)


async def test_a_restarted_node_knows_what_was_revoked(world: AccountsWorld) -> None:
    node = await world.node()
    tokens, other = await node.register("Ann"), await node.register("Bob")
    await node.sessions.end_own(await node.principal(tokens))
    world.clock.turn(ACCESS_TTL - 10)
    restarted = await world.node()
    with pytest.raises(Unauthenticated):
        await restarted.principal(tokens)
    await restarted.principal(other)


async def test_who_came_in_while_access_ended_is_put_out(world: AccountsWorld) -> None:
    """The token was good, then it was revoked and the connections closed, then this one was
    added.
    """
    node = await world.node()
    tokens = await node.register()
    me = await node.principal(tokens)
    await node.sessions.end_own(me)
    await node.authenticator.review()
    with pytest.raises(Unauthenticated):
        await node.authenticator.confirm(me)


async def test_disabling_and_enabling(world: AccountsWorld) -> None:
    node = await world.node()
    admin, _ = await node.somebody(Role.ADMIN, "Root")
    tokens = await node.register(email="ann@example.com")
    _, outlet = await node.connect(tokens["access_token"])
    user = tokens["user"]["id"]
    view = await node.users.disable(admin, user)
    assert view["disabled"]
    await node.authenticator.review()
    assert outlet.closing == "revoked"
    with pytest.raises(Unauthenticated):
        await node.principal(tokens)
    with pytest.raises(Unauthenticated):
        await node.sessions.refresh(tokens["refresh_token"], HOME)
    with pytest.raises(Forbidden):
        await node.login("ann@example.com")
    with pytest.raises(Unauthenticated):
        await node.login("ann@example.com", "Wrong password 1")
    assert (await node.users.disable(admin, user))["disabled"]
    assert not (await node.users.enable(admin, user))["disabled"]
    with pytest.raises(Unauthenticated):
        await node.sessions.refresh(tokens["refresh_token"], HOME)
    await node.principal(await node.login("ann@example.com"))


async def test_another_role_counts_at_once(world: AccountsWorld) -> None:
    nodes = [await world.node() for _ in range(2)]
    owner, _ = await nodes[0].somebody(Role.OWNER, "Root")
    tokens = await nodes[0].register()
    client, outlet = await nodes[1].connect(tokens["access_token"])
    closed: list[bool] = []
    outlet.close = lambda code, *, reconnect: closed.append(reconnect)  # type: ignore[method-assign]
    await nodes[0].users.set_role(owner, tokens["user"]["id"], Role.TECHNICIAN)
    await pass_a_second(world, *nodes)
    assert closed[0] is True, "it may come back at once"
    for node in nodes:
        assert (await node.principal(tokens)).role is Role.TECHNICIAN
    assert client.principal.role is Role.MEMBER


async def test_a_changed_password_closes_the_other_sessions_connections(
    world: AccountsWorld,
) -> None:
    node = await world.node()
    here, there = await node.register(email="ann@example.com"), await node.login("ann@example.com")
    (_, mine), (_, other) = [await node.connect(each["access_token"]) for each in (here, there)]
    me = await node.principal(here)
    await node.accounts.update(me, {}, password="Heron under 9 bridges", current_password=PASSWORD)
    await node.authenticator.review()
    assert (mine.closing, other.closing) == (None, "revoked")


async def test_a_node_that_cannot_ask_believes_no_token_for_long(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node()
    tokens = await node.register()

    async def out_of_reach(_: str) -> None:
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr(node.session_repository, "changes", out_of_reach)
        world.clock.turn(5)
        await node.principal(tokens)
        world.clock.turn(10)
        with pytest.raises(Unavailable):
            await node.authenticator.look()
        with pytest.raises(Unavailable):
            await node.principal(tokens)
    await node.authenticator.look()
    await node.principal(tokens)


async def test_a_node_is_not_ready_before_it_believes_no_token(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node()
    tokens = await node.register()
    await node.authenticator.look()
    world.clock.turn(BLIND_AFTER)
    await node.authenticator.check()
    world.clock.turn(POLL_EVERY / 2)
    await node.principal(tokens)
    with pytest.raises(Unavailable, match=r"10\.5 s ago"):
        await node.authenticator.check()
    await node.authenticator.look()
    await node.authenticator.check()


async def test_a_node_sees_again_by_itself_also_with_somebody_to_review(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node()
    leaver, stayer = await node.register("Ann"), await node.register("Bob")
    _, outlet = await node.connect(leaver["access_token"])
    await node.sessions.end_own(await node.principal(leaver))
    failed, reviewed = asyncio.Event(), asyncio.Event()
    node.authenticator.on_revoked.append(lambda _: reviewed.set())

    async def out_of_reach(*_: str) -> None:
        failed.set()
        raise Unavailable

    running = asyncio.ensure_future(node.authenticator.run())
    try:
        with monkeypatch.context() as patched:
            patched.setattr(node.session_repository, "changes", out_of_reach)
            patched.setattr(node.session_repository, "session", out_of_reach)
            await asyncio.wait_for(failed.wait(), 10)
            world.clock.turn(BLIND_AFTER + 2 * POLL_EVERY)
            with pytest.raises(Unavailable):
                await node.principal(stayer)
        await asyncio.wait_for(reviewed.wait(), 10)
        assert outlet.closing == "revoked"
        await node.principal(stayer)
        await node.authenticator.check()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_after_a_look_that_failed_the_next_does_not_wait_for_its_turn(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node()
    monkeypatch.setattr(access, "POLL_EVERY", 3600.0)
    world.clock.turn(2 * access.POLL_EVERY)
    find, looks, seen = node.session_repository.changes, 0, asyncio.Event()

    async def back_at_the_third(since: str) -> Any:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise Unavailable
        seen.set()
        return await find(since)

    monkeypatch.setattr(node.session_repository, "changes", back_at_the_third)
    running = asyncio.ensure_future(node.authenticator.run())
    try:
        node.authenticator.tell("somebody")
        await asyncio.wait_for(seen.wait(), 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_could_not_be_reviewed_is_reviewed_later(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node()
    tokens = await node.register()
    _, outlet = await node.connect(tokens["access_token"])
    await node.sessions.end_own(await node.principal(tokens))

    async def out_of_reach(*_: str) -> None:
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr(node.session_repository, "session", out_of_reach)
        with pytest.raises(Unavailable):
            await node.authenticator.review()
    assert outlet.closing is None
    await node.authenticator.review()
    assert outlet.closing == "revoked"


async def test_changes_are_forgotten_when_no_older_token_is_left(world: AccountsWorld) -> None:
    node = await world.node()
    tokens = await node.register()
    await node.sessions.end_own(await node.principal(tokens))
    assert node.authenticator.watched == 1
    await world.turn(ACCESS_TTL + 61)
    assert node.authenticator.watched == 0


# -- API keys ---------------------------------------------------------------------------------


async def test_an_agents_key_acts_as_itself(world: AccountsWorld) -> None:
    node = await world.node()
    admin, _ = await node.somebody(Role.ADMIN, "Root")
    key = await node.keys.create(admin, "collector", "agent", Role.TECHNICIAN, None)
    principal = await node.authenticator.authenticate(key["key"], HOME.remote)
    assert principal.kind == "agent"
    assert principal.user == principal.session == key["id"]
    assert (principal.org, principal.role) == ("default", Role.TECHNICIAN)
    assert principal.expires_at == node.clock.now() + KEY_TTL
    listed = (await node.keys.list(admin, cursor=None, limit=10))["items"]
    assert [each["id"] for each in listed] == [key["id"]]
    assert "key" not in listed[0]
    assert key["key"].startswith(listed[0]["hint"])


async def test_a_users_key_acts_as_its_maker_with_no_more_than_its_role(
    world: AccountsWorld,
) -> None:
    node = await world.node()
    owner, _ = await node.somebody(Role.OWNER, "Root")
    admin, _ = await node.somebody(Role.ADMIN, "Ann")
    key = await node.keys.create(admin, "script", "user", Role.ADMIN, None)
    principal = await node.authenticator.authenticate(key["key"], HOME.remote)
    assert (principal.user, principal.kind, principal.role) == (admin.user, "user", Role.ADMIN)
    assert principal.session == key["id"]
    await node.users.set_role(owner, admin.user, Role.MEMBER)
    assert (await node.authenticator.authenticate(key["key"], HOME.remote)).role is Role.MEMBER
    await node.users.disable(owner, admin.user)
    with pytest.raises(Unauthenticated):
        await node.authenticator.authenticate(key["key"], HOME.remote)


async def test_a_revoked_key_is_out_at_once_everywhere(world: AccountsWorld) -> None:
    nodes = [await world.node() for _ in range(2)]
    admin, _ = await nodes[0].somebody(Role.ADMIN, "Root")
    key = await nodes[0].keys.create(admin, "collector", "agent", Role.MEMBER, None)
    _, outlet = await nodes[1].connect(key["key"])
    await nodes[0].keys.revoke(admin, key["id"])
    for node in nodes:
        await node.authenticator.review()
        with pytest.raises(Unauthenticated):
            await node.authenticator.authenticate(key["key"], HOME.remote)
    assert outlet.closing == "revoked"
    with pytest.raises(NotFound):
        await nodes[0].keys.revoke(admin, key["id"])
    assert (await nodes[0].keys.list(admin, cursor=None, limit=10))["items"] == []


async def test_a_key_ends_when_it_was_said_to(world: AccountsWorld) -> None:
    node = await world.node()
    admin, _ = await node.somebody(Role.ADMIN, "Root")
    key = await node.keys.create(admin, "short", "agent", Role.MEMBER, 60)
    client, outlet = await node.connect(key["key"])
    await world.turn(59)
    await node.authenticator.authenticate(key["key"], HOME.remote)
    world.clock.turn(1.1)
    with pytest.raises(Unauthenticated):
        await node.authenticator.authenticate(key["key"], HOME.remote)
    node.expirations.check()
    assert outlet.closing == "token_expired"
    assert client.principal.kind == "agent"


@pytest.mark.parametrize("key", ["pk_", "pk_x", "pk_AAAA", "pk_\ud800", "pk_" + "A" * 60])
async def test_rubbish_is_no_key(world: AccountsWorld, key: str) -> None:
    node = await world.node()
    with pytest.raises(Unauthenticated):
        await node.authenticator.authenticate(key, HOME.remote)


GUESSES: dict[str, Limit | None] = {"api_key.refused": (3, 60.0)}


def count_reads(node: AccountsNode, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that the store is asked for from now on."""
    find = node.session_repository.find_key
    asked: list[str] = []

    async def counted(org: str, hashed: str) -> Any:
        asked.append(hashed)
        return await find(org, hashed)

    monkeypatch.setattr(node.session_repository, "find_key", counted)
    return asked


def wrong_key() -> str:
    return random_token(KEY_PREFIX, "default")


async def guess(node: AccountsNode, remote: str = AWAY.remote) -> None:
    """Try wrong keys until that is refused."""
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await node.authenticator.authenticate(wrong_key(), remote)
    with pytest.raises(RateLimited) as refused:
        await node.authenticator.authenticate(wrong_key(), remote)
    assert 0 < (refused.value.retry_after or 0) <= 20


async def test_who_guesses_keys_has_to_wait_and_asks_the_store_no_more(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node(limits=GUESSES)
    asked = count_reads(node, monkeypatch)
    await guess(node)
    assert len(asked) == 3
    results = await asyncio.gather(
        *(node.authenticator.authenticate(wrong_key(), f"2001:db8::{n + 1:x}") for n in range(20)),
        return_exceptions=True,
    )
    assert [type(each) for each in results].count(Unauthenticated) == 3, "an IPv6 /64 is one"
    await world.turn(20)
    with pytest.raises(Unauthenticated):
        await node.authenticator.authenticate(wrong_key(), AWAY.remote)


async def test_good_keys_are_no_guesses(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node(limits=GUESSES)
    admin, _ = await node.somebody(Role.ADMIN, "Root")
    keys = [
        (await node.keys.create(admin, "collector", "agent", Role.MEMBER, None))["key"]
        for _ in range(10)
    ]
    asked = count_reads(node, monkeypatch)
    for key in keys:
        await node.authenticator.authenticate(key, HOME.remote)
    await guess(node, HOME.remote)
    # Those who were in before are let in again, however much others at their address guess.
    node.authenticator.tell(admin.user)
    world.clock.turn(2)
    asked.clear()
    for key in keys:
        await node.authenticator.authenticate(key, HOME.remote)
    assert len(asked) == len(keys)


async def test_a_dead_key_that_is_tried_on_and_on_costs_few_reads(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node(limits=GUESSES)
    admin, _ = await node.somebody(Role.ADMIN, "Root")
    key = await node.keys.create(admin, "collector", "agent", Role.MEMBER, None)
    await node.authenticator.authenticate(key["key"], HOME.remote)
    await node.keys.revoke(admin, key["id"])
    asked = count_reads(node, monkeypatch)
    for _ in range(30):
        with pytest.raises(Unauthenticated):
            await node.authenticator.authenticate(key["key"], HOME.remote)
        world.clock.turn(0.3)
    assert len(asked) == 1


async def test_the_key_of_a_user_who_was_enabled_again_is_good_again(world: AccountsWorld) -> None:
    node = await world.node(limits=GUESSES)
    owner, _ = await node.somebody(Role.OWNER, "Root")
    admin, _ = await node.somebody(Role.ADMIN, "Ann")
    key = await node.keys.create(admin, "script", "user", Role.ADMIN, None)
    await node.users.disable(owner, admin.user)
    with pytest.raises(Unauthenticated):
        await node.authenticator.authenticate(key["key"], HOME.remote)
    await node.users.enable(owner, admin.user)
    await world.turn(REFUSED_FOR)
    await node.authenticator.authenticate(key["key"], HOME.remote)


async def test_a_key_that_could_not_be_looked_for_was_no_guess(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node(limits=GUESSES)
    admin, _ = await node.somebody(Role.ADMIN, "Root")
    key = await node.keys.create(admin, "collector", "agent", Role.MEMBER, None)

    async def out_of_reach(*_: str) -> None:
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr(node.session_repository, "find_key", out_of_reach)
        for _ in range(10):
            with pytest.raises(Unavailable):
                await node.authenticator.authenticate(key["key"], HOME.remote)
    await node.authenticator.authenticate(key["key"], HOME.remote)


async def test_a_key_cannot_do_more_than_its_maker(world: AccountsWorld) -> None:
    node = await world.node()
    admin, _ = await node.somebody(Role.ADMIN, "Root")
    for kind, role in (("user", Role.OWNER), ("agent", Role.ADMIN), ("agent", Role.OWNER)):
        with pytest.raises(Forbidden):
            await node.keys.create(admin, "more", kind, role, None)  # type: ignore[arg-type]


async def test_keys_of_another_organization_are_not_there(world: AccountsWorld) -> None:
    node = await world.node()
    admin, _ = await node.somebody(Role.ADMIN, "Root", "one")
    other, _ = await node.somebody(Role.OWNER, "Root", "two")
    key = await node.keys.create(admin, "collector", "agent", Role.MEMBER, None)
    assert (await node.keys.list(other, cursor=None, limit=10))["items"] == []
    with pytest.raises(NotFound):
        await node.keys.revoke(other, key["id"])
    assert (await node.authenticator.authenticate(key["key"], HOME.remote)).org == "one"
