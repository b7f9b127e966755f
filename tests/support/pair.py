"""Two worlds in step: what is asked of one is asked of the other, and the answers are compared."""

import asyncio
import difflib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.worlds import Device, World

Step = Callable[[World], Awaitable[Any]]

PATIENCE = 10.0
"""Seconds within which what comes by itself must be the same."""

SHOWN = 12
"""Steps before a difference that are shown with it."""


class Different(AssertionError):
    """The two did not do the same."""


def _lines(value: Any) -> list[str]:
    return json.dumps(value, indent=1, ensure_ascii=False).splitlines()


def _nothing(told: Any) -> bool:
    return isinstance(told, dict) and told["unread"] == 0


class Tally:
    """What many pairs went through."""

    def __init__(self) -> None:
        self.sessions = self.steps = self.heard = 0
        self._answers: Counter[str] = Counter()

    def add(self, pair: "Pair", heard: int) -> None:
        """One more has come to its end."""
        self.sessions += 1
        self.steps += len(pair.steps)
        self.heard += heard
        self._answers.update(pair.counts)

    def show(self) -> None:
        """Print it."""
        print(f"{self.sessions} sessions, {self.steps} steps, {self.heard} durable events heard")
        print(", ".join(f"{name}: {count}" for name, count in sorted(self._answers.items())))


class Pair:
    """Two worlds, the first of which is the measure."""

    def __init__(self, one: World, other: World) -> None:
        self.one, self.other = one, other
        self.steps: list[str] = []
        self.counts: Counter[str] = Counter()

    async def do(self, what: str, step: Step, *, at_last: bool = False) -> Any:
        """Take a step in both worlds; what both answer.

        Args:
            what: the step, as it is shown.
            at_last: it reads what comes by itself: it is repeated until both answer the same.

        Raises:
            Different: they do not answer the same.
        """
        self.steps.append(what)
        deadline = time.monotonic() + PATIENCE
        while True:
            here, there = await asyncio.gather(step(self.one), step(self.other))
            if _lines(here) == _lines(there):
                return here
            if not at_last or time.monotonic() > deadline:
                raise self._different(here, there)
            await asyncio.sleep(0.05)

    def _different(self, here: Any, there: Any) -> Different:
        diff = difflib.unified_diff(
            _lines(here), _lines(there), self.one.label, self.other.label, n=4, lineterm=""
        )
        told = [line[:600] for line in diff][:120]
        steps = [each[:800] for each in self.steps[-SHOWN:]]
        number = f"step {len(self.steps)}"
        return Different("\n".join([f"{number} differs", *steps, "", *told]))

    async def rest(self, method: str, path: str, *, at_last: bool = False, **more: Any) -> Any:
        """One request: see `World.rest`."""
        shown = {name: value for name, value in more.items() if value is not None}
        answer = await self.do(
            f"{method} {path} {shown}",
            lambda world: world.rest(method, path, **more),
            at_last=at_last,
        )
        self.counts[f"REST {answer['status']}"] += 1
        return answer

    async def call(
        self, device: Device, namespace: str, command: str, data: str, *, at_last: bool = False
    ) -> Any:
        """A command over a socket."""
        answer = await self.do(
            f"{device.user}{device.number} {command} {data}",
            lambda world: world.call(device, namespace, command, data),
            at_last=at_last,
        )
        self.counts["socket " + ("ok" if answer["ok"] else answer["error"]["code"])] += 1
        return answer

    async def burst(self, device: Device, namespace: str, command: str, all: list[str]) -> Any:
        """Commands sent at once."""
        return await self.do(
            f"{device.user}{device.number} {len(all)} times {command} {all}",
            lambda world: world.burst(device, namespace, command, all),
        )

    async def connect(self, device: Device, token: str, *, resume: bool = False) -> Any:
        """Open a device, or open it anew."""
        return await self.do(
            f"{device.user}{device.number} connects, {resume=}",
            lambda world: world.connect(device, token, resume=resume),
        )

    async def cut(self, device: Device) -> None:
        """Break a device's connection off."""
        await self.do(f"{device.user}{device.number} is cut off", lambda world: world.cut(device))

    async def settle(self) -> int:
        """Wait until all clients have heard the same; how many durable events that were.

        Raises:
            Different: they have not after `PATIENCE` seconds.
        """
        self.steps.append("all is heard")
        deadline = time.monotonic() + PATIENCE
        while True:
            here, there = self._heard()
            if _lines(sorted(here.items())) == _lines(sorted(there.items())):
                return sum(len(each) for each in here.values() if isinstance(each, list))
            if time.monotonic() > deadline:
                wrong = sorted(
                    name
                    for name in here.keys() | there.keys()
                    if _lines(here.get(name)) != _lines(there.get(name))
                )
                raise self._different(
                    {name: here.get(name) for name in wrong},
                    {name: there.get(name) for name in wrong},
                )
            await asyncio.sleep(0.05)

    def _heard(self) -> tuple[dict[str, Any], dict[str, Any]]:
        here, there = self.one.heard(), self.other.heard()
        # Nothing unread is what everybody begins with, whether it is told or not.
        for found in (here, there):
            for name, told in list(found.items()):
                if "unread.updated" in name and (told == 0 or _nothing(told)):
                    del found[name]
        # Who did not resume is told of what was unread before only by chance: when another device
        # of the user resumes at the same node.
        for device in self.one.anew:
            for name in here.keys() ^ there.keys():
                if name.startswith(f"{device.user}{device.number} /messages unread.updated"):
                    here.pop(name, None)
                    there.pop(name, None)
        return here, there

    async def close(self) -> None:
        """Leave both worlds."""
        await asyncio.gather(self.one.close(), self.other.close())
