"""People who are put into rooms and taken out of them again, always on another node than theirs."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from tests.chaos.crowd import Guest
from tests.chaos.load import Load
from tests.support.rest import Account, Api

ANSWER_SECONDS = 10.0


class Newcomer:
    """One of them."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.rooms: set[str] = set()
        """Where this one is, as it was acknowledged."""

    @property
    def id(self) -> str:
        """The user's id."""
        return self.guest.account.id

    def has_reached(self, room: str, seq: int) -> bool:
        """Whether this one stands there in a room's stream, or farther."""
        place = self.guest.main.streams.get(f"messages/{room}")
        return place is not None and place["seq"] >= seq


class Comings:
    """Comings and goings in the rooms of a load, by the owner of them all.

    async with Comings(load, urls, 6) as comings:
        comings.begin()
        ...
        await comings.end()
        await load.finish()
        await comings.check()
    """

    def __init__(self, load: Load, urls: Sequence[str], people: int, pause: float) -> None:
        """`pause`: seconds between two changes of one person, on average."""
        self.newcomers: list[Newcomer] = []
        self.counts: Counter[str] = Counter()
        """Acknowledged changes: `added`, `removed`."""
        self.kept: dict[str, Newcomer] = {}
        """One who was left in peace after being added though the order was lost, and one removed."""
        self._not_told: set[str] = set()
        self._load = load
        self._urls = urls
        self._people = people
        self._pause = pause
        self._apis: dict[str, Api] = {}
        """By node: the owner there."""
        self._stop = asyncio.Event()
        self._moving: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        owner = self._load.people[0]
        for url in self._urls:
            self._apis[url] = await self._stack.enter_async_context(Api(url, owner.token))
        for number in range(self._people):
            api = self._apis[self._urls[number % len(self._urls)]]
            self.newcomers.append(await self._newcomer(api, number))
        await self._load.until(
            lambda: all(each.guest.connected for each in self.newcomers),
            timeout=60,
            what="connection of the newcomers",
        )
        return self

    async def _newcomer(self, api: Api, number: int) -> Newcomer:
        account: Account = await api.register(f"N{number}")
        guest = Guest(api.url, account, f"n{number}", ())
        self._load.also(guest.stay())
        return Newcomer(guest)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def begin(self) -> None:
        """Put them in and take them out, until `end`."""
        for number, newcomer in enumerate(self.newcomers):
            self._moving.append(self._load.also(self._move(newcomer, random.Random(number))))

    def order_lost(self, user: str) -> None:
        """An order about one of them did not come. The first that happens to after being added, and
        the first after being removed, are left as they are: nothing that comes later mends it.
        """
        self._not_told.add(user)

    async def end(self) -> None:
        """Leave everybody where they are."""
        self._stop.set()
        await self._load.until(
            lambda: all(task.done() for task in self._moving), timeout=30, what="end of moving"
        )

    async def _move(self, newcomer: Newcomer, chance: random.Random) -> None:
        elsewhere = [api for url, api in self._apis.items() if url != newcomer.guest.url]
        last = ""
        while not self._stop.is_set():
            if newcomer.id in self._not_told:
                self._not_told.remove(newcomer.id)
                if self.kept.setdefault(last, newcomer) is newcomer:
                    return
            room, api = chance.choice(self._load.rooms), chance.choice(elsewhere)
            members = f"/conversations/{room}/members"
            if room in newcomer.rooms:
                await api.delete(f"{members}/{newcomer.id}", 200)
                newcomer.rooms.remove(room)
                last = "removed"
            else:
                await api.post(members, {"user": newcomer.id})
                newcomer.rooms.add(room)
                last = "added"
            self.counts[last] += 1
            await asyncio.sleep(self._pause * chance.uniform(0.5, 1.5))

    # -- afterwards ---------------------------------------------------------------------------

    def all_reached(self, heads: dict[str, dict[str, Any]]) -> bool:
        """Whether everybody who is in a room follows it and has heard all up to there."""
        return all(
            each.guest.connected and each.has_reached(room, heads[f"messages/{room}"]["seq"])
            for each in self.newcomers
            for room in each.rooms
        )

    @property
    def sent_back(self) -> int:
        """How often one of them was told to come back."""
        return sum(
            len(client.named("closing"))
            for each in self.newcomers
            for client in each.guest.clients.values()
        )

    @property
    def places(self) -> int:
        """In how many rooms they are, all together."""
        return sum(len(each.rooms) for each in self.newcomers)

    async def check(self) -> None:
        """After the load's `finish`: who is in a room hears what happens there, who is not does
        not, and nobody saw a hole or heard what happened between going and coming back.
        """
        await self._load.until(
            lambda: self.all_reached(self._load.heads), timeout=10, what="level of the newcomers"
        )
        for room in self._load.rooms:
            log = self._log(room)
            for newcomer in self.newcomers:
                _check_heard(newcomer, room, log)
            await self._check_farewell(room)

    def _log(self, room: str) -> list[dict[str, Any]]:
        """All events of a room, as the owner has got them."""
        stream = f"messages/{room}"
        return [
            event.data
            for event in self._load.guests[0].main.events
            if event.data.get("stream") == stream and "seq" in event.data
        ]

    async def _check_farewell(self, room: str) -> None:
        """One more message and one more reaction."""
        api = self._apis[self._urls[0]]
        body = {"body": "farewell", "client_id": f"farewell {room}"}
        message = await api.post(f"/conversations/{room}/messages", body, 201)
        await api.post(f"/messages/{message['id']}/reactions", {"emoji": "👋"})

        def heard(newcomer: Newcomer) -> tuple[bool, bool]:
            created = newcomer.guest.main.named("message.created")
            added = newcomer.guest.clients["/reactions"].named("reaction.added")
            return (
                any(each["data"]["id"] == message["id"] for each in created),
                any(each["data"]["message"] == message["id"] for each in added),
            )

        inside = [each for each in self.newcomers if room in each.rooms]
        await self._load.until(
            lambda: all(heard(each) == (True, True) for each in inside),
            timeout=ANSWER_SECONDS,
            what="farewell for those inside",
        )
        for each in self.newcomers:
            if each in inside:
                continue
            for client in each.guest.clients.values():
                # What it was sent before comes before the answer.
                await client.request("stream.unsubscribe", {"streams": []}, timeout=ANSWER_SECONDS)
            assert heard(each) == (False, False), f"{each.guest.name} hears of {room} from outside"


def _stays(newcomer: Newcomer, room: str, log: Sequence[dict[str, Any]]) -> list[range]:
    """The seqs of a room's events that happened while somebody was in it, both ends included."""
    found: list[range] = []
    since: int | None = None
    for event in log:
        if event["type"] == "member.added" and event["data"]["user"] == newcomer.id:
            since = event["seq"]
        elif event["type"] == "member.removed" and event["data"]["user"] == newcomer.id:
            assert since is not None
            found.append(range(since, event["seq"] + 1))
            since = None
    assert (since is not None) == (room in newcomer.rooms), "acknowledged, and not in the log"
    return found if since is None else [*found, range(since, log[-1]["seq"] + 1)]


def _check_heard(newcomer: Newcomer, room: str, log: Sequence[dict[str, Any]]) -> None:
    """Each event came once and in order, a stay was heard to its end, and what happened between two
    stays came only as the past, to one who returned.
    """
    stream, name = f"messages/{room}", newcomer.guest.name
    stays = _stays(newcomer, room, log)
    ends = {stay[-1] for stay in stays}
    place: int | None = None
    returning, returned = True, False  # since the event before
    for event in newcomer.guest.main.events:
        if event.name == "closing":
            assert event.data == {"code": "revoked", "reconnect": True}
            returning = True
        elif event.name == "ready":
            returning, returned = False, True
            head = event.data["streams"].get(stream)
            if head is not None:
                assert head["recovered"], f"{name} could not resume {stream}"
                assert place in {None, head["seq"]}, f"{name} lacks {stream} after {place}: {head}"
                place = head["seq"]
        elif event.data.get("stream") == stream and "seq" in event.data:
            seq = event.data["seq"]
            said = f"{name} heard {seq} of {stream} after {place}, was there {stays}"
            if event.name == "member.added" and event.data["data"]["user"] == newcomer.id:
                assert place is None or place < seq, said
                assert place in {None, seq - 1} or place in ends or returned, said
            else:
                assert place == seq - 1, said
            assert returning or any(seq in stay for stay in stays), said
            place, returned = seq, False
    # Who was away at the end of a stay learned of it by what is ready.
    assert place is None or place in ends or returned, f"{name} heard up to {place} of {stays}"
