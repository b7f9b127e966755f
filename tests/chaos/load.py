"""People who write, edit, delete, react and read all at once, through whatever happens."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from tests.chaos.checks import check_everything
from tests.chaos.crowd import Guest, Ledger, Writer
from tests.support.rest import Account, Api


class Load:
    """A mixed load on one server, that goes on over its crashes and outages.

    async with Load(api, senders=5, listeners=3, rooms=3) as load:
        await load.progress(200)
        ...
        await load.finish()
        await load.check()
    """

    SEED = 20

    def __init__(
        self,
        api: Api,
        *,
        senders: int,
        listeners: int,
        rooms: int,
        writers: int = 3,
        urls: Sequence[str] = (),
        apart: bool = False,
        pause: float = 0.005,
        patience: float = 60.0,
    ) -> None:
        """Nothing begins yet.

        Args:
            senders: people who write and listen.
            listeners: people who only listen.
            rooms: conversations; the first of the people is in all of them.
            writers: what each sender does at the same time.
            urls: of several nodes, which the clients spread over; otherwise all are where `api` is.
            apart: whether each of the others is in one room alone, not in all.
            pause: seconds between two commands of a writer, on average.
            patience: seconds that progress and the last answers are waited for.
        """
        self._urls = list(urls) or [api.url]
        self.ledger = Ledger()
        self.guests: list[Guest] = []
        self.people: list[Account] = []
        self.rooms: list[str] = []
        self.writers: list[Writer] = []
        self.heads: dict[str, dict[str, Any]] = {}
        """Where each stream is in the end."""
        self._api = api
        self.senders = senders
        """How many of the guests write: the first of them."""
        self._listeners = listeners
        self._room_count = rooms
        self._writer_count = writers
        self._apart = apart
        self._pause = pause
        self._patience = patience
        self._stop = asyncio.Event()
        self._stays: list[asyncio.Task[None]] = []
        self._writing: list[asyncio.Task[None]] = []
        self._others: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        count = self.senders + self._listeners
        self.people = [await self._api.register(f"P{number}") for number in range(count)]
        self.rooms = [
            await _open(self.people[0], self._others_in(number), number)
            for number in range(self._room_count)
        ]
        self.guests = [
            Guest(urls[0], person, f"p{number}", self._rooms_of(number), urls[1:])
            for number, person in enumerate(self.people)
            for urls in [_from(self._urls, number, self._first_url(number))]
        ]
        self.writers = [
            Writer(guest, number, guest.rooms[number % len(guest.rooms)], self.ledger, self.SEED)
            for guest in self.guests[: self.senders]
            for number in range(self._writer_count)
        ]
        self._stays = [asyncio.create_task(guest.stay()) for guest in self.guests]
        self._writing = [
            asyncio.create_task(each.run(self._stop, self._pause)) for each in self.writers
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [*self._writing, *self._others, *self._stays]
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _others_in(self, room: int) -> list[Account]:
        others = self.people[1:]
        return others[room :: self._room_count] if self._apart else others

    def _rooms_of(self, person: int) -> list[str]:
        if person and self._apart:
            return [self.rooms[(person - 1) % self._room_count]]
        return self.rooms

    def _first_url(self, person: int) -> int:
        """Everybody begins at a node in turn; so do those who are in a room together."""
        if person and self._apart:
            turn, room = divmod(person - 1, self._room_count)
            return (turn + room) % len(self._urls)
        return person % len(self._urls)

    def also(self, activity: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Have something else go on beside it, until its end; what goes wrong there is told as
        what goes wrong here.
        """
        task = asyncio.create_task(activity)
        self._others.append(task)
        return task

    async def until(self, condition: Callable[[], bool], *, timeout: float, what: str) -> None:
        """Wait until something is true.

        Raises:
            Exception: whatever went wrong for one of the clients meanwhile.
        """
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    for task in (*self._writing, *self._others, *self._stays):
                        if task.done():
                            task.result()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"no {what} within {timeout:g} s") from None

    async def progress(self, commands: int) -> None:
        """Wait until so many more commands are acknowledged."""
        goal = self.ledger.total + commands
        await self.until(lambda: self.ledger.total >= goal, timeout=self._patience, what="progress")

    async def go_on(self, seconds: float) -> None:
        """Let it go on for a while."""
        end = asyncio.get_running_loop().time() + seconds
        await self.until(
            lambda: asyncio.get_running_loop().time() >= end, timeout=seconds + 10, what="end"
        )

    async def finish(self) -> None:
        """End the load, and wait until every command is answered and everybody has seen all."""
        self._stop.set()
        await self.until(
            lambda: all(task.done() for task in self._writing),
            timeout=self._patience,
            what="answers",
        )
        self.heads = await self.heads_now(self.people[0].api)
        await self.until(
            lambda: all(map(self._is_level, self.guests)), timeout=30, what="level of all"
        )

    async def heads_now(self, api: Api) -> dict[str, dict[str, Any]]:
        """Where each stream is that has events. `api` speaks as the first of the people."""
        streams = [f"{space}/{room}" for room in self.rooms for space in ("messages", "reactions")]
        query = {stream: {"epoch": "", "seq": 2**53} for stream in streams}
        answer = await api.post("/sync", {"streams": query})
        return {
            stream: {"epoch": head["epoch"], "seq": head["seq"]}
            for stream, head in answer["streams"].items()
            if head["seq"]
        }

    def all_reached(self, heads: dict[str, dict[str, Any]]) -> bool:
        """Whether everybody is connected and has seen all up to there."""
        return all(guest.connected for guest in self.guests) and all(
            place["seq"] >= heads[stream]["seq"]
            for guest in self.guests
            for stream, place in guest.places().items()
            if stream in heads
        )

    def _is_level(self, guest: Guest) -> bool:
        return all(
            place == self.heads[stream]
            for stream, place in guest.places().items()
            if stream in self.heads
        )

    async def check(self) -> None:
        """After `finish`: nothing is missing, nothing is there twice, for nobody."""
        await check_everything(self.rooms, self.guests, self.writers, self.ledger, self.heads)

    def __str__(self) -> str:
        ledger, guests = self.ledger, self.guests
        counts = ", ".join(f"{name} {count}" for name, count in sorted(ledger.counts.items()))
        return (
            f"{ledger.total} acknowledged commands ({counts}), "
            f"{sum(each.repeated for each in guests)} repeated; {len(ledger.sent)} messages; "
            f"{sum(head['seq'] for head in self.heads.values())} events in {len(self.heads)} "
            f"streams, seen by {len(guests)} clients over "
            f"{sum(each.connections for each in guests)} connections"
        )


def _from(urls: list[str], number: int, first: int) -> list[str]:
    """Every client looks for other nodes in an order of its own."""
    others = urls[:first] + urls[first + 1 :]
    random.Random(number).shuffle(others)
    return [urls[first], *others]


async def _open(owner: Account, others: Sequence[Account], number: int) -> str:
    body = {
        "kind": "group",
        "members": [each.id for each in others],
        "client_id": f"room-{number}",
    }
    return str((await owner.api.post("/conversations", body, 201))["id"])
