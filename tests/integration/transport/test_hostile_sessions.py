"""Sessions of clients that keep to the protocol's letter and mean no good."""

import aiohttp
import pytest

from server.transport.session import MAX_REFUSED
from tests.integration.transport.clients import Polling, RawSocket
from tests.integration.transport.reference import ReferenceServer


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
