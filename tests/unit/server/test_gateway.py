"""What the gateway answers when something under it gives up."""

import asyncio
from typing import Any, cast

import pytest

from server.gateway import Gateway
from server.transport.application import Connection, ConnectRefused


class Given:
    """A connection, a registry and a dispatcher whose commands wait for what others cancel."""

    namespace = "/messages"
    namespaces = ("/messages",)
    remote = user_agent = ""

    def __init__(self) -> None:
        self.id = "c1"
        self.state: Any = self
        self.principal = None
        self.began = asyncio.Event()
        self.shared: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def find(self, namespace: str, name: str) -> str:
        return name

    async def run(self, *args: object) -> Any:
        self.began.set()
        return await self.shared

    def claim(self, user: str) -> bool:
        return True

    async def authenticate(self, token: str, remote: str) -> Any:
        return await self.run()


def gateway(given: Given) -> Gateway:
    any_given = cast("Any", given)
    return Gateway(
        given.authenticate, any_given, any_given, any_given, any_given, (), clock=any_given
    )


async def test_a_command_whose_work_is_cancelled_is_answered() -> None:
    given = Given()
    connection = cast("Connection", given)
    task = asyncio.create_task(gateway(given).event(connection, "message.send", [{}]))
    await given.began.wait()
    given.shared.cancel()
    answer = await task
    assert answer is not None
    assert answer[0]["error"]["code"] == "unavailable"


async def test_a_connect_whose_work_is_cancelled_is_refused() -> None:
    given = Given()
    connection = cast("Connection", given)
    task = asyncio.create_task(gateway(given).connect(connection, {"token": "t"}))
    await given.began.wait()
    given.shared.cancel()
    with pytest.raises(ConnectRefused) as refused:
        await task
    assert refused.value.data is not None
    assert refused.value.data["code"] == "unavailable"


async def test_a_command_that_is_itself_cancelled_ends() -> None:
    given = Given()
    connection = cast("Connection", given)
    task = asyncio.create_task(gateway(given).event(connection, "message.send", [{}]))
    await given.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
