"""Registering, logging in, the own profile, the first administrator."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from actions.accounts.accounts import REFUSED, Accounts
from actions.accounts.hashing import PasswordHasher
from domain.accounts.accounts import Profile, Tokens
from domain.clock import timestamp
from domain.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ParleyError,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from domain.principals import Principal, Role
from fanout.limits import Limit
from tests.support.accounts import (
    AWAY,
    HOME,
    PASSWORD,
    AccountsNode,
    AccountsWorld,
    accounts_world,
)

NEW_PASSWORD = "Heron under 9 bridges"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccountsWorld]:
    async with accounts_world(tmp_path) as made:
        yield made


@pytest.fixture
async def node(world: AccountsWorld) -> AccountsNode:
    return await world.node()


async def error_of(accounts: Accounts, email: str, invite: str | None = None) -> ParleyError:
    with pytest.raises(ParleyError) as refused:
        await accounts.register(email, PASSWORD, "Bob", invite, HOME)
    return refused.value


# -- registering ------------------------------------------------------------------------------


async def test_registering_logs_in(node: AccountsNode) -> None:
    tokens = await node.accounts.register(" Ann@Example.COM ", PASSWORD, " Ann  Lee ", None, HOME)
    TypeAdapter(Tokens).validate_python(tokens, strict=True)
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 900
    user = tokens["user"]
    assert (user["email"], user["name"], user["role"]) == ("ann@example.com", "Ann Lee", "member")
    assert user["settings"] == {}
    assert user["avatar"] is None
    principal = await node.principal(tokens)
    assert (principal.user, principal.org) == (user["id"], "default")
    assert principal.role is Role.MEMBER


async def test_an_address_is_one_persons_in_all_its_forms(node: AccountsNode) -> None:
    await node.register(email="ann@example.com")
    for form in ("ann@example.com", "ANN@example.com", "Ann@EXAMPLE.com"):
        refused = await error_of(node.accounts, form)
        assert isinstance(refused, Conflict)
        assert refused.message == REFUSED
        assert refused.errors == []
        assert refused.data is None


async def test_of_many_who_register_one_address_at_once_one_does(node: AccountsNode) -> None:
    results = await asyncio.gather(
        *(node.register(email="ann@example.com") for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(each, dict) for each in results) == 1
    assert sum(isinstance(each, Conflict) for each in results) == 9
    await node.login("ann@example.com")


async def test_the_right_password_of_an_account_does_not_help_to_register_it(
    node: AccountsNode,
) -> None:
    """Else registering would be a way to try passwords past the limits of logging in."""
    await node.register(email="ann@example.com")
    refused = []
    for password in (PASSWORD, NEW_PASSWORD):
        with pytest.raises(Conflict) as error:
            await node.accounts.register("ann@example.com", password, "Ann", None, HOME)
        refused.append(error.value.to_wire())
    assert refused[0] == refused[1]


async def test_bad_values_are_named_before_anything_is_looked_up(node: AccountsNode) -> None:
    await node.register(email="ann@example.com")
    for email, password, name, field in (
        ("ann@", PASSWORD, "Ann", "email"),
        ("ann@example.com", "short", "Ann", "password"),
        ("ann@example.com", "Password123", "Ann", "password"),
        ("ann@example.com", PASSWORD, "  ", "name"),
    ):
        with pytest.raises(Invalid) as refused:
            await node.accounts.register(email, password, name, None, HOME)
        assert [each["field"] for each in refused.value.errors] == [field]


async def test_finding_accounts_by_registering_ends_soon(world: AccountsWorld) -> None:
    node = await world.node(limits={"register.refused": (3, 3600.0)})
    for i in range(5):
        await node.register(email=f"new{i}@example.com")  # what succeeds does not count
    for _ in range(3):
        assert isinstance(await error_of(node.accounts, "new0@example.com"), Conflict)
    for email in ("new0@example.com", "unknown@example.com"):
        assert isinstance(await error_of(node.accounts, email), RateLimited)
    await node.accounts.register("other@example.com", PASSWORD, "Bob", None, AWAY)


async def test_an_address_claimed_by_a_crashed_registration_is_free_again(
    node: AccountsNode, world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(org: str, doc: dict[str, Any]) -> bool:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(node.repository, "add_user", crash)
        with pytest.raises(ConnectionError):
            await node.register(email="ann@example.com")
    assert isinstance(await error_of(node.accounts, "ann@example.com"), Conflict)
    world.clock.turn(61)
    results = await asyncio.gather(
        *(node.register(email="ann@example.com") for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(each, dict) for each in results) == 1
    world.clock.turn(61)
    assert isinstance(await error_of(node.accounts, "ann@example.com"), Conflict)


async def test_a_closed_server_takes_nobody(world: AccountsWorld) -> None:
    node = await world.node("closed")
    for email in ("ann@example.com", "bob@example.com"):
        assert isinstance(await error_of(node.accounts, email), Forbidden)


# -- invitations ------------------------------------------------------------------------------


async def test_an_invitation_lets_one_person_in(world: AccountsWorld) -> None:
    node = await world.node("invite")
    admin, _ = await node.somebody(Role.ADMIN, "Root", "acme")
    assert isinstance(await error_of(node.accounts, "bob@example.com"), Forbidden)
    invite = await node.users.invite(admin, None, Role.TECHNICIAN)
    assert set(invite) == {"id", "token", "email", "role", "created_at", "created_by", "expires_at"}
    results = await asyncio.gather(
        *(
            node.accounts.register(f"b{i}@example.com", PASSWORD, "Bob", invite["token"], HOME)
            for i in range(5)
        ),
        return_exceptions=True,
    )
    made = [each for each in results if isinstance(each, dict)]
    assert len(made) == 1
    assert made[0]["user"]["org"] == "acme"
    assert made[0]["user"]["role"] == "technician"
    assert all(isinstance(each, Conflict) for each in results if not isinstance(each, dict))


async def test_an_invitation_that_is_not_good_is_refused_like_a_taken_address(
    world: AccountsWorld,
) -> None:
    node = await world.node("invite")
    admin, _ = await node.somebody(Role.OWNER, "Root")
    bound = await node.users.invite(admin, "Bob@Example.com", Role.MEMBER)
    used = await node.users.invite(admin, None, Role.MEMBER)
    await node.accounts.register("ann@example.com", PASSWORD, "Ann", used["token"], HOME)
    fresh = await node.users.invite(admin, None, Role.MEMBER)
    refusals = [
        await error_of(node.accounts, "eve@example.com", "in_nonsense"),
        await error_of(node.accounts, "eve@example.com", "\ud800"),
        await error_of(node.accounts, "eve@example.com", used["token"]),
        await error_of(node.accounts, "eve@example.com", bound["token"]),
        await error_of(node.accounts, "ann@example.com", fresh["token"]),
    ]
    assert [each.to_wire() for each in refusals] == [Conflict(REFUSED).to_wire()] * 5
    await node.accounts.register("bob@example.com", PASSWORD, "Bob", bound["token"], HOME)
    world.clock.turn(8 * 86400)
    assert isinstance(await error_of(node.accounts, "eve@example.com", fresh["token"]), Conflict)


async def test_nobody_invites_to_a_role_that_is_not_below_their_own(node: AccountsNode) -> None:
    admin, _ = await node.somebody(Role.ADMIN, "Root")
    for role in (Role.OWNER, Role.ADMIN):
        with pytest.raises(Forbidden):
            await node.users.invite(admin, None, role)


# -- logging in -------------------------------------------------------------------------------


async def test_logging_in(node: AccountsNode) -> None:
    registered = await node.register(email="ann@example.com")
    tokens = await node.login("  ANN@example.com")
    assert tokens["user"] == registered["user"]
    assert (await node.principal(tokens)).session != (await node.principal(registered)).session


async def test_unknown_addresses_and_wrong_passwords_are_answered_alike(
    node: AccountsNode,
) -> None:
    await node.register(email="ann@example.com")
    answers = []
    for email in ("ann@example.com", "nobody@example.com"):
        with pytest.raises(Unauthenticated) as refused:
            await node.login(email, "Wrong password 1")
        answers.append(refused.value.to_wire())
    assert answers[0] == answers[1]


async def test_attempts_are_recorded_and_forgotten_by_age(
    node: AccountsNode, world: AccountsWorld
) -> None:
    await node.register(email="ann@example.com")
    for password in ("Wrong password 1", PASSWORD):
        try:
            await node.login("ann@example.com", password, AWAY)
        except Unauthenticated:
            continue
    with pytest.raises(Unauthenticated):
        await node.login("nobody@example.com")
    found = await node.attempts("ann@example.com")
    assert [(each["network"], each["ok"]) for each in found] == [
        (HOME.remote, True),
        (AWAY.remote, False),
        (AWAY.remote, True),
    ]
    assert [each["ok"] for each in await node.attempts("nobody@example.com")] == [False]
    assert "ann" not in str(found)
    world.clock.turn(31 * 86400)
    await node.sessions.trim()
    assert await node.attempts("ann@example.com") == []


async def test_guessing_a_password_is_limited_per_account_and_never_for_good(
    world: AccountsWorld,
) -> None:
    node = await world.node(limits={"login": (3, 60.0)})
    await node.register(email="ann@example.com")
    for email in ("ann@example.com", "nobody@example.com"):
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                await node.login(email, "Wrong password 1", AWAY)
        with pytest.raises(RateLimited) as refused:
            await node.login(email, PASSWORD, AWAY)
        assert 0 < refused.value.retry_after <= 20
    world.clock.turn(20)
    await node.login("ann@example.com", PASSWORD, AWAY)


async def test_somebody_who_guesses_does_not_lock_the_owner_out(world: AccountsWorld) -> None:
    node = await world.node(limits={"login": (3, 60.0)})
    await node.register(email="ann@example.com")
    for _ in range(10):
        with pytest.raises((Unauthenticated, RateLimited)):
            await node.login("ann@example.com", "Wrong password 1", AWAY)
    await node.login("ann@example.com", PASSWORD, HOME)


async def test_guessing_is_limited_per_network_address(world: AccountsWorld) -> None:
    node = await world.node(limits={"login.address": (3, 60.0)})
    await node.register(email="ann@example.com")
    for i in range(3):
        with pytest.raises(Unauthenticated):
            await node.login(f"nobody{i}@example.com", PASSWORD, AWAY)
    with pytest.raises(RateLimited):
        await node.login("ann@example.com", PASSWORD, AWAY)
    await node.login("ann@example.com", PASSWORD, HOME)


async def test_logging_in_with_success_is_not_limited(world: AccountsWorld) -> None:
    node = await world.node(limits={"login": (3, 60.0), "login.address": (3, 60.0)})
    await node.register(email="ann@example.com")
    for _ in range(12):
        await node.login("ann@example.com", PASSWORD)


async def test_an_outage_is_no_failed_attempt(
    world: AccountsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = (1, 3600.0)
    limits: dict[str, Limit | None] = dict.fromkeys(
        ("login", "login.address", "password", "register.refused"), one
    )
    node = await world.node(limits=limits)
    me = await node.principal(await node.register(email="ann@example.com"))

    async def out_of_reach(*_: object) -> None:
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr("actions.accounts.hashing.PasswordHasher.verify", out_of_reach)
        patched.setattr("actions.accounts.hashing.PasswordHasher.hash", out_of_reach)
        for _ in range(3):
            for attempt in (
                node.login("ann@example.com"),
                node.register(email="bob@example.com"),
                node.accounts.update(me, {}, password=NEW_PASSWORD, current_password=PASSWORD),
            ):
                with pytest.raises(Unavailable):
                    await attempt
    await node.login("ann@example.com")
    await node.register(email="bob@example.com")
    await node.accounts.update(me, {}, password=NEW_PASSWORD, current_password=PASSWORD)


async def test_a_hash_of_another_cost_is_renewed_at_login(
    node: AccountsNode, world: AccountsWorld
) -> None:
    tokens = await node.register(email="ann@example.com")
    before = await node.repository.user("default", tokens["user"]["id"])
    assert before is not None
    other = "$2b$05$" + before["password"][7:]
    await node.repository.update_user("default", before["id"], {"password": other})
    with pytest.raises(Unauthenticated):
        await node.login("ann@example.com")  # another cost, another hash
    await node.repository.update_user("default", before["id"], {"password": before["password"]})
    await node.login("ann@example.com")
    after = await node.repository.user("default", before["id"])
    assert after is not None
    assert after["password"] == before["password"]


async def test_sixteen_hundred_bytes_are_no_password(node: AccountsNode) -> None:
    with pytest.raises(Invalid):
        await node.login("ann@example.com", "x" * 1600)


# -- profile ----------------------------------------------------------------------------------


async def test_profile(node: AccountsNode) -> None:
    me = await node.principal(await node.register())
    profile = await node.accounts.update(
        me, {"name": "Anna", "avatar": "https://example.com/a.png", "settings": {"theme": "dark"}}
    )
    TypeAdapter(Profile).validate_python(profile, strict=True)
    assert (profile["name"], profile["settings"]) == ("Anna", {"theme": "dark"})
    assert await node.accounts.profile(me) == profile
    profile = await node.accounts.update(me, {"avatar": None})
    assert (profile["name"], profile["avatar"]) == ("Anna", None)
    assert await node.accounts.update(me, {}) == profile
    assert "password" not in str(profile)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"avatar": "javascript:alert(1)"},
        {"settings": {str(i): i for i in range(65)}},
        {"settings": {"big": "x" * 20_000}},
        {"settings": {"bad": "\ud800"}},
    ],
)
async def test_profile_refuses(node: AccountsNode, changes: dict[str, Any]) -> None:
    me = await node.principal(await node.register())
    before = await node.accounts.profile(me)
    with pytest.raises(Invalid):
        await node.accounts.update(me, changes)
    assert await node.accounts.profile(me) == before


async def test_changing_the_password_ends_the_other_sessions(node: AccountsNode) -> None:
    here, there = await node.register(email="ann@example.com"), await node.login("ann@example.com")
    me = await node.principal(here)
    await node.accounts.update(me, {}, password=NEW_PASSWORD, current_password=PASSWORD)
    await node.principal(here)
    with pytest.raises(Unauthenticated):
        await node.principal(there)
    with pytest.raises(Unauthenticated):
        await node.sessions.refresh(there["refresh_token"], HOME)
    await node.sessions.refresh(here["refresh_token"], HOME)
    with pytest.raises(Unauthenticated):
        await node.login("ann@example.com", PASSWORD)
    await node.login("ann@example.com", NEW_PASSWORD)


@pytest.mark.parametrize("what", ["password", "disabled"])
async def test_who_is_just_logging_in_with_the_old_password_is_not_let_in(
    node: AccountsNode, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await node.principal(await node.register())
    record = node.session_repository.record_attempt

    async def change_first(*attempt: Any) -> None:
        # The password is found right, and the session not begun yet.
        monkeypatch.setattr(node.session_repository, "record_attempt", record)
        node.clock.turn(1)
        if what == "password":
            await node.accounts.update(mine, {}, password=NEW_PASSWORD, current_password=PASSWORD)
        else:
            at = timestamp(node.clock.now())
            await node.repository.update_user(mine.org, mine.user, {"disabled_at": at})
            await node.sessions.end_all(mine.org, mine.user)
        await record(*attempt)

    monkeypatch.setattr(node.session_repository, "record_attempt", change_first)
    with pytest.raises(Unauthenticated):
        await node.login("ann@example.com")
    now = timestamp(node.clock.now())
    live = await node.session_repository.live(mine.org, mine.user, now)
    assert [each["id"] for each in live] == ([mine.session] if what == "password" else [])


async def test_changing_the_password_needs_the_current_one(world: AccountsWorld) -> None:
    node = await world.node(limits={"password": (3, 60.0)})
    me = await node.principal(await node.register(email="ann@example.com"))
    for current in (None, "Wrong password 1", ""):
        with pytest.raises(Invalid) as refused:
            await node.accounts.update(me, {}, password=NEW_PASSWORD, current_password=current)
        assert refused.value.errors[0]["field"] == "current_password"
    with pytest.raises(Invalid) as refused:
        await node.accounts.update(me, {}, password="weak", current_password=PASSWORD)
    assert refused.value.errors[0]["field"] == "password"
    with pytest.raises(Invalid):
        await node.accounts.update(me, {}, password=NEW_PASSWORD, current_password="Wrong 2 word")
    with pytest.raises(RateLimited):
        await node.accounts.update(me, {}, password=NEW_PASSWORD, current_password=PASSWORD)
    await node.login("ann@example.com")


async def test_of_two_changes_of_the_password_at_once_one_holds(node: AccountsNode) -> None:
    me = await node.principal(await node.register(email="ann@example.com"))
    passwords = [f"Heron under {i} bridges" for i in range(4)]
    results = await asyncio.gather(
        *(
            node.accounts.update(me, {}, password=each, current_password=PASSWORD)
            for each in passwords
        ),
        return_exceptions=True,
    )
    winners = [
        password
        for password, result in zip(passwords, results, strict=True)
        if isinstance(result, dict)
    ]
    assert len(winners) >= 1
    good = 0
    for password in passwords:
        try:
            await node.login("ann@example.com", password)
            good += 1
        except Unauthenticated:
            continue
    assert good == 1


# -- the first one ----------------------------------------------------------------------------


async def test_the_first_administrator_is_made_once(node: AccountsNode) -> None:
    assert await node.accounts.ensure_first_admin("Root@Example.com", PASSWORD)
    tokens = await node.login("root@example.com")
    assert tokens["user"]["role"] == "owner"
    assert not await node.accounts.ensure_first_admin("root@example.com", PASSWORD)
    assert not await node.accounts.ensure_first_admin("other@example.com", PASSWORD)
    with pytest.raises(Unauthenticated):
        await node.login("other@example.com")


async def test_nodes_that_start_together_make_one_first_administrator(node: AccountsNode) -> None:
    made = await asyncio.gather(
        *(node.accounts.ensure_first_admin("root@example.com", PASSWORD) for _ in range(5))
    )
    assert made.count(True) == 1
    assert (await node.login("root@example.com"))["user"]["role"] == "owner"


async def test_whoever_registered_the_first_administrators_address_does_not_become_it(
    node: AccountsNode,
) -> None:
    await node.accounts.register("root@example.com", NEW_PASSWORD, "Eve", None, AWAY)
    with pytest.raises(Conflict):
        await node.accounts.ensure_first_admin("root@example.com", PASSWORD)
    assert (await node.login("root@example.com", NEW_PASSWORD))["user"]["role"] == "member"


async def test_a_crash_while_the_first_administrator_is_made_is_made_good(
    node: AccountsNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(org: str, owners: list[str], version: int) -> bool:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(node.repository, "set_owners", crash)
        with pytest.raises(ConnectionError):
            await node.accounts.ensure_first_admin("root@example.com", PASSWORD)
    assert await node.accounts.ensure_first_admin("root@example.com", PASSWORD)
    found = await node.repository.organization("default")
    assert found is not None
    assert found["owners"] == [(await node.login("root@example.com"))["user"]["id"]]


async def test_a_weak_password_makes_no_administrator(node: AccountsNode) -> None:
    with pytest.raises(Invalid):
        await node.accounts.ensure_first_admin("root@example.com", "admin")


async def test_an_agents_key_has_no_profile(node: AccountsNode) -> None:
    admin, _ = await node.somebody(Role.ADMIN, "Root")
    key = await node.keys.create(admin, "bot", "agent", Role.MEMBER, None)
    agent = await node.authenticator.authenticate(key["key"], HOME.remote)
    with pytest.raises(NotFound):
        await node.accounts.profile(agent)


async def test_one_who_floods_with_new_passwords_keeps_nobody_waiting(
    world: AccountsWorld,
) -> None:
    hasher = PasswordHasher(8, threads=1, max_waiting=20)
    try:
        node = await AccountsWorld(world.engine, world.clock, hasher).node()
        ann, ben = [await node.principal(await node.register(name)) for name in ("Ann", "Ben")]
        ended: list[str] = []

        async def change(who: Principal) -> None:
            try:
                await node.accounts.update(
                    who, {}, password=NEW_PASSWORD, current_password=PASSWORD
                )
            finally:
                ended.append(who.user)

        flood = [asyncio.ensure_future(change(ann)) for _ in range(30)]
        while len(ended) < 10:  # of those that may not wait
            await asyncio.sleep(0)
        before = len(ended)
        await change(ben)
        assert len(ended) - before < 10
        await asyncio.gather(*flood, return_exceptions=True)
    finally:
        hasher.close()
