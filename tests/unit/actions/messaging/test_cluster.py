"""Several nodes: who is on another one sees and suffers the same, whatever the bus loses."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from actions.streams import reconcile
from domain.errors import NotFound
from domain.messaging.conversations import Kind
from domain.principals import Principal
from store.messaging.messages import MESSAGES
from tests.support.bus import LossyBus, Wire
from tests.support.cluster import ClusterNode, Reader, cluster
from tests.support.counting import until

HEAD_CHECK = 0.3


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def nodes(tmp_path: Path, wire: Wire) -> AsyncIterator[list[ClusterNode]]:
    async with cluster(tmp_path, [lambda: LossyBus(wire)] * 3, head_check=HEAD_CHECK) as made:
        yield made


def lossy(node: ClusterNode) -> LossyBus:
    assert isinstance(node.bus, LossyBus)
    return node.bus


async def test_what_is_sent_on_one_node_is_seen_on_all(nodes: list[ClusterNode]) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    there.people.users = here.people.users
    room = await here.open(ann, ben)
    stream = f"messages/{room['id']}"
    readers = [await Reader.connect(node, who) for node in (here, there) for who in (ann, ben)]
    for number in range(10):
        sender = (here, there)[number % 2]
        await sender.send(ann, room["id"], f"m{number}")
    everything = list(range(2, 12))
    await until(lambda: all(reader.seqs(stream) == everything for reader in readers))


async def test_a_node_without_members_of_a_room_receives_nothing_of_it(
    nodes: list[ClusterNode], wire: Wire
) -> None:
    here, there, third = nodes
    ann, ben, eve = here.user("ann"), here.user("ben"), here.user("eve")
    here.user("cat")
    for reader, node in ((ann, here), (ben, there), (eve, third)):
        await Reader.connect(node, reader)
    heard: list[bytes] = []
    receive = lossy(third)._receive
    assert receive is not None
    lossy(third)._receive = lambda _channel, message: heard.append(message)
    room = (await here.open(ann, ben, kind=Kind.GROUP))["id"]
    sent = [await here.send(ann, room, f"m{number}") for number in range(5)]
    await here.moves.move(ann, room, "read", sent[-1]["seq"])
    await here.members.add(ann, room, "cat")
    await here.members.remove(ann, room, "ben")
    lossy(third)._receive = receive
    # That the other nodes live is all.
    assert [each for each in heard if b"topic" in each or b"number" not in each] == []


async def test_a_new_conversation_is_joined_on_every_node(nodes: list[ClusterNode]) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    reader = await Reader.connect(there, ben)
    room = await here.open(ann, ben)
    stream = f"messages/{room['id']}"
    await here.send(ann, room["id"], "hello")
    await until(lambda: reader.seqs(stream) == [1, 2])


async def test_what_the_bus_loses_is_found_and_delivered_in_order_once(
    nodes: list[ClusterNode],
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = await here.open(ann, ben)
    stream = f"messages/{room['id']}"
    reader = await Reader.connect(there, ben)
    kept = iter([True, False, False, True, False] * 20)
    lossy(here).loses = lambda channel, _: channel == stream and not next(kept)
    for number in range(40):
        await here.send(ann, room["id"], f"m{number}")
    await until(lambda: reader.seqs(stream) == list(range(2, 42)))


async def test_a_lost_last_event_is_found_by_the_check_of_heads(nodes: list[ClusterNode]) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = await here.open(ann, ben)
    stream = f"messages/{room['id']}"
    reader = await Reader.connect(there, ben)
    lossy(here).lossy = True
    await here.send(ann, room["id"], "nobody hears it")
    await until(lambda: reader.seqs(stream) == [2])
    assert there.core.repair.found == 1


async def test_after_an_interruption_everything_is_there_without_a_check(
    tmp_path: Path, wire: Wire
) -> None:
    async with cluster(tmp_path, [lambda: LossyBus(wire)] * 2, head_check=600) as (here, there):
        ann, ben = here.user("ann"), here.user("ben")
        room = await here.open(ann, ben)
        stream = f"messages/{room['id']}"
        reader = await Reader.connect(there, ben)
        wire.cut = True
        for number in range(5):
            await here.send(ann, room["id"], f"m{number}")
        wire.cut = False
        lossy(there).rejoin()
        await until(lambda: reader.seqs(stream) == [2, 3, 4, 5, 6])


@pytest.mark.parametrize("lost", [False, True])
async def test_a_removed_member_hears_of_it_and_nothing_after(
    nodes: list[ClusterNode], lost: bool
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = await here.open(ann, ben)
    stream = f"messages/{room['id']}"
    gone, stays = await Reader.connect(there, ben), await Reader.connect(there, ann)
    lossy(here).loses = lambda channel, _: lost and channel.startswith("user:")
    await here.members.remove(ann, room["id"], "ben")
    for number in range(3):
        await here.send(ann, room["id"], f"secret {number}")
    await until(lambda: stays.seqs(stream) == [2, 3, 4, 5])
    assert gone.seqs(stream) == [2]
    assert stream not in gone.client.streams
    assert not gone.outlet.closed


async def test_an_order_that_comes_before_its_event_waits_for_it(
    nodes: list[ClusterNode],
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = await here.open(ann, ben)
    stream = f"messages/{room['id']}"
    gone = await Reader.connect(there, ben)
    lossy(here).loses = lambda channel, _: channel == stream
    await here.members.remove(ann, room["id"], "ben")
    await until(lambda: gone.seqs(stream) == [2])
    assert stream not in gone.client.streams


async def test_removed_while_nothing_got_through(tmp_path: Path, wire: Wire) -> None:
    async with cluster(tmp_path, [lambda: LossyBus(wire)] * 2, head_check=600) as (here, there):
        ann, ben = here.user("ann"), here.user("ben")
        room = await here.open(ann, ben)
        stream = f"messages/{room['id']}"
        gone = await Reader.connect(there, ben)
        wire.cut = True
        await here.members.remove(ann, room["id"], "ben")
        await here.send(ann, room["id"], "secret")
        wire.cut = False
        async with asyncio.timeout(2):
            lossy(there).rejoin()
            await until(lambda: stream not in gone.client.streams)
        assert gone.seqs(stream) == [2]


async def test_a_stream_is_taken_away_after_the_event_that_tells_why(
    tmp_path: Path, wire: Wire
) -> None:
    async with cluster(tmp_path, [lambda: LossyBus(wire)] * 2, head_check=600) as (here, there):
        ann, ben = here.user("ann"), here.user("ben")
        room = await here.open(ann, ben)
        stream = f"messages/{room['id']}"
        gone = await Reader.connect(there, ben)
        lossy(here).lossy = True
        await here.members.remove(ann, room["id"], "ben")
        await here.send(ann, room["id"], "secret")
        there.memberships.forget("ben")
        there.reconciler.check_user("ben")
        await until(lambda: stream not in gone.client.streams and there.reconciler.quiet)
        assert gone.seqs(stream) == [2]
        assert not gone.outlet.closed


async def test_added_while_nothing_got_through_one_is_sent_back_to_join(
    tmp_path: Path, wire: Wire
) -> None:
    async with cluster(tmp_path, [lambda: LossyBus(wire)] * 2, head_check=600) as (here, there):
        ann, ben = here.user("ann"), here.user("ben")
        there.people.users = here.people.users
        reader, other = await Reader.connect(there, ben), await Reader.connect(there, ann)
        wire.cut = True
        room = await here.open(ann, ben, kind=Kind.GROUP)
        wire.cut = False
        lossy(there).rejoin()
        async with asyncio.timeout(2):
            await until(lambda: reader.outlet.closing == other.outlet.closing == "revoked")
        again = await Reader.connect(there, ben)
        assert f"messages/{room['id']}" in again.client.streams


async def test_removed_elsewhere_while_away_one_comes_back_without_the_conversation(
    nodes: list[ClusterNode],
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    there.people.users = here.people.users
    room = (await here.open(ann, ben, kind=Kind.GROUP))["id"]
    reader = await Reader.connect(there, ben)
    again = await Reader.connect(there, ben)  # from here on what it joins is in memory there
    for each in (reader, again):
        await there.part(each.client)
    await here.members.remove(ann, room, "ben")
    back = await Reader.connect(there, ben)
    assert f"messages/{room}" not in back.client.streams


async def test_a_single_lost_order_is_noticed_within_two_seconds(
    nodes: list[ClusterNode],
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    reader = await Reader.connect(there, ben)
    quiet = await Reader.connect(there, here.user("eve"))
    lossy(here).loses = lambda channel, message: (
        channel == "user:ben" and orjson.loads(message).get("topic") == "streams.join"
    )
    await here.open(ann, ben)
    lossy(here).loses = lambda _channel, _message: False
    async with asyncio.timeout(3):
        await until(lambda: reader.outlet.closing == "revoked")
    assert quiet.outlet.closing is None


async def test_what_a_client_asked_not_to_hear_does_not_send_it_back(
    nodes: list[ClusterNode],
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = await here.open(ann, ben)
    reader = await Reader.connect(there, ben)
    await there.streams.unsubscribe(reader.client, [f"messages/{room['id']}"])
    there.core.user_control.may_have_missed("ben")
    await until(lambda: there.reconciler.quiet)
    assert reader.outlet.closing is None
    await there.streams.subscribe(reader.client, {f"messages/{room['id']}": None})
    assert reader.client.declined == set()


async def test_counts_follow_what_happens_on_other_nodes(nodes: list[ClusterNode]) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = (await here.open(ann, ben))["id"]
    reader = await Reader.connect(there, ben)
    there.counts.resend(reader.client, [room])
    sent = [await here.send(ann, room, f"m{number}", mentions=["ben"]) for number in range(3)]

    def told() -> list[int]:
        return [each["unread"] for each in reader.outlet.data("unread.updated")]

    await until(lambda: told()[-1:] == [3])
    await here.messages.delete(ann, sent[1]["id"])
    await until(lambda: told()[-1:] == [2])
    await Reader.connect(here, ben)
    await here.moves.move(ben, room, "read", sent[0]["seq"])
    await until(lambda: told()[-1:] == [1])
    assert await there.unread_of(ben, room) == await there.recount(ben, room) == (1, 1)


async def test_what_one_deletes_for_oneself_counts_for_others_on_other_nodes(
    nodes: list[ClusterNode],
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = (await here.open(ann, ben))["id"]
    reader, other = await Reader.connect(there, ben), await Reader.connect(there, ann)
    await here.send(ann, room, "first")
    await until(lambda: len(reader.outlet.data("unread.updated")) == 1)
    # The next is told within a second: till then it is noted, and not counted yet.
    sent = await here.send(ann, room, "second")
    await until(lambda: reader.seqs(f"messages/{room}")[-1:] == [sent["seq"]])
    await here.messages.hide(ann, sent["id"])
    await until(lambda: other.seqs("messages/ann") == [1])
    assert await there.unread_of(ben, room) == await there.recount(ben, room) == (2, 0)
    await until(lambda: reader.outlet.data("unread.updated")[-1]["unread"] == 2)


async def test_counts_are_right_after_an_interruption(nodes: list[ClusterNode], wire: Wire) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = (await here.open(ann, ben))["id"]
    reader = await Reader.connect(there, ben)
    there.counts.resend(reader.client, [room])
    sent = [await here.send(ann, room, f"m{number}") for number in range(3)]
    await until(lambda: bool(reader.outlet.data("unread.updated")))
    wire.cut = True
    await here.moves.move(ben, room, "read", sent[1]["seq"])
    await here.send(ann, room, "meanwhile")
    wire.cut = False
    lossy(there).rejoin()
    await until(lambda: reader.outlet.data("unread.updated")[-1]["unread"] == 2)


async def test_counts_of_those_who_write_at_the_same_time_are_not_made_anew(
    nodes: list[ClusterNode], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, _ = nodes
    ann, ben, cat = (here.user(each) for each in ("ann", "ben", "cat"))
    there.people.users = here.people.users
    room = (await here.open(ann, ben, cat, kind=Kind.GROUP))["id"]
    placed = ((ann, here), (cat, here), (ben, there))
    readers = [await Reader.connect(node, who) for who, node in placed]
    for reader, (_, node) in zip(readers, placed, strict=True):
        node.counts.resend(reader.client, [room])
    for number in range(30):
        await here.send(ann, room, f"before {number}")
    await until(lambda: all(each.outlet.data("unread.updated") for each in readers))
    inboxes = [(node, node.counts.kept_of(who.user)) for who, node in placed]
    await until(lambda: not any(node.counts.is_waiting(inbox) for node, inbox in inboxes if inbox))
    reads = 0
    find = here.engine.find

    async def counted(*args: Any, **named: Any) -> Any:
        nonlocal reads
        reads += args[1] == MESSAGES
        return await find(*args, **named)

    monkeypatch.setattr(here.engine, "find", counted)
    wire.cut = True  # nobody hears the other, and each finds out by looking
    for number in range(20):
        await there.send(ben, room, f"there {number}")
        await here.send(ann, room, f"here {number}", mentions=["cat"])
        await here.unread_of(cat, room)  # counts what has come
        await asyncio.sleep(0.02)
    stream = f"messages/{room}"
    await until(lambda: all(each.seqs(stream)[-1:] == [71] for each in readers))
    for who, node in placed:
        assert await node.unread_of(who, room) == await node.recount(who, room)
    assert reads == 3  # the three that were just made


async def test_own_devices_on_other_nodes_hear_of_a_position_in_a_channel(
    nodes: list[ClusterNode],
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = (await here.open(ann, ben, kind=Kind.CHANNEL, title="Lobby"))["id"]
    mine, other = await Reader.connect(there, ben), await Reader.connect(there, ann)
    message = await here.send(ann, room, "hello")
    await here.moves.move(ben, room, "read", message["seq"])
    await until(lambda: bool(mine.outlet.data("receipt.updated")))
    assert mine.outlet.data("receipt.updated")[-1]["read_seq"] == message["seq"]
    assert other.outlet.data("receipt.updated") == []


async def test_everybody_in_a_group_hears_of_a_position_on_every_node(
    nodes: list[ClusterNode],
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = (await here.open(ann, ben))["id"]
    readers = [await Reader.connect(node, ann) for node in (here, there)]
    message = await here.send(ann, room, "hello")
    await here.moves.move(ben, room, "read", message["seq"])
    await until(lambda: all(each.outlet.data("receipt.updated") for each in readers))


async def test_who_is_removed_while_nothing_gets_through_is_not_let_in_again(
    tmp_path: Path, wire: Wire
) -> None:
    async with cluster(tmp_path, [lambda: LossyBus(wire)] * 2, head_check=600) as (here, there):
        ann, ben = here.user("ann"), here.user("ben")
        room = await here.open(ann, ben, kind=Kind.GROUP)
        stream = f"messages/{room['id']}"
        before = await Reader.connect(there, ben)
        assert stream in before.client.streams
        wire.cut = True
        await here.members.remove(ann, room["id"], "ben")
        again = await Reader.connect(there, ben)
        assert stream not in again.client.streams


@pytest.mark.parametrize("foreign", [0, 3])
async def test_looking_after_all_clients_costs_few_reads_of_the_store(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch, foreign: int
) -> None:
    here = nodes[0]
    people = [here.user(f"u{number}") for number in range(100)]
    rooms = [await here.open(*people[at : at + 10]) for at in range(0, 100, 10)]
    readers = [await Reader.connect(here, who) for who in people]
    for at, reader in enumerate(readers):  # streams that it follows and was put out of
        others = [rooms[(at // 10 + step) % 10]["id"] for step in range(1, foreign + 1)]
        reader.client.streams.update(f"messages/{each}" for each in others)
    reads = 0

    def count(name: str) -> None:
        read = getattr(here.engine, name)

        async def counted(*args: object, **named: object) -> object:
            nonlocal reads
            reads += not named.get("returned")  # those of the check of heads aside
            return await read(*args, **named)

        monkeypatch.setattr(here.engine, name, counted)

    for name in ("get", "get_many", "find", "count", "sum", "heads", "head", "read"):
        count(name)
    for who in people:
        here.memberships.forget(who.user)
        here.reconciler.check_user(who.user)
    await until(lambda: here.reconciler.quiet)
    assert here.reconciler.dropped == 100 * foreign
    # With 20 clients at a time: their lists and heads once, what they may read in each of two looks.
    assert reads <= (100 // 20) * (2 + (2 if foreign else 0)) * 2


async def test_an_order_to_join_that_comes_after_the_removal_lets_nobody_in(
    nodes: list[ClusterNode],
) -> None:
    here, other, there = nodes
    ann, ben = here.user("ann"), here.user("ben")
    for node in (other, there):
        node.people.users = here.people.users
    cat = here.user("cat")
    room = (await here.open(ann, ben, kind=Kind.GROUP))["id"]
    streams = {f"messages/{room}", f"reactions/{room}"}
    reader, stays = await Reader.connect(there, cat), await Reader.connect(there, ben)
    held: list[tuple[str, bytes]] = []

    def hold(channel: str, message: bytes) -> bool:
        if channel == "user:cat":
            held.append((channel, message))
        return channel == "user:cat"

    lossy(here).loses = hold
    await here.members.add(ann, room, "cat")
    await other.members.remove(ann, room, "cat")
    await until(lambda: stays.seqs(f"messages/{room}") == [2, 3])
    receive = lossy(there)._receive
    assert receive is not None
    assert held
    for channel, message in held:
        receive(channel, message)
    async with asyncio.timeout(2):
        await until(lambda: not streams & reader.client.streams)
    await here.send(ann, room, "secret")
    await until(lambda: stays.seqs(f"messages/{room}") == [2, 3, 4])
    assert 4 not in reader.seqs(f"messages/{room}")


async def test_what_is_missed_while_a_client_is_looked_at_is_looked_for_again(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, _ = nodes
    ben = here.user("ben")
    await Reader.connect(there, ben)
    reading, go_on, looks = asyncio.Event(), asyncio.Event(), 0
    own = there.rules.own

    async def slow(principal: Principal, namespace: str) -> Sequence[str]:
        nonlocal looks
        looks += 1
        found = await own(principal, namespace)
        reading.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(there.rules, "own", slow)
    there.reconciler.check_user("ben")
    await reading.wait()
    there.reconciler.check_user("ben")
    go_on.set()
    await until(lambda: there.reconciler.quiet)
    assert looks == 2


async def test_one_who_cannot_be_looked_at_yet_keeps_nobody_waiting(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    room = (await here.open(ann, ben, kind=Kind.GROUP))["id"]
    coming, gone = await Reader.connect(there, ann), await Reader.connect(there, ben)
    monkeypatch.setattr(reconcile, "AT_ONCE", 1)
    monkeypatch.setattr(reconcile, "RETRY", 30.0)
    monkeypatch.setattr(there.streams, "is_coming", lambda client: client is coming.client)
    lossy(here).lossy = True
    await here.members.remove(ann, room, "ben")
    there.memberships.forget("ben")
    there.streams.drop(gone.client, f"messages/{room}")
    gone.client.streams.add(f"reactions/{room}")
    there.reconciler.check([coming.client, gone.client])
    async with asyncio.timeout(2):
        await until(lambda: f"reactions/{room}" not in gone.client.streams)
    assert not there.reconciler.quiet


async def test_mentions_that_an_edit_on_another_node_adds_or_takes_away_are_told(
    nodes: list[ClusterNode],
) -> None:
    here, there, _ = nodes
    ann, ben = here.user("ann"), here.user("ben")
    there.people.users = here.people.users
    room = (await here.open(ann, ben))["id"]
    reader = await Reader.connect(there, ben)

    def told() -> list[int]:
        return [each["mentions"] for each in reader.outlet.data("unread.updated")][-1:]

    sent = await here.send(ann, room, "m")
    await until(lambda: told() == [0])
    await here.messages.edit(ann, sent["id"], "m!", 1, ["ben"])
    await until(lambda: told() == [1])
    await here.messages.edit(ann, sent["id"], "m!", 2, [])
    await until(lambda: told() == [0])


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("kind", [Kind.GROUP, Kind.CHANNEL])
async def test_who_is_on_another_node_is_put_out_of_what_is_deleted(
    nodes: list[ClusterNode], kind: Kind, lost: bool
) -> None:
    here, there, third = nodes
    ann, ben, cat = here.user("ann"), here.user("ben"), here.user("cat")
    readers = [await Reader.connect(node, who) for node, who in ((there, ben), (third, cat))]
    room = await here.open(ann, ben, cat, kind=kind)
    stream = f"messages/{room['id']}"
    await until(lambda: all(stream in reader.client.streams for reader in readers))
    # If the bus says nothing, the others find out by themselves.
    lossy(here).lossy = lost
    await here.deletions.delete(ann, room["id"])
    await until(lambda: all(reader.seqs(stream) == [1, 2] for reader in readers))
    for reader in readers:
        assert reader.outlet.data("conversation.deleted") == [{"id": room["id"]}]
    await until(lambda: not any(stream in reader.client.streams for reader in readers))
    for node, who in ((there, ben), (third, cat)):
        with pytest.raises(NotFound):
            await node.send(who, room["id"], "hi")
        assert await node.memberships.of_user("org", who.user) == ()
