"""Reading messages: history with every bound, status, search, pins."""

from collections.abc import AsyncIterator, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from actions.messaging.search import Query
from domain.clock import timestamp
from domain.errors import Invalid, NotFound, TooLarge
from domain.messaging.conversations import Kind
from domain.messaging.messages import MAX_PINS
from domain.messaging.receipts import nowhere
from domain.pages import encode_cursor
from domain.principals import Principal
from store.messaging.reactions import REACTION_COUNTS
from tests.support.messaging import MessagingWorld, messaging_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MessagingWorld]:
    async with messaging_world(tmp_path) as found:
        yield found


def flat(pages: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(pages))


class Talk:
    """A conversation with 30 messages, one a minute, with gaps in their seqs."""

    def __init__(self, world: MessagingWorld, ann: Principal, id: str) -> None:
        self.world = world
        self.ann = ann
        self.id = id
        self.seqs: list[int] = []
        self.times: list[str] = []

    async def ask(self, **wanted: Any) -> list[int]:
        page = await self.world.page(self.ann, self.id, **wanted)
        return [each["seq"] for each in page["items"]]

    async def pages(self, limit: int, **wanted: Any) -> list[list[int]]:
        """All pages, one after the other."""
        found: list[list[int]] = []
        cursor: str | None = None
        while True:
            page = await self.world.page(self.ann, self.id, cursor=cursor, limit=limit, **wanted)
            found.append([each["seq"] for each in page["items"]])
            cursor = page["next"]
            if cursor is None:
                return found


@pytest.fixture
async def talk(world: MessagingWorld) -> Talk:
    ann = world.user("ann")
    world.user("bob")
    found = Talk(world, ann, (await world.open(ann))["id"])
    for number in range(30):
        world.clock.turn(60)
        sent = await world.send(ann, found.id, f"m{number}")
        if number % 3 == 0:
            await world.messages.edit(ann, sent["id"], f"m{number}!", 1)
        found.seqs.append(sent["seq"])
        found.times.append(sent["created_at"])
    return found


async def test_without_bounds_it_is_the_newest_page_and_goes_back(talk: Talk) -> None:
    assert await talk.ask() == talk.seqs
    assert await talk.ask(limit=4) == talk.seqs[-4:]
    pages = await talk.pages(7)
    assert [len(page) for page in pages] == [7, 7, 7, 7, 2]
    assert flat(reversed(pages)) == talk.seqs
    assert (await talk.pages(30)) == [talk.seqs]


async def test_before_and_after_exclude_their_seq(talk: Talk) -> None:
    seqs = talk.seqs
    assert await talk.ask(before=seqs[10], limit=3) == seqs[7:10]
    assert await talk.ask(after=seqs[10], limit=3) == seqs[11:14]
    assert await talk.ask(after=seqs[10], before=seqs[14]) == seqs[11:14]
    assert await talk.ask(before=seqs[0]) == []
    assert await talk.ask(after=seqs[-1]) == []
    assert await talk.ask(after=0, limit=2) == seqs[:2]
    assert await talk.ask(before=2**53, limit=2) == seqs[-2:]
    assert flat(await talk.pages(4, after=seqs[3])) == seqs[4:]
    assert flat(await talk.pages(4, after=seqs[3], before=seqs[17])) == seqs[4:17]
    assert flat(reversed(await talk.pages(4, before=seqs[17]))) == seqs[:17]


async def test_times_include_theirs(talk: Talk) -> None:
    seqs, times = talk.seqs, talk.times
    assert await talk.ask(since=times[20]) == seqs[20:]
    assert await talk.ask(until=times[9]) == seqs[:10]
    assert await talk.ask(until=times[9], limit=3) == seqs[7:10]
    assert await talk.ask(since=times[5], until=times[8]) == seqs[5:9]
    assert await talk.ask(since=times[5], limit=2) == seqs[5:7]
    assert await talk.ask(since=times[5], before=seqs[8]) == seqs[5:8]
    assert await talk.ask(until=times[8], after=seqs[5]) == seqs[6:9]
    assert await talk.ask(since=timestamp(0)) == seqs
    assert await talk.ask(until=timestamp(0)) == []
    assert await talk.ask(since=timestamp(4e9)) == []
    assert await talk.ask(until=timestamp(4e9)) == seqs
    between = timestamp(talk.world.clock.now() - 90)
    assert await talk.ask(since=between) == seqs[-2:]
    assert await talk.ask(until=between) == seqs[:-2]
    assert flat(await talk.pages(3, since=times[5], until=times[15])) == seqs[5:16]
    assert flat(reversed(await talk.pages(3, until=times[15]))) == seqs[:16]


async def test_around_has_a_seq_in_the_middle(talk: Talk) -> None:
    seqs = talk.seqs
    assert await talk.ask(around=seqs[15], limit=5) == seqs[13:18]
    assert await talk.ask(around=seqs[15], limit=4) == seqs[14:18]
    assert await talk.ask(around=seqs[15], limit=1) == [seqs[15]]
    assert await talk.ask(around=seqs[0], limit=5) == seqs[:5]
    assert await talk.ask(around=seqs[29], limit=5) == seqs[25:]
    assert await talk.ask(around=0, limit=5) == seqs[:5]
    assert await talk.ask(around=10_000, limit=5) == seqs[25:]
    pages = await talk.pages(5, around=seqs[15])
    assert flat(reversed(pages)) == seqs[:18]


async def test_bounds_that_contradict_each_other(talk: Talk) -> None:
    for wanted in (
        {"around": 3, "before": 9},
        {"around": 3, "since": talk.times[0]},
        {"after": 9, "before": 9},
        {"since": talk.times[2], "until": talk.times[1]},
    ):
        with pytest.raises(Invalid):
            await talk.ask(**wanted)
    for cursor in ("x", "e30", "!!", "bnVsbA"):
        with pytest.raises(Invalid):
            await talk.ask(cursor=cursor)
    forged = {"conversation": talk.id, "after": None, "until": None, "thread": None, "newest": True}
    for before in (-1, 2**53 + 1, 2**63, 2**64 - 1, "1", 1.5):
        with pytest.raises(Invalid):
            await talk.ask(cursor=encode_cursor({**forged, "before": before}))
    other = await talk.world.open(talk.ann)
    foreign = await talk.world.page(talk.ann, talk.id, limit=1)
    with pytest.raises(Invalid):
        await talk.world.page(talk.ann, other["id"], cursor=foreign["next"])


async def test_what_one_has_deleted_for_oneself_leaves_no_gap_in_a_page(talk: Talk) -> None:
    items = (await talk.world.page(talk.ann, talk.id))["items"]
    for each in [*items[4:12], *items[-4:]]:
        await talk.world.messages.hide(talk.ann, each["id"])
    left = talk.seqs[:4] + talk.seqs[12:-4]
    assert await talk.ask(limit=3) == left[-3:]
    assert flat(reversed(await talk.pages(4))) == left
    assert flat(await talk.pages(4, after=0)) == left
    assert all(len(page) == 4 for page in (await talk.pages(4))[:-1])


@pytest.mark.parametrize("what", ["page", "search"])
async def test_however_much_one_has_deleted_it_costs_few_reads(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    world = talk.world
    left, *gone = [await world.send(talk.ann, talk.id, f"needle {each}") for each in range(12)]
    for each in gone:
        await world.messages.hide(talk.ann, each["id"])
    reads, read = [], getattr(world.message_store, what)

    async def counted(*args: Any, **named: Any) -> Any:
        reads.append(named["limit"])
        return await read(*args, **named)

    monkeypatch.setattr(world.message_store, what, counted)
    if what == "page":
        found = await world.page(talk.ann, talk.id, limit=1)
    else:
        found = await world.search.messages(talk.ann, Query("needle"), cursor=None, limit=1)
    assert [each["id"] for each in found["items"]] == [left["id"]]
    assert len(reads) == 2


async def test_a_thread_is_a_part_of_history(talk: Talk) -> None:
    items = (await talk.world.page(talk.ann, talk.id))["items"]
    root, other = items[3]["id"], items[4]["id"]
    replies = []
    for number in range(5):
        sent = await talk.world.send(talk.ann, talk.id, f"r{number}", thread=root)
        await talk.world.send(talk.ann, talk.id, f"o{number}", thread=other)
        replies.append(sent["seq"])
    assert await talk.ask(thread=root) == replies
    assert await talk.ask(thread=root, limit=2) == replies[-2:]
    assert flat(reversed(await talk.pages(2, thread=root))) == replies
    assert await talk.ask(thread=root, after=replies[2]) == replies[3:]
    assert await talk.ask(thread=items[5]["id"]) == []


async def test_messages_carry_reactions_and_status(world: MessagingWorld) -> None:
    ann, bob, cy = world.user("ann"), world.user("bob"), world.user("cy")
    group = await world.open(ann, bob, cy)
    channel = await world.open(ann, bob, kind=Kind.CHANNEL)
    first = await world.send(ann, group["id"], "a")
    second = await world.send(bob, group["id"], "b")
    third = await world.send(ann, group["id"], "c")
    posted = await world.send(ann, channel["id"], "d")
    counts = {"id": first["id"], "conversation": group["id"], "counts": {"👍": 2}, "version": 1}
    await world.engine.insert("org", REACTION_COUNTS, counts)

    async def reach(user: str, delivered: int, read: int, conversation: str) -> None:
        old = await world.receipts.get("org", conversation, user)
        new = {**nowhere(conversation, user), "delivered_seq": delivered, "read_seq": read}
        assert await world.receipts.move("org", old, new)  # type: ignore[arg-type]

    async def statuses() -> list[str]:
        return [each["status"] for each in (await world.page(ann, group["id"]))["items"]]

    assert await statuses() == ["sent", "sent", "sent"]
    await reach("bob", third["seq"], second["seq"], group["id"])
    assert await statuses() == ["sent", "sent", "sent"]
    await reach("cy", third["seq"], first["seq"], group["id"])
    # Of the second, ann has not come any way; of the others bob and cy have.
    assert await statuses() == ["read", "sent", "delivered"]
    await reach("bob", posted["seq"], posted["seq"], channel["id"])
    assert (await world.page(ann, channel["id"]))["items"][0]["status"] == "sent"
    assert (await world.history.get(cy, first["id"]))["reactions"] == {"👍": 2}
    await world.messages.delete(ann, first["id"])
    assert (await world.history.get(cy, first["id"]))["reactions"] == {}
    # Who is no longer there is not waited for.
    await world.members.leave(cy, group["id"])
    assert (await statuses())[2] == "delivered"
    # Nor who came after the message: of a later one the newcomer has not come any way.
    await world.members.add(ann, group["id"], "cy")
    assert (await statuses())[2] == "delivered"
    later = await world.send(ann, group["id"], "e")
    await reach_further(world, "bob", group["id"], later["seq"])
    assert (await statuses())[2:] == ["read", "sent"]


async def reach_further(world: MessagingWorld, user: str, conversation: str, seq: int) -> None:
    old = await world.receipts.get("org", conversation, user)
    assert await world.receipts.move("org", old, {**old, "delivered_seq": seq, "read_seq": seq})


async def test_a_message_that_nobody_else_was_there_for_is_not_read(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann)
    sent = await world.send(ann, group["id"], "anybody?")
    await world.members.add(ann, group["id"], bob.user)
    assert (await world.history.get(ann, sent["id"]))["status"] == "sent"


# -- search -----------------------------------------------------------------------------------


async def find(world: MessagingWorld, who: Principal, q: str, **more: Any) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await world.search.messages(who, Query(q, **more), cursor=cursor, limit=2)
        found += [each["body"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            return found


async def test_search_finds_words_in_ones_own_conversations(world: MessagingWorld) -> None:
    ann, bob, eve = world.user("ann"), world.user("bob"), world.user("eve")
    one, two = await world.open(ann, bob), await world.open(ann)
    texts = ["Red apples", "green APPLES", "Äpfel und apples", "pears", "apple pie"]
    sent = []
    for number, text in enumerate(texts):
        world.clock.turn(10)
        sent.append(await world.send(ann if number % 2 else bob, one["id"], text))
    await world.send(ann, two["id"], "apples here too")
    expected = ["apples here too", "apple pie", "Äpfel und apples", "green APPLES", "Red apples"]
    assert await find(world, ann, "appl") == expected
    assert await find(world, bob, "appl") == expected[1:]
    assert await find(world, eve, "appl") == []
    assert await find(world, ann, "apples red") == ["Red apples"]
    assert await find(world, ann, "apfel") == ["Äpfel und apples"]
    assert await find(world, ann, 'apples" OR pears*') == []
    assert await find(world, ann, "appl", conversation=two["id"]) == ["apples here too"]
    assert await find(world, ann, "appl", sender="ann", conversation=one["id"]) == ["green APPLES"]
    times = [each["created_at"] for each in sent]
    assert await find(world, bob, "appl", since=times[2]) == expected[1:3]
    assert await find(world, bob, "appl", until=times[1]) == expected[3:]
    assert await find(world, bob, "appl", since=times[1], until=times[2]) == expected[2:4]
    with pytest.raises(NotFound):
        await find(world, bob, "appl", conversation=two["id"])
    with pytest.raises(Invalid):
        await find(world, bob, "appl", since=times[2], until=times[1])
    await world.messages.hide(bob, sent[4]["id"])
    await world.messages.delete(bob, sent[2]["id"])
    await world.messages.edit(ann, sent[1]["id"], "green plums", 1)
    assert await find(world, bob, "appl") == ["Red apples"]
    assert await find(world, bob, "plum") == ["green plums"]


# -- pins -------------------------------------------------------------------------------------


async def test_pins_are_for_all_and_told_once(world: MessagingWorld) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    group = await world.open(ann, bob)
    first, second = [await world.send(ann, group["id"], text) for text in "ab"]
    _, at_ann = await world.connect(ann)
    world.clock.turn(1)
    pinned = await world.pins.add(bob, first["id"])
    assert pinned["pinned_by"] == "bob"
    assert pinned == {**first, "pinned_by": "bob", "pinned_at": pinned["pinned_at"]}
    assert await world.pins.add(ann, first["id"]) == pinned
    world.clock.turn(1)
    later = await world.pins.add(ann, second["id"])
    listed = await world.pins.page(bob, group["id"], cursor=None, limit=1)
    assert listed["items"] == [later]
    rest = await world.pins.page(bob, group["id"], cursor=listed["next"], limit=1)
    assert rest == {"items": [pinned], "next": None}
    assert (await world.page(bob, group["id"]))["items"] == [pinned, later]
    # An edit keeps the pin.
    edited = await world.messages.edit(ann, first["id"], "aa", 1)
    assert edited["pinned_by"] == "bob"
    assert await world.pins.remove(ann, first["id"]) == {
        **edited,
        "pinned_at": None,
        "pinned_by": None,
    }
    await world.pins.remove(bob, first["id"])
    world.hub.flush()
    assert at_ann.data("message.pinned") == [pinned, later]
    assert len(at_ann.data("message.unpinned")) == 1


async def test_a_conversation_has_so_many_pins(world: MessagingWorld) -> None:
    ann = world.user("ann")
    group = await world.open(ann)
    for number in range(MAX_PINS):
        await world.pins.add(ann, (await world.send(ann, group["id"], f"{number}"))["id"])
    with pytest.raises(TooLarge):
        await world.pins.add(ann, (await world.send(ann, group["id"], "one more"))["id"])
