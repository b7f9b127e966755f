"""Asking Sentinels for the master: all of them at once, so that a silent one holds nobody up."""

import asyncio
from typing import Any, cast

from redis.asyncio import Redis, Sentinel
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import RedisError

from fanout.redis_url import Host

OTHERS_WITHIN = 0.1
"""Seconds in which others may know of a newer master, once one has answered."""


class Sentinels(Sentinel):
    """Those of one service."""

    def __init__(self, hosts: list[Host], within: float, options: dict[str, Any]) -> None:
        """`within`: seconds after which those that have not answered are asked no longer."""
        super().__init__(hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        self._within = within

    async def discover_master(self, service_name: str) -> Host:
        """The master that most Sentinels name, or the one of the latest failover among those named.

        Raises:
            MasterNotFoundError: no Sentinel names one.
        """
        troubles: dict[str, None] = {}
        found: list[tuple[int, Host]] = []
        asked = {asyncio.ensure_future(self._ask(each, service_name)) for each in self.sentinels}
        waiting = set(asked)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._within
        try:
            # Most agree on a failover: among so many answers is one that knows of the latest.
            while waiting and len(found) <= len(asked) // 2:
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
        finally:
            for each in waiting:
                each.cancel()
        if found:
            return max(found)[1]
        if waiting:
            troubles[f"no answer within {self._within:g} s"] = None
        raise MasterNotFoundError(f"no Sentinel names a master: {'; '.join(troubles)}")

    async def _ask(self, sentinel: Redis, service: str) -> tuple[int, Host]:
        masters = cast("dict[str, dict[str, Any]]", await sentinel.sentinel_masters())
        state = masters.get(service)
        if state is None:
            raise MasterNotFoundError(f"{service} is not known")
        if not self.check_master_state(state, service):
            raise MasterNotFoundError(f"{service} is down")
        return state["config-epoch"], (state["ip"], state["port"])
