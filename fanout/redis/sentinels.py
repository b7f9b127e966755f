"""Asking Sentinels for the master: all of them at once, so that a silent one holds nobody up."""

import asyncio
from typing import Any, cast

from redis.asyncio import Redis, Sentinel
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fanout.redis.url import Host

OTHERS_WITHIN = 0.1
"""Seconds in which others may know of a newer master, once one has answered."""


class Sentinels(Sentinel):
    """Those of one service."""

    def __init__(self, hosts: list[Host], within: float, options: dict[str, Any]) -> None:
        """`within`: seconds after which those that have not answered are asked no longer."""
        super().__init__(hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        self._within = within
        self._late = f"no answer within {within:g} s"
        self._asked: dict[tuple[int, str], asyncio.Task[tuple[int, Host]]] = {}
        """Questions that are not answered yet, by the Sentinel's place and the service."""

    async def discover_master(self, service_name: str) -> Host:
        """The master that most Sentinels name, or the one of the latest failover among those named.

        Raises:
            MasterNotFoundError: no Sentinel names one.
        """
        troubles: dict[str, None] = {}
        found: list[tuple[int, Host]] = []
        waiting = {self._question(place, service_name) for place in range(len(self.sentinels))}
        loop = asyncio.get_running_loop()
        until = loop.time() + self._within
        # Most agree on a failover: among so many answers is one that knows of the latest.
        while waiting and len(found) <= len(self.sentinels) // 2:
            done, waiting = await asyncio.wait(
                waiting, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for each in done:
                try:
                    found.append(each.result())
                except (RedisError, OSError) as error:
                    troubles[str(error) or type(error).__name__] = None
            if found:
                until = min(until, loop.time() + OTHERS_WITHIN)
        if found:
            return max(found)[1]
        if waiting:
            troubles[self._late] = None
        raise MasterNotFoundError(f"no Sentinel names a master: {'; '.join(troubles)}")

    def _question(self, place: int, service: str) -> "asyncio.Task[tuple[int, Host]]":
        """One to one Sentinel. Who wants to know meanwhile waits for the same answer: of a host that is
        silent, or whose name cannot be looked up, no questions heap up.
        """
        asked = self._asked.get((place, service))
        if asked is None:
            asked = asyncio.get_running_loop().create_task(
                self._ask(self.sentinels[place], service)
            )
            self._asked[place, service] = asked
            asked.add_done_callback(lambda task: self._answered(place, service, task))
        return asked

    def _answered(self, place: int, service: str, task: "asyncio.Task[tuple[int, Host]]") -> None:
        del self._asked[place, service]
        if not task.cancelled():
            task.exception()  # nobody may wait for it any more

    async def aclose(self) -> None:
        """Ask nobody any more."""
        waiting = list(self._asked.values())
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await super().aclose()

    async def _ask(self, sentinel: Redis, service: str) -> tuple[int, Host]:
        try:
            async with asyncio.timeout(self._within):
                masters = cast("dict[str, dict[str, Any]]", await sentinel.sentinel_masters())
        except TimeoutError:
            raise RedisTimeoutError(self._late) from None
        state = masters.get(service)
        if state is None:
            raise MasterNotFoundError(f"{service} is not known")
        if not self.check_master_state(state, service):
            raise MasterNotFoundError(f"{service} is down")
        return state["config-epoch"], (state["ip"], state["port"])
