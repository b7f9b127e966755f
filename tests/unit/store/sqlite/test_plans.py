"""What lists ask is answered by an index alone, without sorting."""

import sqlite3
from pathlib import Path
from typing import Any, cast

import pytest

from domain.clock import SystemClock
from server.features import COLLECTIONS
from store.accounts.contacts import CONTACTS
from store.accounts.sessions import SESSIONS
from store.engine import Collection, Filter, Index, Is
from store.messaging.conversations import CONVERSATIONS, MEMBERS
from store.messaging.messages import HIDDEN, MESSAGES, PINS
from store.messaging.receipts import POSITIONS, RECEIPTS
from store.messaging.unread import MENTIONS
from store.sqlite import SqliteEngine, query
from store.sqlite.tables import Table
from store.uploads.uploads import LINKS
from tests.support import plans

BEHIND = {"conversation": "c", "seq": Is(">", 1), "sender": Is("!=", "u"), "deleted_at": None}

LISTS: tuple[tuple[Collection, Filter, tuple[str, ...]], ...] = (
    (MESSAGES, {"conversation": "c", "seq": Is(">", 1)}, ("-seq", "-id")),
    (MESSAGES, {"conversation": "c", "seq": Is("<", 9)}, ("seq", "id")),
    (MESSAGES, BEHIND, ("seq", "id")),
    (MEMBERS, {"user": "u"}, ("conversation",)),
    (MEMBERS, {"conversation": "c"}, ("joined_at", "id")),
    (CONVERSATIONS, {"kind": "channel"}, ("id",)),
    (PINS, {"conversation": "c"}, ("-pinned_at", "-id")),
    (HIDDEN, {"user": "u", "conversation": "c"}, ("-seq", "-id")),
    (LINKS, {"upload": "u", "withdrawn_at": None, "id": Is(">", "u:c")}, ("id",)),
    (MENTIONS, {"conversation": "c", "user": "u"}, ("seq", "id")),
    (POSITIONS, {"conversation": "c"}, ("user",)),
    (RECEIPTS, {"conversation": "c", "user": "u", "kind": "read"}, ("seq", "id")),
)


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    path = tmp_path / "parley.db"
    engine = SqliteEngine(path, COLLECTIONS, clock=SystemClock())
    await engine.start()
    await engine.stop()
    return path


def plan(path: Path, collection: Collection, where: Filter, order: tuple[str, ...]) -> str:
    table = Table(collection)
    filtered = query.condition(table, where)
    picked = "t.id" if where is BEHIND else "t._doc"
    sql = (
        f"EXPLAIN QUERY PLAN SELECT {picked} FROM {table.name} AS t WHERE t._org = ?"
        f"{filtered.text}{query.order_by(table, query.order_of(table, order))}"
    )
    db = sqlite3.connect(path)
    try:
        return " / ".join(row[3] for row in db.execute(sql, ["o", *filtered.params]))
    finally:
        db.close()


@pytest.mark.parametrize("asked", LISTS, ids=lambda asked: f"{asked[0].name} {asked[2]}")
async def test_no_list_is_sorted_by_itself_or_read_without_an_index(
    file: Path, asked: tuple[Collection, Filter, tuple[str, ...]]
) -> None:
    found = plan(file, *asked)
    assert "TEMP B-TREE" not in found, found
    assert "INDEX" in found, found
    assert "SCAN" not in found, found


async def test_a_statement_that_no_index_answers_fails_the_test_that_met_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "_seen", set())
    monkeypatch.setattr(plans, "_slow", [])
    engine = SqliteEngine(file, COLLECTIONS, clock=SystemClock())
    slow: list[tuple[Collection, Filter, tuple[str, ...]]] = [
        (MEMBERS, {"conversation": "c"}, ("user", "id")),  # sorted
        (MESSAGES, {"created_at": "2026"}, ("id",)),  # all of the organization
        (SESSIONS, {"expires_at": Is(">", "2026")}, ("-id",)),  # not what it declares
    ]
    quick: list[tuple[Collection, Filter, tuple[str, ...]]] = [
        (SESSIONS, {"user": "u", "revoked_at": None, "expires_at": Is(">", "")}, ("-id",)),
        (CONTACTS, {"owner": "u"}, ("user", "id")),
        *LISTS,
    ]
    with plans.explained():
        await engine.start()
        for collection, where, order in quick:
            await engine.find("o", collection, where, order=order)
    for collection, where, order in slow:
        with pytest.raises(AssertionError, match=f"c_{collection.name}"), plans.explained():
            # the readers were opened before: they look at plans for good
            await engine.find("o", collection, where, order=order)
    await engine.stop()


@pytest.mark.parametrize("order", [("due",), ("-due",), ("due", "id")])
@pytest.mark.parametrize("after", [None, (5, "t", "o"), (None, "t", "o")])
async def test_what_is_found_of_all_organizations_in_order_is_not_sorted(
    tmp_path: Path, order: tuple[str, ...], after: tuple[object, ...] | None, monkeypatch: Any
) -> None:
    timers = Collection(
        "timers",
        indexes=(
            Index(("due",), any_org=True, ordered=True),
            Index(("state", "due"), any_org=True, ordered=True),
        ),
    )
    monkeypatch.setattr(plans, "_seen", set())
    monkeypatch.setitem(plans._COLLECTIONS, "timers", timers)
    engine = SqliteEngine(tmp_path / "timers.db", (timers,), clock=SystemClock())
    with plans.explained():
        await engine.start()
        wheres: list[Filter] = [{"due": Is("<=", 9)}, {"state": "s", "due": Is("<=", 9)}]
        for where in wheres:
            await engine.find_any_org(timers, where, order=order, after=cast(Any, after))
    await engine.stop()


async def test_what_has_a_string_is_found_and_sorted_by_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = Collection(
        "things",
        indexes=(Index(("state", "tags", "at")), Index(("tags", "owner"))),
        sets=("tags",),
    )
    monkeypatch.setattr(plans, "_slow", [])
    monkeypatch.setattr(plans, "_seen", set())
    monkeypatch.setitem(plans._COLLECTIONS, "things", things)
    engine = SqliteEngine(tmp_path / "things.db", (things,), clock=SystemClock())
    has = {"tags": Is("has", "x")}
    both = {"tags": (Is("has", "x"), Is("has", "y"))}
    quick: list[tuple[Filter, tuple[str, ...]]] = [
        (has, ("id",)),
        (both, ("id",)),
        ({**has, "state": "open"}, ("at",)),
        ({**has, "state": "open"}, ("-at",)),
        ({**has, "owner": "o"}, ("id",)),
        (has, ("owner", "id")),
    ]
    with plans.explained():
        await engine.start()
        for where, order in quick:
            await engine.find("o", things, where, order=order)
            await engine.find(
                "o", things, where, order=order, after=["1"] * (len(order) + ("id" not in order))
            )
            await engine.count("o", things, where)
        await engine.count_by("o", things, "owner", has)
        await engine.delete("o", things, both)
    with pytest.raises(AssertionError, match="c_things"), plans.explained():
        await engine.find("o", things, has, order=("at",))
    await engine.stop()


async def test_counting_by_a_value_reads_an_index_in_its_order(file: Path) -> None:
    engine = SqliteEngine(file, COLLECTIONS, clock=SystemClock())
    with plans.explained():
        await engine.start()
        await engine.count_by("o", CONVERSATIONS, "kind", {})
        await engine.count_groups("o", POSITIONS, ("conversation", "user"), {})
        await engine.count_by("o", POSITIONS, "user", {"conversation": "c"})
    await engine.stop()


async def test_what_is_unread_is_counted_in_the_index_alone(file: Path) -> None:
    assert "COVERING INDEX" in plan(file, MESSAGES, BEHIND, ("seq", "id"))
