"""How many there may be of something is not exceeded by those who come at the same moment, on one
node or on several.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from actions.accounts.contacts import Contacts
from actions.accounts.hashing import PasswordHasher
from actions.messaging.reactions import Reactions
from domain.clock import SystemClock
from domain.errors import Conflict, ParleyError, TooLarge, Unauthenticated, Unavailable
from domain.messaging.conversations import Kind
from domain.principals import Principal, Role
from store.accounts import accounts
from store.accounts.accounts import USERS, AccountRepository
from store.accounts.contacts import ContactRepository
from store.engine import Engine
from store.messaging.conversations import CONVERSATIONS, MEMBERS
from store.messaging.messages import MESSAGES, PINS
from store.messaging.places import PLACES
from store.messaging.reactions import ReactionRepository
from store.uploads.uploads import UploadRepository
from tests.support.accounts import COLLECTIONS as ACCOUNTS
from tests.support.accounts import HOME, AccountsNode, AccountsWorld
from tests.support.local import TurnedClock
from tests.support.messaging import COLLECTIONS, MessagingWorld
from tests.support.stores import Stores

CAP = 4

Call = Callable[[], Awaitable[object]]


@pytest.fixture
async def engines(stores: Stores) -> list[Engine]:
    """Those of two nodes: two engines, where several may have the same data."""
    first = await stores.start((*COLLECTIONS, *accounts.COLLECTIONS))
    if not first.shared:
        return [first, first]
    return [first, await stores.start((*COLLECTIONS, *accounts.COLLECTIONS))]


@pytest.fixture
def nodes(engines: list[Engine]) -> list[MessagingWorld]:
    here, there = [MessagingWorld(each, TurnedClock()) for each in engines]
    there.people.users = here.people.users
    return [here, there]


async def at_once(calls: list[Call]) -> int:
    """How many of the calls succeed; the others are refused in a way that says so."""
    done = await asyncio.gather(*(each() for each in calls), return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException) and not isinstance(each, ParleyError):
            raise each
        assert not isinstance(each, ParleyError) or isinstance(
            each, (TooLarge, Conflict, Unavailable)
        )
    return sum(not isinstance(each, ParleyError) for each in done)


@pytest.mark.parametrize("kind", [Kind.GROUP, Kind.CHANNEL])
async def test_members(
    nodes: list[MessagingWorld], kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actions.messaging.members.MAX_GROUP_MEMBERS", CAP)
    monkeypatch.setattr("actions.messaging.members.MAX_CHANNEL_MEMBERS", CAP)
    ann = nodes[0].user("ann")
    room = (await nodes[0].open(ann, kind=kind, title="a"))["id"]

    def add(number: int) -> Call:
        node = nodes[number % 2]
        who = node.user(f"u{number}")
        if kind is Kind.CHANNEL:
            return lambda: node.members.join(who, room)
        return lambda: node.members.add(ann, room, who.user)

    done = await at_once([add(number) for number in range(2 * CAP)])
    there = await nodes[0].engine.count("org", MEMBERS, {"conversation": room})
    assert done + 1 == there == CAP
    doc = await nodes[0].engine.get("org", CONVERSATIONS, room)
    assert doc is not None
    assert doc["size"] == CAP


async def test_conversations_of_a_user(
    nodes: list[MessagingWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.messaging.conversations.MAX_CONVERSATIONS", CAP)
    bob = nodes[0].user("bob")
    hosts = [nodes[0].user(f"u{number}") for number in range(2 * CAP)]
    rooms = [(await nodes[0].open(each, kind=Kind.CHANNEL))["id"] for each in hosts]

    def come(number: int) -> Call:
        node, host = nodes[number % 2], hosts[number]
        match number % 3:
            case 0:
                return lambda: node.members.join(bob, rooms[number])
            case 1:
                return lambda: node.members.add(host, rooms[number], "bob")
            case _:
                return lambda: node.open(host, bob)

    async def there() -> int:
        return await nodes[0].engine.count("org", MEMBERS, {"user": "bob"})

    calls = [come(number) for number in range(2 * CAP)]
    await at_once(calls)
    assert await there() <= CAP
    # What is left is there for whoever comes next.
    for each in calls:
        await at_once([each])
    assert await there() == CAP
    # A node that died on its way in keeps no place for ever.
    mine = await nodes[0].conversation_store.of_user("org", "bob")
    left = next(each for each in rooms if each in mine)
    await nodes[0].members.leave(bob, left)
    await nodes[0].engine.update("org", PLACES, "bob", inc={"coming": 1})
    assert await at_once([lambda: nodes[0].members.join(bob, left)]) == 0
    nodes[0].clock.turn(61.0)
    assert await at_once([lambda: nodes[0].members.join(bob, left)]) == 1


async def test_pins(nodes: list[MessagingWorld], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("actions.messaging.pins", "actions.messaging.messages"):
        monkeypatch.setattr(f"{module}.MAX_PINS", CAP)
    ann = nodes[0].user("ann")
    room = (await nodes[0].open(ann))["id"]
    engine = nodes[0].engine
    sent = [(await nodes[0].send(ann, room, f"m{n}"))["id"] for n in range(2 * CAP)]

    def pin(number: int) -> Call:
        node, message = nodes[number % 2], sent[number]
        return lambda: node.pins.add(ann, message)

    async def pinned() -> set[str]:
        docs = await engine.find("org", PINS, {"conversation": room}, order=("pinned_at",))
        room_doc = await engine.get("org", CONVERSATIONS, room)
        assert room_doc is not None
        assert room_doc["pins"] == len(docs)
        messages = await engine.get_many("org", MESSAGES, sent)
        assert {id for id in sent if messages[id]["pinned_at"]} == {each["id"] for each in docs}
        return {each["id"] for each in docs}

    assert await at_once([pin(number) for number in range(2 * CAP)]) == len(await pinned()) == CAP
    # One that goes, by its pin or with its message, makes room for one.
    first, second, *_ = sorted(await pinned())
    free = [number for number, id in enumerate(sent) if id not in await pinned()]
    await asyncio.gather(nodes[0].pins.remove(ann, first), nodes[1].messages.delete(ann, second))
    assert len(await pinned()) == CAP - 2
    assert await at_once([pin(number) for number in free]) == 2
    assert len(await pinned()) == CAP


async def test_pins_that_were_there_before_they_were_counted(
    nodes: list[MessagingWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = nodes[0].user("ann")
    room = (await nodes[0].open(ann))["id"]
    sent = [(await nodes[0].send(ann, room, f"m{n}"))["id"] for n in range(CAP)]
    count = nodes[0].message_store.pins

    async def uncounted(*args: Any) -> Any:
        guard, change = await count(*args)
        return guard._replace(where={}), change._replace(set={"title": "b"}, inc={})

    monkeypatch.setattr(nodes[0].message_store, "pins", uncounted)
    for each in sent[:2]:
        await nodes[0].pins.add(ann, each)
    monkeypatch.undo()
    doc = await nodes[0].engine.get("org", CONVERSATIONS, room)
    assert doc is not None
    assert "pins" not in doc
    await asyncio.gather(nodes[0].messages.delete(ann, sent[0]), nodes[1].pins.add(ann, sent[2]))
    doc = await nodes[0].engine.get("org", CONVERSATIONS, room)
    assert doc is not None
    assert doc["pins"] == 2


async def test_kinds_of_reactions(
    nodes: list[MessagingWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actions.messaging.reactions.MAX_KINDS", CAP)
    ann = nodes[0].user("ann")
    room = (await nodes[0].open(ann))["id"]
    message = (await nodes[0].send(ann, room, "m"))["id"]
    reacting = [
        Reactions(
            ReactionRepository(node.engine),
            node.messages,
            node.memberships,
            node.ledger,
            node.clock,
        )
        for node in nodes
    ]

    def react(number: int) -> Call:
        return lambda: reacting[number % 2].add(ann, message, f":kind_{number}:")

    done = await at_once([react(number) for number in range(2 * CAP)])
    counts, _ = await ReactionRepository(nodes[0].engine).counted("org", message)
    assert done == len(counts) == CAP


@pytest.mark.parametrize("what", ["contacts", "blocks"])
async def test_contacts_and_blocks(
    engines: list[Engine], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actions.accounts.contacts.MAX_CONTACTS", CAP)
    monkeypatch.setattr("actions.accounts.contacts.MAX_BLOCKS", CAP)
    nodes = [
        Contacts(ContactRepository(each), AccountRepository(each), SystemClock())
        for each in engines
    ]
    ann = Principal("ann", "org", Role.MEMBER, "s", 4e9)
    for number in range(2 * CAP):
        user = {"id": f"u{number}", "name": "U", "email": f"u{number}@example.com", "avatar": None}
        await engines[0].insert("org", USERS, {**user, "role": "member", "disabled_at": None})

    def add(number: int) -> Call:
        node, user = nodes[number % 2], f"u{number}"
        if what == "contacts":
            return lambda: node.add(ann, user)
        return lambda: node.block(ann, user)

    async def there() -> int:
        kept = ContactRepository(engines[0])
        count = kept.count_contacts if what == "contacts" else kept.count_blocks
        return await count("org", "ann")

    done = await at_once([add(number) for number in range(2 * CAP)])
    assert done == await there() <= CAP
    # What is left is there for whoever comes next.
    for number in range(2 * CAP):
        await at_once([add(number)])
    assert await there() == CAP


async def test_the_quota_of_uploads(engines: list[Engine]) -> None:
    repositories = [UploadRepository(each) for each in engines]
    for number in range(2 * CAP):
        doc = {"id": f"f{number}", "owner": "ann", "state": "receiving", "size": 0}
        await repositories[0].begin("org", {**doc, "touched_at": "", "created_at": ""})

    async def reserve(number: int) -> None:
        store = repositories[number % 2]
        if not await store.reserve("org", "ann", f"f{number}", 10, "2026", 10 * CAP):
            raise TooLarge("quota")

    assert await at_once([partial(reserve, number) for number in range(2 * CAP)]) == CAP
    assert await repositories[0].used("org", "ann") == 10 * CAP


async def test_sessions(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domain.accounts.accounts.MAX_SESSIONS", CAP)
    hasher = PasswordHasher(4)
    world = AccountsWorld(await stores.start(ACCOUNTS), TurnedClock(), hasher)
    nodes = [await world.node() for _ in range(2)]
    await nodes[0].register()
    logins = [partial(nodes[number % 2].login, "ann@example.com") for number in range(2 * CAP)]
    tokens = await asyncio.gather(*(each() for each in logins))
    hasher.close()
    alive = 0
    for each in tokens:
        try:
            await nodes[0].sessions.refresh(each["refresh_token"], HOME)
        except Unauthenticated:
            continue
        alive += 1
    # Each login is let in, and the oldest end: as many as there may be are left.
    assert alive == CAP


async def given(nodes: list[AccountsNode], what: str, owner: Principal) -> int:
    if what == "invitations":
        return len((await nodes[0].users.invites(owner, cursor=None, limit=200))["items"])
    return len((await nodes[0].keys.list(owner, cursor=None, limit=200))["items"])


@pytest.mark.parametrize("what", ["invitations", "keys"])
async def test_invitations_and_keys(
    stores: Stores, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actions.accounts.users.MAX_INVITES", CAP)
    monkeypatch.setattr("actions.accounts.api_keys.MAX_KEYS", CAP)
    hasher = PasswordHasher(4)
    world = AccountsWorld(await stores.start(ACCOUNTS), TurnedClock(), hasher)
    nodes = [await world.node() for _ in range(2)]
    owner, other = [(await nodes[0].somebody(Role.OWNER, name))[0] for name in ("ann", "bob")]

    def make(number: int, who: Principal = owner) -> Call:
        node = nodes[number % 2]
        if what == "invitations":
            return lambda: node.users.invite(who, None, Role.MEMBER)
        ttl = 60.0 if who is owner else None
        return lambda: node.keys.create(who, "k", "agent", Role.MEMBER, ttl, endless=ttl is None)

    done = await at_once([make(number) for number in range(2 * CAP)])
    assert done == await given(nodes, what, owner) <= CAP
    for number in range(2 * CAP):
        await at_once([make(number)])
    assert await given(nodes, what, owner) == CAP
    # Another's do not count; nor do those that were taken back, or have ended.
    assert await at_once([make(0, other)]) == 1
    if what == "invitations":
        page = await nodes[0].users.invites(owner, cursor=None, limit=200)
        last = next(each for each in page["items"] if each["created_by"] == owner.user)
        await nodes[0].users.revoke_invite(owner, last["id"])
    else:
        keys = await nodes[0].keys.list(owner, cursor=None, limit=200)
        last_key = next(each for each in keys["items"] if each["created_by"] == owner.user)
        await nodes[0].keys.revoke(owner, last_key["id"])
    assert await at_once([make(0)]) == 1
    assert await at_once([make(0)]) == 0
    world.clock.turn(8 * 86_400)
    assert await at_once([make(1)]) == 1
    hasher.close()
