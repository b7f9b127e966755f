"""Three Sentinels, one of which falls silent together with the master it names."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.counting import until
from tests.support.joint import Joint, wait_for
from tests.support.redis import RedisProcess, require_redis

TOGETHER_WITHIN = 10.0
"""Seconds, of which the Sentinels take `DOWN_AFTER` and one or two to have a new master."""

DOWN_AFTER = 1000
"""Milliseconds after which a Sentinel takes a server for down."""


@pytest.fixture
async def joint() -> AsyncIterator[Joint]:
    require_redis()
    joint = Joint()
    yield joint
    await joint.close()


@contextlib.contextmanager
def three_sentinels(
    directory: Path,
) -> Iterator[tuple[str, RedisProcess, RedisProcess, list[RedisProcess]]]:
    """A URL, the master, its replica and the Sentinels, which know of both and of each other."""
    with ExitStack() as stack:
        master = stack.enter_context(RedisProcess(directory, "--repl-diskless-sync-delay", "0"))
        replica = stack.enter_context(
            RedisProcess(directory, "--replicaof", f"127.0.0.1 {master.port}")
        )
        wait_for(replica, ("INFO", "replication"), b"master_link_status:up")
        config = (
            f"sentinel monitor main 127.0.0.1 {master.port} 2\n"
            f"sentinel known-replica main 127.0.0.1 {replica.port}\n"
            f"sentinel down-after-milliseconds main {DOWN_AFTER}\n"
            "sentinel failover-timeout main 3000\n"
        )
        sentinels = [
            stack.enter_context(RedisProcess(directory, sentinel=config)) for _ in range(3)
        ]
        for each in sentinels:
            wait_for(each, ("SENTINEL", "CKQUORUM", "main"), b"OK 3 usable Sentinels")
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        yield f"redis+sentinel://{hosts}/main/0", master, replica, sentinels


@pytest.mark.timeout(60)
async def test_a_host_with_the_master_and_a_sentinel_falls_silent(
    joint: Joint, tmp_path: Path
) -> None:
    troubles: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, trouble: troubles.append(trouble))
    with three_sentinels(tmp_path) as (url, master, _, sentinels):
        nodes = [await joint.bus(url, timeout=2.0) for _ in range(2)]
        for each in nodes:
            each.bus.subscribe("messages/a")
        await until(lambda: all("messages/a" in each.joined for each in nodes))
        master.pause()
        sentinels[0].pause()
        number = 0
        async with asyncio.timeout(TOGETHER_WITHIN):
            while not all(each.messages for each in nodes):
                for each in nodes:
                    each.bus.publish("messages/a", b"%d" % number)
                number += 1
                await asyncio.sleep(0.05)
        await joint.close()
    gc.collect()
    assert not troubles  # such as "exception was never retrieved"
