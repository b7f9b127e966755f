"""Finding people, administering them, and what nobody sees of another organization."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from domain.accounts.accounts import User
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.principals import Principal, Role
from tests.support.accounts import HOME, AccountsNode, AccountsWorld, accounts_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccountsWorld]:
    async with accounts_world(tmp_path) as made:
        yield made


@pytest.fixture
async def node(world: AccountsWorld) -> AccountsNode:
    return await world.node()


async def names(node: AccountsNode, who: Principal, text: str) -> list[str]:
    found = await node.users.search(who, text, cursor=None, limit=50)
    for each in found["items"]:
        TypeAdapter(User).validate_python(each, strict=True)
    return sorted(each["name"] for each in found["items"])


@pytest.fixture
async def people(node: AccountsNode) -> dict[str, Principal]:
    """One of each role, and some to find."""
    for name, address in (
        ("Zoë Smith", "zoe@example.com"),
        ("Anna Smith", "smithy@example.com"),
        ("Smilla Jensen", "snow@example.com"),
    ):
        await node.accounts.register(address, "Kestrel over 7 weirs", name, None, HOME)
    return {
        role.value: (await node.somebody(role, role.value.title()))[0]
        for role in (Role.OWNER, Role.ADMIN, Role.TECHNICIAN, Role.MEMBER, Role.GUEST)
    }


async def test_people_are_found_by_the_beginnings_of_their_names(
    node: AccountsNode, people: dict[str, Principal]
) -> None:
    member = people["member"]
    assert await names(node, member, "smi") == ["Anna Smith", "Smilla Jensen", "Zoë Smith"]
    assert await names(node, member, "ZOE") == ["Zoë Smith"]
    assert await names(node, member, "anna smith") == ["Anna Smith"]
    assert await names(node, member, "mith") == []
    assert len(await names(node, member, "  ")) == 8


async def test_members_see_no_addresses_and_find_by_whole_ones_only(
    node: AccountsNode, people: dict[str, Principal]
) -> None:
    member = people["member"]
    assert await names(node, member, "snow") == []
    assert await names(node, member, "snow@example") == []
    found = await node.users.search(member, "SNOW@example.com", cursor=None, limit=50)
    assert [each["name"] for each in found["items"]] == ["Smilla Jensen"]
    assert "email" not in found["items"][0]
    everybody = await node.users.search(member, "", cursor=None, limit=50)
    shown = [each for each in everybody["items"] if "email" in each]
    assert [each["id"] for each in shown] == [member.user]


async def test_technicians_see_addresses_and_find_by_their_beginning(
    node: AccountsNode, people: dict[str, Principal]
) -> None:
    found = await node.users.search(people["technician"], "snow", cursor=None, limit=50)
    assert [each["email"] for each in found["items"]] == ["snow@example.com"]
    assert await names(node, people["technician"], "smith") == ["Anna Smith", "Zoë Smith"]


async def test_pages_show_everybody_once(node: AccountsNode, people: dict[str, Principal]) -> None:
    for text, count in (("", 8), ("smi", 3)):
        seen: list[str] = []
        cursor = None
        while True:
            page = await node.users.search(people["admin"], text, cursor=cursor, limit=2)
            assert 0 < len(page["items"]) <= 2
            seen += [each["id"] for each in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == count
        assert seen == sorted(seen, reverse=True)
    for bad in ("x", "e30", "a" * 100):
        with pytest.raises(Invalid):
            await node.users.search(people["admin"], "", cursor=bad, limit=2)


async def test_nothing_crosses_an_organization(node: AccountsNode) -> None:
    ann, _ = await node.somebody(Role.OWNER, "Ann", "one")
    bob, _ = await node.somebody(Role.OWNER, "Bob", "two")
    assert await names(node, ann, "") == ["Ann"]
    assert await names(node, ann, "bob") == []
    assert await names(node, ann, "bob@two.example.com") == []
    for attempt in (
        node.users.get(ann, bob.user),
        node.users.disable(ann, bob.user),
        node.users.enable(ann, bob.user),
        node.users.set_role(ann, bob.user, Role.GUEST),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await node.users.get(bob, bob.user))["role"] == "owner"


async def test_administrators_manage_those_below_them(
    node: AccountsNode, people: dict[str, Principal]
) -> None:
    admin = people["admin"]
    for target in ("owner", "admin"):
        for attempt in (
            node.users.disable(admin, people[target].user),
            node.users.enable(admin, people[target].user),
            node.users.set_role(admin, people[target].user, Role.GUEST),
        ):
            with pytest.raises(Forbidden):
                await attempt
    for role in (Role.OWNER, Role.ADMIN):
        with pytest.raises(Forbidden):
            await node.users.set_role(admin, people["member"].user, role)
    view = await node.users.set_role(admin, people["member"].user, Role.TECHNICIAN)
    assert view["role"] == "technician"
    with pytest.raises(NotFound):
        await node.users.set_role(admin, "nobody", Role.GUEST)


async def test_an_organization_keeps_an_owner(
    node: AccountsNode, people: dict[str, Principal]
) -> None:
    owner = people["owner"]
    with pytest.raises(Conflict):
        await node.users.set_role(owner, owner.user, Role.ADMIN)
    with pytest.raises(Forbidden):
        await node.users.disable(owner, owner.user)
    await node.users.set_role(owner, people["member"].user, Role.OWNER)
    await node.users.set_role(owner, owner.user, Role.ADMIN)
    new = await node.users.get(owner, people["member"].user)
    assert new["role"] == "owner"


@pytest.mark.parametrize("how", ["role", "disable"])
async def test_two_owners_cannot_take_it_from_each_other_at_once(
    node: AccountsNode, how: str
) -> None:
    owners = [(await node.somebody(Role.OWNER, f"O{i}", "acme"))[0] for i in range(2)]

    async def depose(by: Principal, whom: Principal) -> None:
        if how == "role":
            await node.users.set_role(by, whom.user, Role.ADMIN)
        else:
            await node.users.disable(by, whom.user)

    results = await asyncio.gather(
        depose(owners[0], owners[1]), depose(owners[1], owners[0]), return_exceptions=True
    )
    assert sum(each is None for each in results) == 1
    assert sum(isinstance(each, Conflict) for each in results) == 1
    views = [await node.users.get(owners[0], each.user) for each in owners]
    assert sum(each["role"] == "owner" and not each["disabled"] for each in views) == 1


async def test_a_disabled_owner_is_one_again_when_enabled(node: AccountsNode) -> None:
    first, second = [(await node.somebody(Role.OWNER, f"O{i}", "acme"))[0] for i in range(2)]
    await node.users.disable(first, second.user)
    with pytest.raises(Conflict):
        await node.users.set_role(first, first.user, Role.ADMIN)
    await node.users.enable(first, second.user)
    assert (await node.users.set_role(first, first.user, Role.ADMIN))["role"] == "admin"
