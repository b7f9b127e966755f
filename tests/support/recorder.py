"""What every test client has: all events it saw, waiting for one, and where it stands."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Predicate = Callable[[Any], bool]


class Event(NamedTuple):
    """One event as a client got it."""

    name: str
    data: Any
    """Its one argument: for Parley's events, the envelope."""
    at: float
    """`time.monotonic()` of its arrival."""


class CommandFailed(AssertionError):
    """A command answered `ok: false`."""

    def __init__(self, command: str, error: dict[str, Any]) -> None:
        super().__init__(f"{command}: {error}")
        self.error = error
        self.code: str = error["code"]


class ConnectRefused(AssertionError):
    """The server answered `connect_error`."""

    def __init__(self, error: Any) -> None:
        super().__init__(f"connect_error: {error}")
        self.message: str | None = error.get("message") if isinstance(error, dict) else None
        self.data: Any = error.get("data") if isinstance(error, dict) else None
        self.code: str | None = self.data.get("code") if isinstance(self.data, dict) else None


def unwrap(command: str, ack: Any) -> Any:
    """The `data` of an ack.

    Raises:
        CommandFailed: the ack says `ok: false`.
    """
    if not ack["ok"]:
        raise CommandFailed(command, ack["error"])
    return ack["data"]


class Recorder:
    """Keeps events in the order of arrival, over any number of reconnects."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.streams: dict[str, dict[str, Any]] = {}
        """Where this client stands: `{<stream>: {epoch, seq}}`, as `auth.resume` takes it."""
        self._changed = asyncio.Event()

    def record(self, name: str, data: Any) -> None:
        """Note an event, and what it says about where streams stand."""
        self.events.append(Event(name, data, time.monotonic()))
        if name == "ready":
            for stream, head in data.get("streams", {}).items():
                self._stand(stream, head["epoch"], head["seq"])
        elif isinstance(data, dict) and "stream" in data and "seq" in data:
            self._stand(data["stream"], data["epoch"], data["seq"])
        self.notify()

    def _stand(self, stream: str, epoch: str, seq: int) -> None:
        known = self.streams.get(stream)
        if known is None or known["epoch"] != epoch or known["seq"] < seq:
            self.streams[stream] = {"epoch": epoch, "seq": seq}

    def notify(self) -> None:
        """Wake who waits for a condition."""
        self._changed.set()
        self._changed = asyncio.Event()

    def mark(self) -> int:
        """A place in `events`: what comes from now on is at or after it."""
        return len(self.events)

    def named(self, name: str, since: int = 0) -> list[Any]:
        """The data of all events of this name, from a mark on."""
        return [event.data for event in self.events[since:] if event.name == name]

    def seqs(self, stream: str) -> list[int]:
        """The seqs of a stream's durable events, in the order of arrival."""
        return [
            event.data["seq"]
            for event in self.events
            if isinstance(event.data, dict)
            and event.data.get("stream") == stream
            and "seq" in event.data
        ]

    async def wait_for(
        self, name: str, where: Predicate | None = None, *, since: int = 0, timeout: float = 5.0
    ) -> Any:
        """The data of the first event of this name that fulfils `where`, recorded or to come.

        Args:
            name: the event's name.
            where: given the event's data.
            since: a `mark()`, to look at later events only.
            timeout: seconds until it is a failure.
        """
        place = since

        def found() -> bool:
            nonlocal place
            while place < len(self.events):
                event = self.events[place]
                if event.name == name and (where is None or where(event.data)):
                    return True
                place += 1
            return False

        await self.until(found, timeout=timeout, what=name)
        return self.events[place].data

    async def until(
        self, condition: Callable[[], bool], *, timeout: float = 5.0, what: str = "condition"
    ) -> None:
        """Wait until something is true, looked at after each event and change of connection."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            seen = ", ".join(event.name for event in self.events[-20:]) or "nothing"
            raise AssertionError(f"no {what} within {timeout:g} s; last seen: {seen}") from None
