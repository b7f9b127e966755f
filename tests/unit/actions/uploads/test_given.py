"""What people give to others ends with their right to give it: invitations, keys, reset links."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from domain.accounts.accounts import MOST_IN_A_ROW, RESET_TTL, ApiKey, Invite, PasswordReset
from domain.clock import timestamp
from domain.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from domain.principals import Principal, Role
from store.accounts.accounts import RESETS
from tests.support.accounts import (
    AWAY,
    HOME,
    KEY_TTL,
    PASSWORD,
    AccountsNode,
    AccountsWorld,
    accounts_world,
)

NEW_PASSWORD = "Heron under 9 bridges"
ANN = "ann@example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccountsWorld]:
    async with accounts_world(tmp_path) as made:
        yield made


@pytest.fixture
async def node(world: AccountsWorld) -> AccountsNode:
    return await world.node()


@pytest.fixture
async def owner(node: AccountsNode) -> Principal:
    return (await node.somebody(Role.OWNER, "Olga"))[0]


@pytest.fixture
async def admin(node: AccountsNode) -> Principal:
    return (await node.somebody(Role.ADMIN, "Adam"))[0]


async def listed(node: AccountsNode, who: Principal) -> list[str]:
    page = await node.users.invites(who, cursor=None, limit=50)
    for each in page["items"]:
        TypeAdapter(Invite).validate_python(each, strict=True)
        assert "token" not in each
    return [each["id"] for each in page["items"]]


async def use(node: AccountsNode, invite: Invite, email: str = ANN) -> None:
    await node.accounts.register(email, PASSWORD, "Ann", invite["token"], HOME)


async def test_invitations_are_listed_and_taken_back(node: AccountsNode, admin: Principal) -> None:
    first, second, third = [await node.users.invite(admin, None, Role.MEMBER) for _ in range(3)]
    eve, _ = await node.somebody(Role.OWNER, "Eve", "other")
    assert await listed(node, eve) == []
    with pytest.raises(NotFound):
        await node.users.revoke_invite(eve, first["id"])
    await use(node, first)
    await node.users.revoke_invite(admin, second["id"])
    assert await listed(node, admin) == [third["id"]]
    for gone in (first, second):
        with pytest.raises(NotFound):
            await node.users.revoke_invite(admin, gone["id"])
        with pytest.raises(Conflict):
            await use(node, gone, "bob@example.com")


async def test_an_invitation_ends_with_its_makers_role_or_account(
    node: AccountsNode, owner: Principal, admin: Principal
) -> None:
    invite = await node.users.invite(admin, None, Role.TECHNICIAN)
    await node.users.set_role(owner, admin.user, Role.MEMBER)
    with pytest.raises(Conflict):
        await use(node, invite)
    await node.users.set_role(owner, admin.user, Role.ADMIN)
    await node.users.disable(owner, admin.user)
    with pytest.raises(Conflict):
        await use(node, invite)
    await node.users.enable(owner, admin.user)
    await use(node, invite)


async def test_an_invitation_that_nobody_could_use_is_not_made(
    world: AccountsWorld, node: AccountsNode, admin: Principal
) -> None:
    await node.register(email=ANN)
    with pytest.raises(Conflict):
        await node.users.invite(admin, "ANN@example.com", Role.MEMBER)
    closed = await world.node("closed")
    with pytest.raises(Conflict):
        await closed.users.invite(admin, None, Role.MEMBER)
    assert await listed(node, admin) == []


async def test_an_agents_key_ends_with_its_makers_role_or_account(
    world: AccountsWorld, node: AccountsNode, owner: Principal, admin: Principal
) -> None:
    key = (await node.keys.create(admin, "bot", "agent", Role.MEMBER, None))["key"]
    _, outlet = await node.connect(key)
    users = node.users

    async def demote(back: bool) -> None:
        await users.set_role(owner, admin.user, Role.ADMIN if back else Role.TECHNICIAN)

    async def disable(back: bool) -> None:
        await (users.enable if back else users.disable)(owner, admin.user)

    for change in (demote, disable):
        await change(False)
        await node.authenticator.review()
        assert outlet.closing == "revoked"
        with pytest.raises(Unauthenticated):
            await node.authenticator.authenticate(key, HOME.remote)
        await change(True)
        world.clock.turn(20)
        await world.turn(0)
        await node.authenticator.authenticate(key, HOME.remote)


async def test_a_key_makes_no_key_and_takes_no_account(
    node: AccountsNode, admin: Principal
) -> None:
    bob = await node.register("Bob")
    made = await node.keys.create(admin, "script", "user", Role.ADMIN, None)
    key = await node.authenticator.authenticate(made["key"], HOME.remote)
    with pytest.raises(Forbidden):
        await node.keys.create(key, "more", "agent", Role.MEMBER, None)
    with pytest.raises(Forbidden):
        await node.accounts.update(key, {}, password=NEW_PASSWORD, current_password=PASSWORD)
    with pytest.raises(Forbidden):
        await node.sessions.end(key, admin.session)
    with pytest.raises(Forbidden):
        await node.sessions.end_everywhere(key)
    with pytest.raises(Forbidden):
        await node.users.reset_link(key, bob["user"]["id"])
    await node.accounts.update(key, {"name": "Adam II"})


async def test_a_key_appoints_nobody_who_makes_keys(
    node: AccountsNode, owner: Principal, admin: Principal
) -> None:
    bob = (await node.register("Bob"))["user"]["id"]
    made = await node.keys.create(owner, "script", "user", Role.OWNER, None)
    key = await node.authenticator.authenticate(made["key"], HOME.remote)
    for role in (Role.ADMIN, Role.OWNER):
        with pytest.raises(Forbidden):
            await node.users.set_role(key, bob, role)
    with pytest.raises(Forbidden):
        await node.users.invite(key, None, Role.ADMIN)
    await node.users.set_role(key, bob, Role.TECHNICIAN)
    await node.users.set_role(key, admin.user, Role.MEMBER)


async def test_an_invitation_made_with_a_key_ends_with_that(
    node: AccountsNode, admin: Principal
) -> None:
    made = await node.keys.create(admin, "script", "user", Role.ADMIN, None)
    key = await node.authenticator.authenticate(made["key"], HOME.remote)
    first, second = [await node.users.invite(key, None, Role.MEMBER) for _ in range(2)]
    await use(node, first)
    assert await listed(node, admin) == [second["id"]]
    await node.keys.revoke(admin, made["id"])
    with pytest.raises(Conflict):
        await use(node, second, "late@example.com")
    assert await listed(node, admin) == []


async def test_what_a_demoted_maker_made_is_not_listed(
    node: AccountsNode, owner: Principal, admin: Principal
) -> None:
    await node.users.invite(admin, None, Role.MEMBER)
    mine = await node.users.invite(owner, None, Role.ADMIN)
    await node.users.set_role(owner, admin.user, Role.TECHNICIAN)
    assert await listed(node, owner) == [mine["id"]]


async def test_keys_end_by_themselves_and_show_when_they_were_used(
    world: AccountsWorld, node: AccountsNode, admin: Principal
) -> None:
    made = await node.keys.create(admin, "bot", "agent", Role.MEMBER, None)
    TypeAdapter(ApiKey).validate_python(made, strict=True)
    assert made["last_used_at"] is None
    for_ever = await node.keys.create(admin, "bot", "agent", Role.MEMBER, None, endless=True)
    assert for_ever["expires_at"] is None
    await world.turn(100)
    for each in (made, for_ever):
        await node.authenticator.authenticate(each["key"], HOME.remote)
    page = await node.keys.list(admin, cursor=None, limit=50)
    assert all((each["last_used_at"] or "") > each["created_at"] for each in page["items"])
    await world.turn(KEY_TTL)
    await node.authenticator.authenticate(for_ever["key"], HOME.remote)
    with pytest.raises(Unauthenticated):
        await node.authenticator.authenticate(made["key"], HOME.remote)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_new_password_ends_the_users_keys_unless_told_otherwise(
    node: AccountsNode, owner: Principal, keep: bool
) -> None:
    tokens = await node.register(email=ANN)
    ann = await node.principal(tokens)
    await node.users.set_role(owner, ann.user, Role.ADMIN)
    ann = await node.principal(tokens)
    mine = (await node.keys.create(ann, "script", "user", Role.MEMBER, None))["key"]
    bots = (await node.keys.create(ann, "bot", "agent", Role.MEMBER, None))["key"]
    await node.accounts.update(
        ann, {}, password=NEW_PASSWORD, current_password=PASSWORD, keep_keys=keep
    )
    await node.authenticator.authenticate(bots, HOME.remote)
    if keep:
        await node.authenticator.authenticate(mine, HOME.remote)
    else:
        with pytest.raises(Unauthenticated):
            await node.authenticator.authenticate(mine, HOME.remote)


async def test_a_key_made_while_the_session_is_ended_ends_with_it(
    node: AccountsNode, admin: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = node.session_repository.add_key

    async def end_first(*key: Any) -> None:
        await node.sessions.end_all(admin.org, admin.user)
        await node.sessions.end_keys(admin.org, admin.user)
        await add(*key)

    monkeypatch.setattr(node.session_repository, "add_key", end_first)
    with pytest.raises(Unauthenticated):
        await node.keys.create(admin, "thief", "user", Role.ADMIN, None)
    now = timestamp(node.clock.now())
    assert await node.session_repository.keys_made_by(admin.org, admin.user, now) == []


async def test_a_reset_link_gives_a_new_password_once(
    world: AccountsWorld, node: AccountsNode, admin: Principal
) -> None:
    before = await node.register(email=ANN)
    user = before["user"]["id"]
    for _ in range(MOST_IN_A_ROW):
        with pytest.raises(Unauthenticated):
            await node.login(ANN, "Wrong 2 word guess", AWAY)
    old = await node.users.reset_link(admin, user)
    link = await node.users.reset_link(admin, user)
    TypeAdapter(PasswordReset).validate_python(link, strict=True)
    assert link["token"] not in str(await world.engine.find("default", RESETS, {}))
    with pytest.raises(Invalid):
        await node.accounts.reset(link["token"], "short", AWAY)
    for wrong in (old["token"], link["token"][:-2], "pr_", ""):
        with pytest.raises(Unauthenticated):
            await node.accounts.reset(wrong, NEW_PASSWORD, AWAY)
    await node.accounts.reset(link["token"], NEW_PASSWORD, AWAY)
    with pytest.raises(Unauthenticated):
        await node.accounts.reset(link["token"], "Another 4 good words", AWAY)
    with pytest.raises(Unauthenticated):
        await node.principal(before)
    await node.login(ANN, NEW_PASSWORD, AWAY)
    with pytest.raises(Unauthenticated):
        await node.login(ANN, PASSWORD, HOME)


async def test_a_reset_link_ends_when_its_owner_sets_a_password(
    node: AccountsNode, admin: Principal
) -> None:
    ann = await node.register(email=ANN)
    link = await node.users.reset_link(admin, ann["user"]["id"])
    me = await node.principal(ann)
    await node.accounts.update(me, {}, password=NEW_PASSWORD, current_password=PASSWORD)
    with pytest.raises(Unauthenticated):
        await node.accounts.reset(link["token"], "Another 4 good words", AWAY)


async def test_a_reset_link_ends_by_itself_and_with_its_maker(
    world: AccountsWorld, node: AccountsNode, owner: Principal, admin: Principal
) -> None:
    user = (await node.register(email=ANN))["user"]["id"]
    link = await node.users.reset_link(admin, user)
    await node.users.set_role(owner, admin.user, Role.MEMBER)
    with pytest.raises(Unauthenticated):
        await node.accounts.reset(link["token"], NEW_PASSWORD, HOME)
    link = await node.users.reset_link(owner, user)
    await world.turn(RESET_TTL)
    with pytest.raises(Unauthenticated):
        await node.accounts.reset(link["token"], NEW_PASSWORD, HOME)
    await node.sessions.trim()


async def test_nobody_resets_those_who_are_not_below(
    node: AccountsNode, owner: Principal, admin: Principal
) -> None:
    eve, _ = await node.somebody(Role.OWNER, "Eve", "other")
    with pytest.raises(Forbidden):
        await node.users.reset_link(admin, owner.user)
    with pytest.raises(NotFound):
        await node.users.reset_link(eve, admin.user)
