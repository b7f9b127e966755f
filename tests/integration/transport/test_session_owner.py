"""A session's id alone is not enough to act as its user (decision 0017)."""

import aiohttp
import pytest

from server.transport import transport
from tests.integration.transport.clients import Polling, RawSocket
from tests.integration.transport.reference import ReferenceServer

PAGE = "https://app.example"


@pytest.fixture
def options() -> dict[str, object]:
    return {"ping_interval": 20.0, "ping_timeout": 20.0, "origins": lambda _origin: True}


@pytest.mark.parametrize(
    "other",
    [
        {"User-Agent": "curl/8"},
        {"User-Agent": ""},
        {"Origin": "https://other.example"},
        {"Origin": "null"},
    ],
)
async def test_another_client_cannot_poll_a_session(
    server: ReferenceServer, http: aiohttp.ClientSession, other: dict[str, str]
) -> None:
    own = {"User-Agent": "Browser/1", "Origin": PAGE}
    async with aiohttp.ClientSession(headers=own) as owner:
        polling = await Polling.open(owner, server.polling_url)
        await polling.connect()
        for call in (
            http.get(polling.url, headers=own | other),
            http.post(polling.url, data='42["message",1]', headers=own | other),
        ):
            async with call as reply:
                assert reply.status == 400
                assert await reply.json() == {"code": 1, "message": "Session ID unknown"}
        assert not server.application.events
        assert await polling.post('42["message",2]') == (200, "ok")
        assert await polling.packets(1) == ['42["message-back",2]']


async def test_a_page_of_the_server_names_itself_when_it_posts_alone(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    async with http.post(polling.url, data="40", headers={"Origin": server.url}) as reply:
        assert reply.status == 200
    assert (await polling.packets(1))[0].startswith("40")


async def test_an_old_session_is_not_upgraded(
    server: ReferenceServer, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    polling = await Polling.open(http, server.polling_url)
    (await RawSocket.open(server.port, sid=polling.sid)).abort()
    monkeypatch.setattr(transport, "_UPGRADE_SECONDS", 0.0)
    with pytest.raises(ConnectionRefusedError, match="400"):
        await RawSocket.open(server.port, sid=polling.sid)
    await polling.connect()
