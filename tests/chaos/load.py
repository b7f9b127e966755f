"""People who write, edit, delete, react and read all at once, through whatever happens."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from tests.chaos.checks import check_everything
from tests.chaos.crowd import FROM_THE_START, Guest, Ledger, Writer
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
    ) -> None:
        """`writers`: what each sender does at the same time. `urls`: of several nodes, which the
        clients spread over; otherwise all are where `api` is.
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
        self._senders = senders
        self._listeners = listeners
        self._room_count = rooms
        self._writer_count = writers
        self._stop = asyncio.Event()
        self._stays: list[asyncio.Task[None]] = []
        self._writing: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        count = self._senders + self._listeners
        self.people = [await self._api.register(f"P{number}") for number in range(count)]
        self.rooms = [await _open(self.people, number) for number in range(self._room_count)]
        self.guests = [
            Guest(urls[0], person, f"p{number}", self._streams(), urls[1:])
            for number, person in enumerate(self.people)
            for urls in [_from(self._urls, number)]
        ]
        self.writers = [
            Writer(guest, number, self.rooms[number % self._room_count], self.ledger, self.SEED)
            for guest in self.guests[: self._senders]
            for number in range(self._writer_count)
        ]
        self._stays = [asyncio.create_task(guest.stay()) for guest in self.guests]
        self._writing = [asyncio.create_task(each.run(self._stop)) for each in self.writers]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [*self._writing, *self._stays]
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _streams(self) -> list[str]:
        return [f"{space}/{room}" for room in self.rooms for space in ("messages", "reactions")]

    async def until(self, condition: Callable[[], bool], *, timeout: float, what: str) -> None:
        """Wait until something is true.

        Raises:
            Exception: whatever went wrong for one of the clients meanwhile.
        """
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    for task in (*self._writing, *self._stays):
                        if task.done():
                            task.result()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"no {what} within {timeout:g} s") from None

    async def progress(self, commands: int) -> None:
        """Wait until so many more commands are acknowledged."""
        goal = self.ledger.total + commands
        await self.until(lambda: self.ledger.total >= goal, timeout=60, what="progress")

    async def finish(self) -> None:
        """End the load, and wait until every command is answered and everybody has seen all."""
        self._stop.set()
        await self.until(
            lambda: all(task.done() for task in self._writing), timeout=60, what="answers"
        )
        self.heads = await self.heads_now(self.people[0].api)
        await self.until(
            lambda: all(map(self._is_level, self.guests)), timeout=30, what="level of all"
        )

    async def heads_now(self, api: Api) -> dict[str, dict[str, Any]]:
        """Where each stream is that has events. `api` speaks as one of the people."""
        query = {stream: {"epoch": "", "seq": 2**53} for stream in self._streams()}
        answer = await api.post("/sync", {"streams": query})
        return {
            stream: {"epoch": head["epoch"], "seq": head["seq"]}
            for stream, head in answer["streams"].items()
            if head["seq"]
        }

    def all_reached(self, heads: dict[str, dict[str, Any]]) -> bool:
        """Whether everybody is connected and has seen all up to there."""
        return all(
            client.connected
            and all(
                client.streams.get(stream, FROM_THE_START)["seq"] >= head["seq"]
                for stream, head in heads.items()
                if stream.startswith(f"{space[1:]}/")
            )
            for guest in self.guests
            for space, client in guest.clients.items()
        )

    def _is_level(self, guest: Guest) -> bool:
        known = {**guest.clients["/messages"].streams, **guest.clients["/reactions"].streams}
        return all(known.get(stream) == head for stream, head in self.heads.items())

    async def check(self) -> None:
        """After `finish`: nothing is missing, nothing is there twice, for nobody."""
        await check_everything(
            self.people, self.rooms, self.guests, self.writers, self.ledger, self.heads
        )

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


def _from(urls: list[str], number: int) -> list[str]:
    first = number % len(urls)
    return urls[first:] + urls[:first]


async def _open(people: Sequence[Account], number: int) -> str:
    body = {
        "kind": "group",
        "members": [each.id for each in people[1:]],
        "client_id": f"room-{number}",
    }
    return str((await people[0].api.post("/conversations", body, 201))["id"])
