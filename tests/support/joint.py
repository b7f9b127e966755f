"""Buses of several nodes on one Redis, whatever its form."""

import time
from contextlib import AsyncExitStack

from domain.clock import SystemClock
from fanout.redis.bus import RedisBus
from fanout.redis.servers import open_servers
from tests.support.redis import RedisProcess


class Heard:
    """A bus and what it heard."""

    def __init__(self, bus: RedisBus) -> None:
        self.bus = bus
        self.messages: list[bytes] = []
        self.joined: set[str] = set()


class Joint:
    """Makes buses on one URL, and closes them."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def bus(self, url: str, *, timeout: float = 1.0) -> Heard:
        servers = open_servers(url, timeout=timeout)
        self._stack.push_async_callback(servers.close)
        heard = Heard(RedisBus(servers, SystemClock()))
        await heard.bus.start(
            lambda _channel, message: heard.messages.append(message), heard.joined.update
        )
        self._stack.push_async_callback(heard.bus.stop)
        return heard

    async def close(self) -> None:
        await self._stack.aclose()


def wait_for(redis: RedisProcess, command: tuple[str, ...], text: bytes) -> None:
    deadline = time.monotonic() + 20
    while text not in redis.say(*command):
        assert time.monotonic() < deadline, redis.say(*command)
        time.sleep(0.05)
