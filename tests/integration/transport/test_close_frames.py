"""Close frames are judged by RFC 6455 (7.4, 5.5.1): what may be sent is echoed, the rest refused."""

import aiohttp
import pytest

from tests.integration.transport.clients import Polling, RawSocket, frame, until
from tests.integration.transport.reference import ReferenceServer


def _code(number: int, reason: bytes = b"") -> bytes:
    return number.to_bytes(2, "big") + reason


ECHOED = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 3999, 4000, 4999]
FORBIDDEN = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]

CLOSES = {
    "nothing": (b"", 1000),
    "half a code": (b"\x03", 1002),
    **{f"{number}": (_code(number), number) for number in ECHOED},
    **{f"{number} forbidden": (_code(number), 1002) for number in FORBIDDEN},
    "with a reason": (_code(1000, "Grüße".encode()), 1000),
    "longest reason": (_code(4000, b"x" * 123), 4000),
    "reason not UTF-8": (_code(1000, b"\xff\xfe"), 1007),
    "reason half a character": (_code(1000, "ü".encode()[:1]), 1007),
    "reason a surrogate": (_code(1000, b"\xed\xa0\x80"), 1007),
    "code and reason wrong": (_code(1006, b"\xff"), 1002),
}


@pytest.mark.parametrize(("payload", "code"), CLOSES.values(), ids=CLOSES.keys())
async def test_of_a_session(
    server: ReferenceServer, raw: RawSocket, payload: bytes, code: int
) -> None:
    await raw.connect()
    raw.send_raw(frame(payload, 8))
    assert await raw.close_code() == code
    raw.abort()
    await until(lambda: server.transport.sessions == 0)
    await until(lambda: server.application.disconnects)
    ((_, reason),) = server.application.disconnects
    refused = payload not in (b"", *map(_code, ECHOED)) and code in (1002, 1007)
    assert reason == ("parse error" if refused else "transport close")
    assert server.transport.counters.malformed == refused


@pytest.mark.parametrize(
    ("payload", "code"),
    [(_code(4001), 4001), (_code(1005), 1002), (b"\x03", 1002), (_code(1000, b"\xff"), 1007)],
)
async def test_of_a_websocket_that_was_to_be_upgraded(
    server: ReferenceServer, http: aiohttp.ClientSession, payload: bytes, code: int
) -> None:
    polling = await Polling.open(http, server.polling_url)
    socket = await RawSocket.open(server.port, sid=polling.sid)
    socket.send_raw(frame(payload, 8))
    assert await socket.close_code() == code
    socket.abort()
    await polling.connect()
