"""`kill -9` in the middle of a load: what was acknowledged is there, once, and everybody saw it."""

import asyncio
import random
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from tests.chaos.crowd import Guest, Ledger, Writer, history
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess

SEED = 20

CONVERSATIONS = 3
SENDERS = 5
LISTENERS = 3
WRITERS = 3
"""Of each sender, at the same time, one per conversation."""

ACKS_BETWEEN = 200
"""Acknowledged commands between two crashes, at least."""

RESTART_SECONDS = 10.0
"""From the crash to being ready: far more than it takes, far less than a person's patience."""


@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_by_crashes(
    fresh_server: ServerProcess, full: bool
) -> None:
    server, rounds = fresh_server, 20 if full else 3
    ledger, chance = Ledger(), random.Random(SEED)
    async with Api(server.url) as api:
        people = [await api.register(f"P{number}") for number in range(SENDERS + LISTENERS)]
        rooms = [await _open(people, number) for number in range(CONVERSATIONS)]
        follows = [f"{space}/{room}" for room in rooms for space in ("messages", "reactions")]
        guests = [
            Guest(server.url, person, f"p{number}", follows, namespaces=2)
            for number, person in enumerate(people)
        ]
        writers = [
            Writer(guest, number, rooms[number % CONVERSATIONS], ledger, SEED)
            for guest in guests[:SENDERS]
            for number in range(WRITERS)
        ]
        stop = asyncio.Event()
        restarts: list[float] = []
        stays = [asyncio.create_task(guest.stay()) for guest in guests]
        writing = [asyncio.create_task(writer.run(stop)) for writer in writers]
        try:
            for _ in range(rounds):
                await _progress(ledger, [*stays, *writing])
                await asyncio.sleep(chance.uniform(0, 0.2))
                started = time.monotonic()
                await asyncio.to_thread(server.restart, kill=True)
                restarts.append(time.monotonic() - started)
            await _progress(ledger, [*stays, *writing])
            stop.set()
            await _or_failure(asyncio.gather(*writing), stays)
            heads = await _everybody_is_level(api, people[0], guests, follows, stays)
        finally:
            for task in (*writing, *stays):
                task.cancel()
            ends = await asyncio.gather(*writing, *stays, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        _print(rounds, restarts, ledger, guests, heads)
        assert max(restarts) < RESTART_SECONDS
        attempted = {body for writer in writers for body in writer.attempted}
        await _check_history(people[0], rooms, ledger, attempted)
        for guest in guests:
            _check_streams(guest, heads)
            _check_replica(guest, ledger)
        for person in people:
            await _check_positions(person, rooms, ledger)


async def _open(people: Sequence[Account], number: int) -> str:
    body = {
        "kind": "group",
        "members": [each.id for each in people[1:]],
        "client_id": f"room-{number}",
    }
    return str((await people[0].api.post("/conversations", body, 201))["id"])


async def _progress(ledger: Ledger, tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Wait until the load has got on by `ACKS_BETWEEN`."""
    goal = ledger.total + ACKS_BETWEEN
    async with asyncio.timeout(60):
        while ledger.total < goal:
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)


async def _or_failure(work: "asyncio.Future[Any]", stays: Sequence["asyncio.Task[None]"]) -> None:
    """Wait for work that needs the others to go on."""
    done, _ = await asyncio.wait([work, *stays], timeout=60, return_when=asyncio.FIRST_COMPLETED)
    assert done, "commands are not answered"
    for each in done:
        each.result()


async def _everybody_is_level(
    api: Api,
    person: Account,
    guests: Sequence[Guest],
    follows: Sequence[str],
    stays: Sequence["asyncio.Task[None]"],
) -> dict[str, dict[str, Any]]:
    """Wait until every guest is where each stream is."""
    query = {"streams": {stream: {"epoch": "", "seq": 2**53} for stream in follows}}
    answer = await person.api.post("/sync", query)
    heads = {
        stream: {"epoch": found["epoch"], "seq": found["seq"]}
        for stream, found in answer["streams"].items()
    }
    heads = {stream: head for stream, head in heads.items() if head["seq"]}

    def stands(guest: Guest) -> bool:
        known = {**guest.clients["/messages"].streams, **guest.clients["/reactions"].streams}
        return all(known.get(stream) == head for stream, head in heads.items())

    async with asyncio.timeout(30):
        while not all(map(stands, guests)):
            for task in stays:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)
    return heads


async def _check_history(
    person: Account, rooms: Sequence[str], ledger: Ledger, attempted: set[str]
) -> None:
    """Every acknowledged message is there once, as it was left; nothing else is."""
    found = {room: await history(person, room) for room in rooms}
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


def _check_streams(guest: Guest, heads: dict[str, dict[str, Any]]) -> None:
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
        space = "/" + stream.partition("/")[0]
        assert guest.clients[space].seqs(stream) == list(range(1, head["seq"] + 1))


def _check_replica(guest: Guest, ledger: Ledger) -> None:
    """What a guest makes of the events is what was promised."""
    bodies: dict[str, str] = {}
    for event in guest.main.events:
        if event.name in {"message.created", "message.edited"}:
            bodies[event.data["data"]["id"]] = event.data["data"]["body"]
        elif event.name == "message.deleted":
            bodies[event.data["data"]["id"]] = ""
    assert bodies == {id: kept["body"] for id, kept in ledger.sent.items()}


async def _check_positions(person: Account, rooms: Sequence[str], ledger: Ledger) -> None:
    """How far a person has read is where it was acknowledged, and what is unread is the rest."""
    for room in rooms:
        found = await person.api.get(f"/conversations/{room}")
        (member,) = [each for each in found["members"] if each["user"] == person.id]
        assert member["read_seq"] == ledger.read.get((room, person.id), 0)
        unread = [
            each
            for each in await history(person, room)
            if each["seq"] > member["read_seq"]
            and each["sender"] != person.id
            and not each["deleted_at"]
        ]
        assert found["unread"] == len(unread)


def _print(
    rounds: int,
    restarts: Sequence[float],
    ledger: Ledger,
    guests: Sequence[Guest],
    heads: dict[str, dict[str, Any]],
) -> None:
    print(
        f"\n{rounds} crashes; ready again after {max(restarts):.2f} s at most; "
        f"{ledger.total} acknowledged commands, {sum(each.repeated for each in guests)} repeated; "
        f"{len(ledger.sent)} messages; {sum(each['seq'] for each in heads.values())} events in "
        f"{len(heads)} streams, seen by {len(guests)} clients over "
        f"{sum(each.connections for each in guests)} connections"
    )
    print("   ", ", ".join(f"{name} {count}" for name, count in sorted(ledger.counts.items())))
