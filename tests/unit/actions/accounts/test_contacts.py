"""Contacts and blocks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actions.accounts import contacts as actions
from actions.accounts.contacts import Contacts
from domain.accounts.contacts import Contact
from domain.clock import SystemClock, timestamp
from domain.errors import Invalid, NotFound, TooLarge
from domain.pages import Page
from domain.principals import Principal, Role
from store.accounts import accounts
from store.accounts.accounts import AccountRepository
from store.accounts.contacts import COLLECTIONS, ContactRepository, unblocked
from store.engine import Append, Document, GuardFailed, NewEvent
from store.sqlite import SqliteEngine

NAMES = {
    "ada": "Ada Lovelace",
    "bob": "Bob Marley",
    "cid": "Cíd Ångström",
    "dan": "dan brown",
    "eve": "Eve",
}


def user(name: str, org: str = "default") -> Principal:
    return Principal(name, org, Role.MEMBER, "s1", 2e9)


ADA, BOB = user("ada"), user("bob")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SqliteEngine]:
    clock = SystemClock()
    engine = SqliteEngine(tmp_path / "test.db", (*COLLECTIONS, *accounts.COLLECTIONS), clock=clock)
    await engine.start()
    for name, full in NAMES.items():
        await add_user(engine, "default", name, full)
    await add_user(engine, "elsewhere", "zoe", "Zoe")
    yield engine
    await engine.stop()


async def add_user(engine: SqliteEngine, org: str, id: str, name: str) -> None:
    doc: Document = {
        "id": id,
        "email": f"{id}@example.com",
        "name": name,
        "role": "member",
        "avatar": None,
        "settings": {},
        "password": None,
        "password_at": None,
        "created_at": timestamp(0),
        "disabled_at": None,
    }
    await AccountRepository(engine).add_user(org, doc)


@pytest.fixture
async def repository(engine: SqliteEngine) -> ContactRepository:
    return ContactRepository(engine)


@pytest.fixture
async def contacts(engine: SqliteEngine, repository: ContactRepository) -> Contacts:
    return Contacts(repository, AccountRepository(engine), SystemClock())


async def listed(
    contacts: Contacts, who: Principal = ADA, *, q: str | None = None, blocked: bool = False
) -> list[str]:
    page = await contacts.list(who, q, blocked, None, 50)
    assert page["next"] is None
    return [each["user"] for each in page["items"]]


async def test_adding_and_removing(contacts: Contacts) -> None:
    added = await contacts.add(ADA, "bob")
    assert added == {
        "user": "bob",
        "name": "Bob Marley",
        "avatar": None,
        "disabled": False,
        "added_at": added["added_at"],
        "blocked": False,
    }
    assert added["added_at"] is not None
    assert await contacts.add(ADA, "bob") == added
    assert await listed(contacts) == ["bob"]
    assert await listed(contacts, BOB) == []
    assert (await contacts.remove(ADA, "bob"))["added_at"] is None
    assert (await contacts.remove(ADA, "bob"))["added_at"] is None
    assert await listed(contacts) == []


async def test_only_users_of_the_organization_and_not_oneself(contacts: Contacts) -> None:
    for call in (contacts.add, contacts.remove, contacts.block, contacts.unblock):
        for unknown in ("zoe", "nobody", "", "bob:ada"):
            with pytest.raises(NotFound):
                await call(ADA, unknown)
        with pytest.raises(Invalid):
            await call(ADA, "ada")


async def test_contacts_come_by_name_in_pages(contacts: Contacts) -> None:
    for name in ("eve", "dan", "cid", "bob"):
        await contacts.add(ADA, name)
    assert await listed(contacts) == ["bob", "cid", "dan", "eve"]
    seen: list[str] = []
    page: Page[Contact] = {"items": [], "next": None}
    while page["next"] is not None or not seen:
        page = await contacts.list(ADA, None, False, page["next"], 3)
        seen += [each["user"] for each in page["items"]]
    assert seen == ["bob", "cid", "dan", "eve"]
    with pytest.raises(Invalid):
        await contacts.list(ADA, None, False, "bm9uc2Vuc2U", 3)


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("", ["bob", "cid", "dan", "eve"]),
        ("b", ["bob", "dan"]),
        ("BROWN", ["dan"]),
        ("ang", ["cid"]),
        ("ångs cid", ["cid"]),
        ("marley bob", ["bob"]),
        ("arley", []),
        ("bob brown", []),
        ("%", ["bob", "cid", "dan", "eve"]),
        ("nobody", []),
    ],
)
async def test_search_by_the_words_of_the_name(
    contacts: Contacts, q: str, found: list[str]
) -> None:
    for name in ("eve", "dan", "cid", "bob"):
        await contacts.add(ADA, name)
    assert await listed(contacts, q=q) == found


async def test_blocking_and_lifting_the_block(
    contacts: Contacts, repository: ContactRepository
) -> None:
    await contacts.add(ADA, "bob")
    assert (await contacts.block(ADA, "bob"))["blocked"]
    assert (await contacts.block(ADA, "bob"))["blocked"]
    assert (await contacts.block(ADA, "eve"))["added_at"] is None
    assert await listed(contacts, blocked=True) == ["bob", "eve"]
    assert await listed(contacts, q="e", blocked=True) == ["eve"]
    assert await listed(contacts) == ["bob"]
    assert await repository.is_blocked("default", "ada", "bob")
    assert not await repository.is_blocked("default", "bob", "ada")
    assert not await repository.is_blocked("elsewhere", "ada", "bob")
    # The other one sees nothing of it.
    assert not (await contacts.add(BOB, "ada"))["blocked"]
    assert await listed(contacts, BOB, blocked=True) == []
    assert not (await contacts.unblock(ADA, "bob"))["blocked"]
    assert not (await contacts.unblock(ADA, "bob"))["blocked"]
    assert await listed(contacts, blocked=True) == ["eve"]


async def test_the_guard_holds_while_there_is_no_block(
    contacts: Contacts, engine: SqliteEngine
) -> None:
    async def send() -> None:
        at = timestamp(0)
        events = [NewEvent("message.created", {})]
        guards = [unblocked("ada", "bob")]
        await engine.append(Append("default", "messages/c1", BOB.actor, at, events, guards=guards))

    await send()
    await contacts.block(ADA, "bob")
    with pytest.raises(GuardFailed):
        await send()
    await contacts.unblock(ADA, "bob")
    await send()


async def test_there_is_a_limit(contacts: Contacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MAX_CONTACTS", 2)
    monkeypatch.setattr(actions, "MAX_BLOCKS", 1)
    await contacts.add(ADA, "bob")
    await contacts.add(ADA, "cid")
    await contacts.add(ADA, "bob")
    with pytest.raises(TooLarge):
        await contacts.add(ADA, "dan")
    await contacts.block(ADA, "bob")
    await contacts.block(ADA, "bob")
    with pytest.raises(TooLarge):
        await contacts.block(ADA, "cid")
