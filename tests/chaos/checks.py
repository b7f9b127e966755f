"""What has to hold after every fault: nothing acknowledged is missing, nothing is there twice."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tests.chaos.crowd import Guest, Ledger, Writer, history


async def check_everything(
    rooms: Sequence[str],
    guests: Sequence[Guest],
    writers: Sequence[Writer],
    ledger: Ledger,
    heads: dict[str, dict[str, Any]],
) -> None:
    """History, what each guest saw, and the positions of all are as acknowledged.

    The first of the guests is in all the rooms.
    """
    attempted = {body for writer in writers for body in writer.attempted}
    found = {room: await history(guests[0].account, room) for room in rooms}
    check_history(found, ledger, attempted)
    for guest in guests:
        check_streams(guest, heads)
        check_replica(guest, ledger)
    for guest in guests:
        await check_positions(guest, found, ledger)


def check_history(
    found: dict[str, list[dict[str, Any]]], ledger: Ledger, attempted: set[str]
) -> None:
    """Every acknowledged message is there once, as it was left; nothing else is."""
    messages = [each for items in found.values() for each in items]
    assert len({each["id"] for each in messages}) == len(messages), "a message is there twice"
    assert {each["id"] for each in messages} == ledger.sent.keys()
    assert len(messages) == len(attempted), "one client_id made two messages"
    for room, items in found.items():
        seqs = [each["seq"] for each in items]
        assert all(earlier < later for earlier, later in pairwise(seqs))
        for message in items:
            kept = ledger.sent[message["id"]]
            assert message["conversation"] == kept["conversation"] == room
            assert message["seq"] == kept["seq"]
            assert message["body"] == kept["body"]
            assert message["version"] == kept["version"]
            assert bool(message["deleted_at"]) == kept["deleted"]
            assert message["reactions"] == _reactions(ledger, message["id"])


def _reactions(ledger: Ledger, message: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    if not ledger.sent[message]["deleted"]:
        for _, emoji in ledger.reactions.get(message, ()):
            counts[emoji] = counts.get(emoji, 0) + 1
    return counts


def check_streams(guest: Guest, heads: dict[str, dict[str, Any]]) -> None:
    """Each event of each stream came once, in order, over all the connections."""
    for client in guest.clients.values():
        for ready in client.named("ready"):
            lost = [name for name, head in ready["streams"].items() if not head["recovered"]]
            assert not lost, f"{guest.name} could not resume {lost}"
        epochs = {
            (event.data["stream"], event.data["epoch"])
            for event in client.events
            if isinstance(event.data, dict) and "epoch" in event.data
        }
        assert epochs <= {(stream, head["epoch"]) for stream, head in heads.items()}
    for stream, head in heads.items():
        space, _, room = f"/{stream}".rpartition("/")
        if room not in guest.rooms:
            continue
        seqs = guest.clients[space].seqs(stream)
        wrong = next((at for at, seq in enumerate(seqs, 1) if seq != at), None)
        assert wrong is None, (
            f"{guest.name} heard {seqs[max(0, wrong - 3) : wrong + 2]} of {stream}"
        )
        assert len(seqs) == head["seq"], f"{guest.name} heard {len(seqs)} of {stream}: {head}"


def check_replica(guest: Guest, ledger: Ledger) -> None:
    """What a guest makes of the events is what was promised."""
    bodies: dict[str, str] = {}
    for event in guest.main.events:
        if event.name in {"message.created", "message.edited"}:
            bodies[event.data["data"]["id"]] = event.data["data"]["body"]
        elif event.name == "message.deleted":
            bodies[event.data["data"]["id"]] = ""
    assert bodies == {
        id: kept["body"] for id, kept in ledger.sent.items() if kept["conversation"] in guest.rooms
    }


async def check_positions(
    guest: Guest, histories: dict[str, list[dict[str, Any]]], ledger: Ledger
) -> None:
    """How far a person has read is where it was acknowledged, and what is unread is the rest."""
    person = guest.account
    for room in guest.rooms:
        found = await person.api.get(f"/conversations/{room}")
        (member,) = [each for each in found["members"] if each["user"] == person.id]
        assert member["read_seq"] == ledger.read.get((room, person.id), 0)
        unread = [
            each
            for each in histories[room]
            if each["seq"] > member["read_seq"]
            and each["sender"] != person.id
            and not each["deleted_at"]
        ]
        assert found["unread"] == len(unread), (
            f"{person.id} is told of {found['unread']} unread messages in {room} behind "
            f"{member['read_seq']}; there are {len(unread)}"
        )


def delays(
    guests: Sequence[Guest], ledger: Ledger, since: float, until: float
) -> tuple[list[float], list[float]]:
    """How long after its acknowledgement each message that was acknowledged in a time (by
    `time.monotonic()`) was there, for each guest at the sender's node, and for each at another.

    Returns:
        Seconds, ascending; below 0 where it was there first.
    """
    nodes = {guest.account.id: guest.url for guest in guests}
    here: list[float] = []
    there: list[float] = []
    for guest in guests:
        for event in guest.main.events:
            if event.name != "message.created":
                continue
            acked = ledger.sent_at[event.data["data"]["id"]]
            if since <= acked <= until:
                near = nodes[event.data["actor"]["id"]] == guest.url
                (here if near else there).append(event.at - acked)
    return sorted(here), sorted(there)
