"""Forms with a file, read as they come: what is well formed arrives whole, all else is refused."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from domain.errors import ParleyError
from server.http import multipart
from server.http.multipart import OVERHEAD, FileForm
from server.transport.arriving import Arriving

MAX_FILE = 100_000
BOUNDARY = "----boundary"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(disposition: str, body: bytes, *headers: str) -> bytes:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body + b"\r\n"


def file(body: bytes, name: str = "a.txt") -> bytes:
    return part(f'form-data; name="file"; filename="{name}"', body, "Content-Type: text/plain")


def field(name: str, value: bytes) -> bytes:
    return part(f'form-data; name="{name}"', value)


END = f"--{BOUNDARY}--\r\n".encode()


class Reader:
    """A server that reads forms and remembers what it read."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        self.error: ParleyError | None = None

    async def handle(self, request: web.Request) -> web.Response:
        form = FileForm(request, MAX_FILE, Arriving(1 << 20).share(stranger=False))
        try:
            await form.open(frozenset({"conversation"}))
            size = form.size
            body = b"".join([chunk async for chunk in form.chunks()])
        except ParleyError as error:
            self.error = error
            return web.Response(status=error.status)
        self.seen = {
            "fields": form.fields,
            "name": form.name,
            "type": form.content_type,
            "size": size,
            "body": body,
        }
        return web.Response()


@pytest.fixture
async def reader() -> Reader:
    return Reader()


@pytest.fixture
async def port(reader: Reader) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_post("/", reader.handle)
    runner = web.AppRunner(app, handler_cancellation=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def send(
    port: int,
    body: bytes,
    *,
    content_type: str = TYPE,
    chunked: bool = False,
    length: int | None = None,
    slices: int | None = None,
) -> int:
    """POST a body as it is, in slices if asked; the status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    framing = (
        "Transfer-Encoding: chunked"
        if chunked
        else f"Content-Length: {len(body) if length is None else length}"
    )
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n{framing}\r\n"
    writer.write((head + "Connection: close\r\n\r\n").encode())
    step = slices or max(len(body), 1)
    for at in range(0, len(body), step):
        piece = body[at : at + step]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
        if slices:
            await asyncio.sleep(0)
    if chunked:
        writer.write(b"0\r\n\r\n")
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("%22a%22.txt", '"a".txt'),
        ("b%C3%A4r.png", "b\u00e4r.png"),
        ("100% %zz.txt", "100% %zz.txt"),
        ("%ff.txt", "%ff.txt"),
    ],
)
async def test_names_without_their_escapes(port: int, reader: Reader, sent: str, name: str) -> None:
    assert await send(port, file(b"x", sent) + END) == 200
    assert reader.seen["name"] == name


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("slices", [None, 1, 7])
async def test_a_form_arrives_whole(
    port: int, reader: Reader, chunked: bool, slices: int | None
) -> None:
    body = b"first\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n\r\nlast\r\n"
    form = field("conversation", b"c1") + file(body, "\u00e4 %22quoted%22.txt") + END
    assert await send(port, form, chunked=chunked, slices=slices) == 200
    assert reader.seen == {
        "fields": {"conversation": "c1"},
        "name": '\u00e4 "quoted".txt',
        "type": "text/plain",
        "size": None if chunked else len(body),
        "body": body,
    }


async def test_a_large_file_arrives_whole(port: int, reader: Reader) -> None:
    body = bytes(range(256)) * 390
    assert await send(port, file(body) + END) == 200
    assert reader.seen["body"] == body


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        (b"", "not well-formed"),
        (b"nonsense", "not well-formed"),
        (END, "file: is missing"),
        (field("conversation", b"c1") + END, "file: is missing"),
        (field("other", b"x") + file(b"x") + END, "other: unknown field"),
        (field("conversation", b"1") * 2 + file(b"x") + END, "conversation: unknown field"),
        (field("conversation", b"x" * 2000) + file(b"x") + END, "conversation: must have at most"),
        (field("conversation", b"\xff") + file(b"x") + END, "not well-formed"),
        (part("form-data", b"x") + END, "request: unknown field"),
        (file(b"x") + file(b"y") + END, "file: must be the last field"),
        (file(b"x") + field("conversation", b"c") + END, "file: must be the last field"),
        (file(b"x"), "not well-formed"),
        (file(b"x")[:-2], "not well-formed"),
        (file(b"x") + END.replace(b"----b", b"----c"), "not well-formed"),
        (
            part('form-data; name="file"', b"eA==", "Content-Transfer-Encoding: base64") + END,
            "without Content-Transfer-Encoding",
        ),
        (
            part('form-data; name="file"', b"x", "Content-Type: multipart/mixed; boundary=y") + END,
            "must not be multipart",
        ),
        (
            f"--{BOUNDARY}\r\n".encode() + b"X-A: b\r\n" * 1000 + b"\r\nx\r\n" + END,
            "not well-formed",
        ),
        (f"--{BOUNDARY}\r\nX-A: ".encode() + b"b" * 20_000 + b"\r\n\r\n" + END, "not well-formed"),
    ],
)
async def test_what_is_no_such_form_is_refused(
    port: int, reader: Reader, form: bytes, complaint: str
) -> None:
    assert await send(port, form) == 400
    assert complaint in str(reader.error)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "multipart/mixed; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 100,
        "multipart/form-data; boundary=wrong",
    ],
)
async def test_another_type_or_boundary_is_refused(
    port: int, reader: Reader, content_type: str
) -> None:
    assert await send(port, file(b"x") + END, content_type=content_type) == 400


async def test_a_body_that_ends_early_is_refused(port: int, reader: Reader) -> None:
    whole = file(b"x" * 1000) + END
    await send_partial(port, whole[:500], len(whole))
    async with asyncio.timeout(5):
        while reader.error is None:
            await asyncio.sleep(0.01)
    assert "ended early" in str(reader.error)


async def send_partial(port: int, body: bytes, length: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_a_length_over_the_limit_is_refused_unread(port: int, reader: Reader) -> None:
    assert await send(port, b"", length=MAX_FILE + OVERHEAD + 1) == 413


async def test_more_than_the_limit_without_a_length_is_refused(port: int, reader: Reader) -> None:
    form = file(b"x" * (MAX_FILE + OVERHEAD + 1)) + END
    assert await send(port, form, chunked=True, slices=10_000) == 413


async def test_an_endless_preamble_is_refused(port: int, reader: Reader) -> None:
    form = b"no boundary\r\n" * 20_000
    assert await send(port, form, chunked=True, slices=10_000) == 413


async def test_a_body_that_stops_coming_is_given_up(
    port: int, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "IDLE", 0.05)
    answers, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: 5000\r\n\r\n"
    writer.write(head.encode() + file(b"x" * 100))
    async with asyncio.timeout(5):
        assert b" 503 " in await answers.readline()
    writer.close()


async def test_a_body_that_trickles_is_given_up(
    port: int, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "GRACE", 0.0)
    monkeypatch.setattr(multipart, "MIN_RATE", 1 << 40)
    assert await send(port, file(b"x" * 100) + END, slices=50) == 503
