"""Sessions of clients that keep to the protocol's letter and mean no good."""

import asyncio

import aiohttp
import pytest

from server.transport import admission
from server.transport.session import MAX_REFUSED
from tests.integration.transport.clients import Polling, RawSocket
from tests.integration.transport.reference import ReferenceServer, serve


@pytest.fixture
def options() -> dict[str, object]:
    return {"ping_interval": 20.0, "ping_timeout": 20.0, "connect_timeout": 20.0}


@pytest.mark.parametrize("namespace", ["/refusing,", "/none,"])
async def test_a_client_that_is_refused_again_and_again_is_sent_away(
    server: ReferenceServer, raw: RawSocket, namespace: str
) -> None:
    for _ in range(MAX_REFUSED):
        raw.send(f"40{namespace}")
        assert (await raw.receive()).startswith(f"44{namespace}")
    await raw.connect()
    for _ in range(MAX_REFUSED):
        raw.send(f"40{namespace}")
        assert (await raw.receive()).startswith(f"44{namespace}")
    raw.send(f"40{namespace}")
    assert await raw.close_code() == 1007


async def test_of_two_upgrades_only_one_becomes_the_transport(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    """The other is closed, before and after: nobody would ever close it later."""
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    first, second, third = [await RawSocket.open(server.port, sid=polling.sid) for _ in range(3)]
    first.send("2probe")
    assert await first.receive() == "3probe"
    second.send("2probe")
    assert await second.close_code() == 1000
    first.send("5")
    first.send('421["message-with-ack",1]')
    assert await first.receive() == "431[1]"
    third.send("2probe")
    assert await third.close_code() == 1000
    first.send('422["message-with-ack",2]')
    assert await first.receive() == "432[2]"
    for each in (first, second, third):
        each.abort()


async def test_strangers_do_not_keep_others_out(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens sessions and never connects loses the oldest, and only to those who come."""
    monkeypatch.setattr(admission, "STRANGER_SECONDS", 0.2)
    async with serve(max_sessions=5, ping_interval=20.0, connect_timeout=20.0) as server:
        known = await RawSocket.open(server.port)
        await known.connect()
        strangers = [await Polling.open(http, server.polling_url) for _ in range(4)]
        async with http.get(server.polling_url) as response:
            assert response.status == 503
        await asyncio.sleep(0.25)
        other = await RawSocket.open(server.port)
        await other.connect()
        assert (await strangers[0].get())[0] == 400
        assert (await strangers[1].post("40"))[0] == 200
        known.send('421["message-with-ack",1]')
        assert await known.receive() == "431[1]"
        assert server.transport.sessions == 5
        known.abort()
        other.abort()
