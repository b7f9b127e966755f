"""The upload routes over a real socket: what goes in comes out, safely; what is hostile is refused
and leaves nothing behind.
"""

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from actions.streams.streams import Rules
from actions.uploads.uploads import Limits, Uploads
from domain.clock import SystemClock
from domain.errors import Unauthenticated
from domain.principals import Principal, Role
from domain.streams import StreamName
from handlers.command import Registry
from handlers.dispatcher import Dispatcher
from handlers.uploads.uploads import UploadCommands
from server.http.addresses import Addresses
from server.http.middleware import Surroundings
from server.http.rest import Rest
from server.http.uploads import OPENAPI, UploadRoutes
from server.metrics.metrics import Metrics
from server.transport.arriving import Arriving
from store.sqlite import SqliteEngine
from store.uploads.blobs_disk import DiskBlobs
from store.uploads.uploads import COLLECTIONS, UploadRepository

MIB = 1024 * 1024
LIMITS = Limits(size=2 * MIB, quota=5 * MIB, unattached=3600)
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 400
HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
BOUNDARY = "b0undary"

MEMBERS = {"c1": {"ada", "bob"}, "c2": {"bob"}}


class Unlimited:
    async def take(self, bucket: str, key: str) -> float:
        return 0.0


async def authenticate(token: str, _: str) -> Principal:
    user, _, org = token.partition("@")
    if user not in {"ada", "bob", "cid"}:
        raise Unauthenticated("No such token.")
    return Principal(user, org or "default", Role.MEMBER, "s1", 2e9)


async def may_read(principal: Principal, stream: StreamName) -> bool:
    return principal.org == "default" and principal.user in MEMBERS.get(stream.id, ())


class Site:
    """A server with the upload routes alone, and a client."""

    def __init__(self, path: Path, port: int, session: aiohttp.ClientSession) -> None:
        self.path = path
        self.port = port
        self.url = f"http://127.0.0.1:{port}/api/v1/uploads"
        self.session = session

    def files(self) -> list[Path]:
        return [each for each in (self.path / "uploads").rglob("*") if each.is_file()]

    async def ask(
        self, method: str, rest: str = "", *, by: str = "ada", **more: Any
    ) -> tuple[int, Any, bytes]:
        headers = {"Authorization": f"Bearer {by}", **more.pop("headers", {})}
        async with self.session.request(method, self.url + rest, headers=headers, **more) as answer:
            return answer.status, answer.headers, await answer.read()

    async def put(
        self,
        body: bytes,
        content_type: str | None = None,
        name: str | None = "a.bin",
        *,
        by: str = "ada",
        **fields: str,
    ) -> dict[str, Any]:
        status, _, answer = await self.try_put(body, content_type, name, by=by, **fields)
        assert status == 201, answer
        return orjson.loads(answer)

    async def try_put(
        self,
        body: bytes,
        content_type: str | None = None,
        name: str | None = "a.bin",
        *,
        by: str = "ada",
        **fields: str,
    ) -> tuple[int, Any, bytes]:
        form = aiohttp.FormData()
        for field, value in fields.items():
            form.add_field(field, value)
        form.add_field("file", io.BytesIO(body), content_type=content_type, filename=name)
        return await self.ask("POST", by=by, data=form)

    async def raw(self, body: bytes, *headers: str) -> bytes:
        """A request as it is, and the whole answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = ["POST /api/v1/uploads HTTP/1.1", "Host: x", "Authorization: Bearer ada", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
            answer = head + await reader.readexactly(int(length))
        writer.close()
        return answer

    async def check_nothing_left(self) -> None:
        """No file, no quota used, no upload listed."""
        async with asyncio.timeout(5):
            while self.files():
                await asyncio.sleep(0.01)
            while True:
                _, _, body = await self.ask("GET")
                page = orjson.loads(body)
                if page["used"] == 0:
                    break
                await asyncio.sleep(0.01)
        assert page["items"] == []


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Site]:
    clock = SystemClock()
    engine = SqliteEngine(path / "test.db", COLLECTIONS, clock=clock)
    blobs = DiskBlobs(path / "uploads")
    await engine.start()
    await blobs.start()
    rules = Rules()
    rules.declare("messages", may_read)
    uploads = Uploads(UploadRepository(engine), blobs, rules, clock, LIMITS)
    metrics = Metrics()
    dispatcher = Dispatcher(Unlimited(), metrics)
    registry = Registry([UploadCommands(uploads)], ["/messages"])
    rest = Rest(registry, dispatcher, authenticate, Addresses(()), 100_000, Arriving(1 << 20))
    app = web.Application(middlewares=[Surroundings(metrics).surround], client_max_size=100_000)
    UploadRoutes(rest, dispatcher, uploads, LIMITS.size).attach(app)
    rest.attach(app)
    runner = web.AppRunner(app, handler_cancellation=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Site(path, runner.addresses[0][1], session)
    finally:
        await runner.cleanup()
        await blobs.stop()
        await engine.stop()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(tmp_path) as site:
        yield site


def form(body: bytes, disposition: str = 'form-data; name="file"; filename="a"') -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n"
    return head.encode("utf-8", "surrogateescape") + body + f"\r\n--{BOUNDARY}--\r\n".encode()


FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"


# -- what goes in comes out -----------------------------------------------------------------------


async def test_there_and_back(site: Site) -> None:
    status, headers, body = await site.try_put(PNG, "image/png", "bär.png")
    made = orjson.loads(body)
    assert status == 201
    assert headers["Location"] == f"/api/v1/uploads/{made['id']}"
    assert (made["name"], made["content_type"], made["size"]) == ("bär.png", "image/png", len(PNG))
    status, headers, body = await site.ask("GET", f"/{made['id']}")
    assert (status, body) == (200, PNG)
    expected = {
        "Content-Type": "image/png",
        "Content-Length": str(len(PNG)),
        "Content-Disposition": "inline; filename=\"bar.png\"; filename*=UTF-8''b%C3%A4r.png",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Accept-Ranges": "bytes",
        "ETag": f'"{hashlib.sha256(PNG).hexdigest()}"',
        "Cache-Control": "private, no-cache",
    }
    assert {name: headers[name] for name in expected} == expected


async def test_head_tells_the_same_without_the_bytes(site: Site) -> None:
    made = await site.put(PNG, "image/png")
    _, full, _ = await site.ask("GET", f"/{made['id']}")
    status, headers, body = await site.ask("HEAD", f"/{made['id']}")
    assert (status, body) == (200, b"")
    skip = {"Date", "X-Request-ID"}
    assert {k: v for k, v in headers.items() if k not in skip} == {
        k: v for k, v in full.items() if k not in skip
    }


async def test_a_large_file_comes_back_whole(site: Site) -> None:
    data = os.urandom(2 * MIB)
    made = await site.put(data)
    assert made["sha256"] == hashlib.sha256(data).hexdigest()
    _, _, body = await site.ask("GET", f"/{made['id']}")
    assert body == data


async def test_ranges(site: Site) -> None:
    made = await site.put(PNG, "image/png")
    at = f"/{made['id']}"
    size = len(PNG)

    async def ranged(value: str, **headers: str) -> tuple[int, Any, bytes]:
        return await site.ask("GET", at, headers={"Range": value, **headers})

    status, headers, body = await ranged("bytes=10-19")
    assert (status, body) == (206, PNG[10:20])
    assert headers["Content-Range"] == f"bytes 10-19/{size}"
    assert headers["Content-Length"] == "10"
    status, _, body = await ranged("bytes=-7")
    assert (status, body) == (206, PNG[-7:])
    status, _, body = await ranged(f"bytes={size - 3}-")
    assert (status, body) == (206, PNG[-3:])
    status, headers, body = await ranged(f"bytes={size}-")
    assert status == 416
    assert headers["Content-Range"] == f"bytes */{size}"
    assert headers["Content-Type"] == "application/problem+json"
    assert orjson.loads(body)["status"] == 416
    status, _, body = await ranged("bytes=0-1,5-6")
    assert (status, body) == (200, PNG)
    status, _, body = await ranged("bytes=0-1", **{"If-Range": '"other"'})
    assert (status, body) == (200, PNG)
    status, headers, _ = await ranged("bytes=0-1", **{"If-Range": f'"{made["sha256"]}"'})
    assert status == 206
    status, _, _ = await ranged("bytes=0-1", **{"If-Range": headers["Last-Modified"]})
    assert status == 206


async def test_what_the_client_has_is_not_sent_again(site: Site) -> None:
    made = await site.put(PNG, "image/png")
    _, full, _ = await site.ask("GET", f"/{made['id']}")
    for headers in (
        {"If-None-Match": full["ETag"]},
        {"If-Modified-Since": full["Last-Modified"]},
    ):
        status, _, body = await site.ask("GET", f"/{made['id']}", headers=headers)
        assert (status, body) == (304, b"")
    # What the reader may no longer have is not confirmed either.
    headers = {"If-None-Match": full["ETag"]}
    status, _, _ = await site.ask("GET", f"/{made['id']}", by="cid", headers=headers)
    assert status == 404


@pytest.mark.parametrize(
    ("body", "content_type", "served"),
    [
        (HTML, "text/html", "text/html"),
        (SVG, "image/svg+xml", "image/svg+xml"),
        (b"<?xml version='1.0'?><a/>", "text/xml", "application/xml"),
        (b"%PDF-1.7\n\xe2\xe3", "application/pdf", "application/pdf"),
        (b"alert(1)", "text/javascript", "application/octet-stream"),
        (b"<p>piece", "application/xhtml+xml", "application/octet-stream"),
    ],
)
async def test_what_a_browser_could_run_is_only_saved(
    site: Site, body: bytes, content_type: str, served: str
) -> None:
    made = await site.put(body, content_type, "x.html")
    _, headers, _ = await site.ask("GET", f"/{made['id']}")
    assert headers["Content-Type"] == served
    assert headers["Content-Disposition"].startswith("attachment;")
    assert headers["X-Content-Type-Options"] == "nosniff"


async def test_text_is_shown_as_text(site: Site) -> None:
    made = await site.put("<b>hä".encode(), "text/plain", "a.txt")
    _, headers, _ = await site.ask("GET", f"/{made['id']}")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Content-Disposition"] == 'inline; filename="a.txt"'


async def test_download_forces_saving(site: Site) -> None:
    made = await site.put(PNG, "image/png", "a.png")
    _, headers, _ = await site.ask("GET", f"/{made['id']}?download=1")
    assert headers["Content-Disposition"] == 'attachment; filename="a.png"'
    status, _, _ = await site.ask("GET", f"/{made['id']}?download=perhaps")
    assert status == 400
    status, _, _ = await site.ask("GET", f"/{made['id']}?upload=x")
    assert status == 400
    status, _, _ = await site.ask("GET", f"/{made['id']}?token=x")
    assert status == 400


async def test_the_same_client_id_answers_the_first_result(site: Site) -> None:
    first = await site.put(PNG, "image/png", client_id="k")
    assert await site.put(PNG, "image/png", client_id="k") == first
    status, _, _ = await site.try_put(PNG + b"x", "image/png", client_id="k")
    assert status == 409
    assert len(site.files()) == 1


# -- who may --------------------------------------------------------------------------------------


async def test_only_those_who_may(site: Site) -> None:
    mine = await site.put(PNG, "image/png")
    shared = await site.put(PNG, "image/png", conversation="c1")
    for by in ("bob", "cid", "ada@elsewhere", "bob@elsewhere"):
        for method, more in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-1"})):
            status, _, _ = await site.ask(method, f"/{mine['id']}", by=by, headers=more)
            assert status == 404
        status, _, _ = await site.ask("DELETE", f"/{mine['id']}", by=by)
        assert status == 404
    for by, expected in (("bob", 200), ("cid", 404), ("bob@elsewhere", 404)):
        status, _, _ = await site.ask("GET", f"/{shared['id']}", by=by)
        assert status == expected
    status, headers, _ = await site.ask("GET", f"/{mine['id']}", by="nobody")
    assert status == 401
    assert headers["Content-Type"] == "application/problem+json"
    status, _, _ = await site.try_put(PNG, by="nobody")
    assert status == 401
    status, _, _ = await site.try_put(PNG, conversation="c2")
    assert status == 404
    assert len(site.files()) == 2


async def test_deleting(site: Site) -> None:
    made = await site.put(PNG, "image/png", conversation="c1")
    status, _, _ = await site.ask("DELETE", f"/{made['id']}")
    assert status == 200
    for by in ("ada", "bob"):
        status, _, _ = await site.ask("GET", f"/{made['id']}", by=by)
        assert status == 404
    await site.check_nothing_left()


# -- hostile --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../x", "x"),
        ("..\\..\\x.exe", "x.exe"),
        ("a\0b", "ab"),
        ("n" * 7000 + ".png", "n" * 251 + ".png"),
        ("\udcff\udcfe.png", "png"),
        ("", "file"),
        ("..", "file"),
        ("%2e%2e%2fx", "x"),
        ("x\u202etxt.exe", "xtxt.exe"),
    ],
)
async def test_names_are_made_safe(site: Site, name: str, kept: str) -> None:
    body = form(b"data", f'form-data; name="file"; filename="{name}"')
    answer = await site.raw(body, FORM, f"Content-Length: {len(body)}")
    if b" 201 " not in answer.splitlines()[0]:
        # A NUL or a byte that is no UTF-8 may be refused as well.
        assert b" 400 " in answer.splitlines()[0]
        assert not name.isprintable()
        await site.check_nothing_left()
        return
    made = orjson.loads(answer.partition(b"\r\n\r\n")[2])
    assert made["name"] == kept
    (file,) = site.files()
    assert file.name == made["id"]
    assert file.is_relative_to(site.path / "uploads")


async def test_no_name_at_all(site: Site) -> None:
    body = form(b"data", 'form-data; name="file"')
    answer = await site.raw(body, FORM, f"Content-Length: {len(body)}")
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["name"] == "file"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        form(b"x").replace(BOUNDARY.encode(), b"another"),
        form(b"x", 'form-data; name="other"'),
        form(b"x", "form-data"),
        form(b"x", "nonsense"),
        form(b""),
        form(b"x" * 1000)[:-10],
        form(b"x").replace(b"--b0undary--", b"") + form(b"y"),
        form(b"x", 'form-data; name="conversation"'),
        form(b"x", 'form-data; name="conversation"\r\nX: ' + "y" * 9000),
    ],
)
async def test_bad_forms_are_problems_and_leave_nothing(site: Site, body: bytes) -> None:
    answer = await site.raw(body, FORM, f"Content-Length: {len(body)}")
    head, _, problem = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0], answer[:300]
    assert b"application/problem+json" in head
    assert orjson.loads(problem)["code"] == "invalid"
    await site.check_nothing_left()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Content-Type: application/json"], 415),
        (["Content-Type: multipart/form-data"], 400),
        ([], 415),
        ([FORM, "Content-Encoding: nonsense"], 400),
        ([FORM, "Content-Encoding: gzip"], 400),
    ],
)
async def test_what_is_no_form(site: Site, headers: list[str], status: int) -> None:
    body = form(b"x")
    answer = await site.raw(body, *headers, f"Content-Length: {len(body)}")
    assert f" {status} ".encode() in answer.splitlines()[0], answer[:300]
    await site.check_nothing_left()


async def test_a_query_is_refused(site: Site) -> None:
    status, _, _ = await site.ask("POST", "?a=b", data={"file": "x"})
    assert status == 400


async def test_a_length_over_the_limit_is_refused_before_the_body_comes(site: Site) -> None:
    answer = await site.raw(b"", FORM, "Content-Length: 99999999999")
    assert b" 413 " in answer.splitlines()[0]
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "too_large"
    await site.check_nothing_left()


async def test_one_byte_over_the_limit(site: Site) -> None:
    status, _, body = await site.try_put(bytes(LIMITS.size + 1))
    assert (status, orjson.loads(body)["code"]) == (413, "too_large")
    await site.check_nothing_left()
    assert (await site.put(bytes(LIMITS.size)))["size"] == LIMITS.size


@pytest.mark.parametrize("size", [LIMITS.size + 1, 3 * LIMITS.size])
async def test_over_the_limit_without_a_length(site: Site, size: int) -> None:
    whole = form(b"x" * size)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(whole), 50_000):
            yield whole[at : at + 50_000]

    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    status, _, body = await site.ask("POST", data=pieces(), headers=headers)
    assert (status, orjson.loads(body)["code"]) == (413, "too_large")
    await site.check_nothing_left()


async def test_over_the_quota(site: Site) -> None:
    for _ in range(2):
        await site.put(bytes(2 * MIB))
    status, _, body = await site.try_put(bytes(2 * MIB))
    problem = orjson.loads(body)
    assert (status, problem["code"]) == (413, "too_large")
    assert problem["data"] == {"quota": LIMITS.quota}
    assert len(site.files()) == 2


@pytest.mark.parametrize("body", [HTML, SVG, b"alert(1)", b"%PDF-1.7"])
async def test_something_disguised_as_an_image_is_refused(site: Site, body: bytes) -> None:
    status, _, answer = await site.try_put(body, "image/png", "a.png")
    assert status == 400
    assert orjson.loads(answer)["errors"][0]["field"] == "file"
    await site.check_nothing_left()


async def test_a_sender_that_hangs_up_leaves_nothing(site: Site) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    head = f"POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n{FORM}\r\n"
    writer.write((head + f"Content-Length: {MIB}\r\n\r\n").encode() + form(bytes(MIB))[:500_000])
    await writer.drain()
    async with asyncio.timeout(5):
        while not site.files():
            await asyncio.sleep(0.01)
    writer.close()
    await site.check_nothing_left()


async def test_a_reader_that_hangs_up_does_no_harm(site: Site) -> None:
    made = await site.put(os.urandom(2 * MIB))
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        head = f"GET /api/v1/uploads/{made['id']} HTTP/1.1\r\nHost: x\r\n"
        writer.write((head + "Authorization: Bearer ada\r\n\r\n").encode())
        await reader.readexactly(1000)
        writer.transport.abort()
    _, _, body = await site.ask("GET", f"/{made['id']}")
    assert hashlib.sha256(body).hexdigest() == made["sha256"]


@pytest.mark.parametrize("id", ["..%2f..%2fetc%2fpasswd", "%00", "x" * 65, "%2e%2e", "tmp"])
async def test_ids_that_are_none(site: Site, id: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        answer = await raw_path(site.port, method, f"/api/v1/uploads/{id}")
        assert answer.split()[1] in {b"404", b"400", b"405"}


async def raw_path(port: int, method: str, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n"
    writer.write((head + "Connection: close\r\n\r\n").encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


def test_the_routes_are_described() -> None:
    assert set(OPENAPI["/uploads"]) == {"post"}
    assert set(OPENAPI["/uploads/{upload}"]) == {"get"}
