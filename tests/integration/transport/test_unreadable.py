"""An event that cannot be read, or is too large, is answered where its head can be read, and the
connection goes on: a client that is cut off comes back and sends the same.
"""

import base64
import textwrap

import aiohttp
import pytest

from server.transport import large, packets
from tests.integration.transport.clients import Polling, RawSocket, frame, until
from tests.integration.transport.reference import ReferenceServer

PLACEHOLDER = '{"_placeholder":true,"num":0}'
MAX_FRAME = 65536
MAX_ATTACHMENTS = 262144


@pytest.fixture
def options() -> dict[str, object]:
    return {
        "ping_interval": 20.0,
        "ping_timeout": 20.0,
        "connect_timeout": 20.0,
        "attachment_timeout": 20.0,
    }


CONTENTS = {
    "half a surrogate pair": '["message","\\ud83d"]',
    "NaN": '["message",NaN]',
    "infinity": '["message",-Infinity]',
    "larger than a double": '["message",1e999]',
    "cut off": '["message",',
    "no JSON": "[message]",
    "something behind it": '["message"]x',
    "60,000 deep": '["message",' + "[" * 60_000,
    "deep and closed": '["message",' + "[" * 30_000 + "]" * 30_000 + "]",
    "nothing in it": "[]",
    "a number for a name": "[1]",
    "null for a name": "[null]",
    "a reserved name": '["disconnect"]',
    "a name reserved for errors": '["connect_error",{}]',
    "huge integer": '["message",1' + "0" * 60_000 + "]",
}
LARGE = '["message","' + "x" * MAX_FRAME + '"]'


async def goes_on(raw: RawSocket) -> None:
    raw.send('420["message-with-ack",1]')
    assert await raw.receive() == "430[1]"


@pytest.mark.parametrize("namespace", ["", "/custom,"])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
async def test_what_is_no_json_is_answered(
    server: ReferenceServer, raw: RawSocket, content: str, namespace: str
) -> None:
    await raw.connect()
    if namespace:
        await raw.connect(namespace)
    raw.send(f"42{namespace}{content}")
    raw.send(f"42{namespace}17{content}")
    assert await raw.receive() == f'43{namespace}17["invalid",{MAX_FRAME}]'
    raw.send(f"43{namespace}1{content}")
    await goes_on(raw)
    assert not server.transport.counters.malformed


@pytest.mark.parametrize("content", [*CONTENTS.values(), LARGE], ids=[*CONTENTS.keys(), "large"])
async def test_over_polling(
    server: ReferenceServer, http: aiohttp.ClientSession, content: str
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    body = f'4217{content}\x1e42{content}\x1e420["message-with-ack",1]'
    assert await polling.post(body) == (200, "ok")
    code = "too_large" if content == LARGE else "invalid"
    assert await polling.packets(2) == [f'4317["{code}",{MAX_FRAME}]', "430[1]"]


@pytest.mark.parametrize("cut", [(), (10,), (65_000, 0, 300), (1,)])
async def test_an_event_too_large_is_answered(raw: RawSocket, cut: tuple[int, ...]) -> None:
    await raw.connect("/custom,")
    await raw.connect()
    data, at = f"42/custom,17{LARGE}".encode(), 0
    for number, size in enumerate([*cut, len(data)]):
        part = data[at : at + size]
        at += size
        raw.send_raw(frame(part, 0 if number else 1, fin=number == len(cut)))
    raw.send(f"42{LARGE}")
    assert await raw.receive() == f'43/custom,17["too_large",{MAX_FRAME}]'
    await goes_on(raw)


@pytest.mark.parametrize("sizes", [(MAX_FRAME + 1, 3), (3, MAX_FRAME + 1), (60_000,) * 5])
async def test_attachments_too_large_are_answered(
    server: ReferenceServer, http: aiohttp.ClientSession, raw: RawSocket, sizes: tuple[int, ...]
) -> None:
    head = f'45{len(sizes)}-9["message",{PLACEHOLDER}]'
    await raw.connect()
    raw.send(head)
    for size in sizes:
        raw.send(bytes(size))
    assert await raw.receive() == f'439["too_large",{MAX_ATTACHMENTS}]'
    await goes_on(raw)
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    packets = [head, *("b" + base64.b64encode(bytes(size)).decode() for size in sizes)]
    assert await polling.post("\x1e".join(packets)) == (200, "ok")
    assert await polling.packets(1) == [f'439["too_large",{MAX_ATTACHMENTS}]']


@pytest.mark.parametrize(
    ("data", "number"), [("num", 1), ("num", -1), ("num", '"0"'), ("num", "true"), ("number", 0)]
)
async def test_a_placeholder_without_its_attachment(
    server: ReferenceServer,
    http: aiohttp.ClientSession,
    raw: RawSocket,
    data: str,
    number: object,
) -> None:
    head = f'451-9["message",{{"_placeholder":true,"{data}":{number}}}]'
    await raw.connect()
    raw.send(head)
    raw.send(b"x")
    assert await raw.receive() == f'439["invalid",{MAX_ATTACHMENTS}]'
    await goes_on(raw)
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    assert await polling.post(f"{head}\x1ebeA==") == (200, "ok")
    assert await polling.packets(1) == [f'439["invalid",{MAX_ATTACHMENTS}]']


async def test_more_attachments_than_there_may_be(
    server: ReferenceServer, http: aiohttp.ClientSession, raw: RawSocket
) -> None:
    count = packets.MAX_ATTACHMENTS + 1
    head = f'45{count}-9["message",{PLACEHOLDER}]'
    await raw.connect()
    raw.send(head)
    for _ in range(count):
        raw.send(b"x")
    assert await raw.receive() == f'439["invalid",{MAX_ATTACHMENTS}]'
    await goes_on(raw)
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    assert await polling.post("\x1e".join([head, *["beA=="] * count])) == (200, "ok")
    assert await polling.packets(1) == [f'439["invalid",{MAX_ATTACHMENTS}]']
    assert not server.transport.counters.malformed


@pytest.mark.parametrize("content", ["[NaN]", LARGE], ids=["NaN", "large"])
async def test_the_attachments_of_what_cannot_be_read_are_passed_over(
    raw: RawSocket, content: str
) -> None:
    await raw.connect()
    raw.send(f"452-9{content}")
    raw.send(b"one")
    raw.send(bytes(MAX_FRAME + 1))
    code = "too_large" if content == LARGE else "invalid"
    assert await raw.receive() == f'439["{code}",{MAX_ATTACHMENTS}]'
    await goes_on(raw)


async def test_too_much_that_is_too_large_is_a_flood(
    server: ReferenceServer, raw: RawSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "MAX_PASSED_TOTAL", 200_000)
    await raw.connect()
    for _ in range(4):
        raw.send(f"42{LARGE}")
    assert await raw.receive() == '42["closing",{"code":"flood","reconnect":false}]'
    await until(lambda: server.transport.counters.closes == {"flood": 1})


async def test_what_was_kept_while_offline_comes_in_one_request(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    packets = [f'42["take","{n}{"x" * 10_000}"]' for n in range(200)]
    assert await polling.post("\x1e".join(packets)) == (200, "ok")
    await until(lambda: len(server.application.events) == 200)
    numbers = [args[0].rstrip("x") for _, args in server.application.events]
    assert numbers == [str(n) for n in range(200)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_base64_in_lines(
    server: ReferenceServer, http: aiohttp.ClientSession, end: str
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    content = bytes(range(256)) * 256
    lines = textwrap.wrap(base64.b64encode(content).decode(), 76)
    body = f'451-["message",{PLACEHOLDER}]\x1eb' + end.join(lines) + end
    assert await polling.post(body) == (200, "ok")
    await until(lambda: server.application.events)
    assert server.application.events == [("message", [content])]


@pytest.mark.parametrize("spoiled", ["b*", "bAAA", "bAQIDBA==AQ", "b\xff"])
@pytest.mark.parametrize("before", [0, 1])
async def test_an_attachment_that_is_not_base64_is_invalid_to_its_event(
    server: ReferenceServer, http: aiohttp.ClientSession, spoiled: str, before: int
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    attachments = [spoiled, "bAQID"]
    attachments = attachments[::-1] if before else attachments
    body = [f'452-9["message",{PLACEHOLDER}]', *attachments, '420["message-with-ack",1]']
    assert await polling.post("\x1e".join(body).encode("latin-1")) == (200, "ok")
    assert await polling.packets(2) == [f'439["invalid",{MAX_ATTACHMENTS}]', "430[1]"]
    assert not server.transport.counters.malformed


async def test_base64_where_no_attachment_is_due_ends_the_session(
    server: ReferenceServer, http: aiohttp.ClientSession
) -> None:
    polling = await Polling.open(http, server.polling_url)
    await polling.connect()
    assert (await polling.post("b*"))[0] == 400
    assert server.transport.counters.malformed == 1


UNREADABLE_CONNECTS = {
    "half an object": '{"token":',
    "half an emoji": '{"token":"\\ud83d"}',
    "NaN": '{"token":NaN}',
    "words": "hello",
    "large": '{"token":"' + "x" * (MAX_FRAME + 1),
}


@pytest.mark.parametrize("namespace", ["", "/custom,"])
@pytest.mark.parametrize("content", UNREADABLE_CONNECTS.values(), ids=UNREADABLE_CONNECTS.keys())
async def test_a_connect_that_is_no_json_is_refused_and_may_be_sent_again(
    server: ReferenceServer,
    http: aiohttp.ClientSession,
    raw: RawSocket,
    content: str,
    namespace: str,
) -> None:
    refusal = f'44{namespace}{{"message":"The connect packet is not JSON (RFC 8259).",'
    raw.send(f"40{namespace}{content}")
    answer = await raw.receive()
    assert answer.startswith(refusal)
    assert '"code":"invalid"' in answer
    await raw.connect(namespace)
    polling = await Polling.open(http, server.polling_url)
    assert await polling.post(f"40{namespace}{content}") == (200, "ok")
    assert (await polling.packets(1))[0].startswith(refusal)
    await polling.connect(namespace)
    assert not server.transport.counters.malformed
