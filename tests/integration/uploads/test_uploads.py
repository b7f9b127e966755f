"""Files on a running server: attached to messages, through crashes, within the settings' limits."""

import asyncio
import hashlib
import os
from typing import Any

import aiohttp

from domain.uploads.pictures import KINDS
from tests.conftest import StartServer
from tests.support.client import connect
from tests.support.pictures import SECRET, drawing, encoded, opened, photograph
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess

PNG = encoded(drawing(), "image/png")


async def upload(
    who: Account, body: bytes = PNG, kind: str = "image/png", name: str = "photo.png"
) -> Any:
    return (await who.api.request("POST", "/uploads", data=form_of(body, kind, name))).expect(201)


def form_of(body: bytes, kind: str = "image/png", name: str = "photo.png") -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file", body, content_type=kind, filename=name)
    return form


async def status(who: Account, file: str) -> int:
    return (await who.api.request("GET", f"/uploads/{file}")).status


async def test_a_file_in_a_message_is_for_the_members_of_the_conversation(api: Api) -> None:
    ann, bob, cy = [await api.register(name) for name in ("Ann", "Bob", "Cy")]
    file = await upload(ann)
    members = [bob.id, cy.id]
    group = await ann.api.post(
        "/conversations", {"kind": "group", "members": members, "client_id": "g"}, 201
    )
    eve = await api.register("Eve")
    async with (
        await connect(api.url, "/messages", ann.token) as alice,
        await connect(api.url, "/messages", bob.token) as robert,
    ):
        assert [await status(each, file["id"]) for each in (ann, bob, cy, eve)] == [
            200,
            404,
            404,
            404,
        ]
        request = {"conversation": group["id"], "client_id": "m", "attachments": [file["id"]]}
        sent = await alice.call("message.send", request)
        heard = await robert.wait_for("message.created")
        (attachment,) = heard["data"]["attachments"]
        assert attachment == {
            "id": file["id"],
            "name": "photo.png",
            "content_type": "image/png",
            "size": len(PNG),
            "url": f"/api/v1/uploads/{file['id']}",
            "image": {"width": 600, "height": 400, "animated": False},
        }
        answer = await bob.api.request("GET", "/" + attachment["url"])
        assert answer.status == 200
        assert answer.body == PNG
        assert await robert.call("upload.get", {"upload": file["id"]}) == file
        await cy.api.delete(f"/conversations/{group['id']}/members/{cy.id}", 200)
        assert [await status(each, file["id"]) for each in (bob, cy, eve)] == [200, 404, 404]
        refused = await robert.request(
            "message.send",
            {"conversation": group["id"], "client_id": "theft", "attachments": ["nothing"]},
        )
        assert refused["error"]["code"] == "invalid"
        await alice.call("upload.delete", {"upload": file["id"]})
        assert [await status(each, file["id"]) for each in (ann, bob)] == [404, 404]
        page = await bob.api.get(f"/conversations/{group['id']}/messages")
        assert page["items"][-1]["id"] == sent["id"]
        again = {**request, "client_id": "again"}
        refused = await alice.request("message.send", again)
        assert refused["error"]["code"] == "invalid"


async def test_a_crash_in_the_middle_of_an_upload(fresh_server: ServerProcess) -> None:
    data = os.urandom(1_000_000)
    async with Api(fresh_server.url) as api:
        ann = await api.register("Ann")
        whole = await upload(ann, data, "application/octet-stream")
        _, writer = await asyncio.open_connection("127.0.0.1", fresh_server.port)
        head = (
            "POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {ann.token}\r\nContent-Length: 2000000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        )
        writer.write(head.encode() + data)
        temporary = fresh_server.data_dir / "uploads" / "tmp"
        async with asyncio.timeout(10):
            while not any(temporary.iterdir()):
                await asyncio.sleep(0.01)
        await asyncio.to_thread(fresh_server.restart, kill=True)
        writer.close()
        page = await ann.api.get("/uploads")
        assert [each["id"] for each in page["items"]] == [whole["id"]]
        answer = await ann.api.request("GET", f"/uploads/{whole['id']}")
        assert hashlib.sha256(answer.body).hexdigest() == whole["sha256"]
        await upload(ann)


async def test_the_limits_are_settings(start_server: StartServer) -> None:
    server = start_server(UPLOAD_MAX="10KiB", UPLOAD_QUOTA="15KiB")
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        await upload(ann, os.urandom(10_240), "application/octet-stream")
        for size in (10_241, 10_240):
            form = aiohttp.FormData()
            form.add_field("file", os.urandom(size), filename="x")
            answer = await ann.api.request("POST", "/uploads", data=form)
            assert answer.expect(413)["code"] == "too_large"
        page = await ann.api.get("/uploads")
        assert (page["used"], page["quota"]) == (10_240, 15_360)


async def test_a_photograph_is_shown_without_what_it_tells(api: Api) -> None:
    ann, bob = await api.register("Ann"), await api.register("Bob")
    direct = {"kind": "direct", "members": [bob.id], "client_id": "d"}
    conversation = (await ann.api.post("/conversations", direct, 201))["id"]
    came = photograph(orientation=6)
    file = await upload(ann, came, "image/jpeg", "me.jpeg")
    assert file["image"] == {"width": 400, "height": 600, "animated": False}
    message = {"client_id": "m", "attachments": [file["id"]]}
    sent = await ann.api.post(f"/conversations/{conversation}/messages", message, 201)
    (attachment,) = sent["attachments"]
    assert attachment["image"] == file["image"]
    whole = await bob.api.request("GET", f"/uploads/{file['id']}")
    assert (whole.status, len(whole.body)) == (200, file["size"])
    assert SECRET not in whole.body
    small = await bob.api.request("GET", f"/uploads/{file['id']}", params={"size": "small"})
    assert small.status == 200
    assert small.headers["content-type"] == "image/jpeg"
    assert small.headers["content-disposition"] == 'inline; filename="me.jpg"'
    assert small.headers["x-content-type-options"] == "nosniff"
    assert small.headers["etag"] != whole.headers["etag"]
    assert opened(small.body).size == (107, 160)
    part = await bob.api.request(
        "GET", f"/uploads/{file['id']}", params={"size": "small"}, headers={"Range": "bytes=0-9"}
    )
    assert (part.status, part.body) == (206, small.body[:10])
    wrong = await bob.api.request("GET", f"/uploads/{file['id']}", params={"size": "huge"})
    assert wrong.expect(400)["errors"][0]["field"] == "size"
    eve = await api.register("Eve")
    refused = await eve.api.request("GET", f"/uploads/{file['id']}", params={"size": "small"})
    assert refused.status == 404
    used = (await ann.api.get("/uploads"))["used"]
    assert used > file["size"]
    await ann.api.delete(f"/uploads/{file['id']}", 200)
    refused = await bob.api.request("GET", f"/uploads/{file['id']}", params={"size": "small"})
    assert refused.expect(404)["code"] == "not_found"
    assert (await ann.api.get("/uploads"))["used"] == 0


async def test_each_type_of_picture_has_thumbnails(api: Api) -> None:
    ann = await api.register("Ann")
    for kind in sorted(KINDS):
        file = await upload(ann, photograph(kind), kind)
        assert file["image"] == {"width": 600, "height": 400, "animated": False}, kind
        answer = await ann.api.request("GET", f"/uploads/{file['id']}", params={"size": "medium"})
        assert opened(answer.body).size == (480, 320), kind
        whole = await ann.api.request("GET", f"/uploads/{file['id']}")
        assert SECRET not in whole.body, kind


async def test_metadata_stays_where_the_server_is_told_so(start_server: StartServer) -> None:
    server = start_server(IMAGE_METADATA="keep", IMAGE_PIXELS="1000000")
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        came = photograph(orientation=6)
        file = await upload(ann, came, "image/jpeg")
        assert (await ann.api.request("GET", f"/uploads/{file['id']}")).body == came
        large = await upload(ann, photograph(width=1001, height=1000), "image/jpeg")
        assert (large["image"], large["content_type"]) == (None, "image/jpeg")
        svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
        drawn = await upload(ann, svg, "image/svg+xml", "a.svg")
        answer = await ann.api.request("GET", f"/uploads/{drawn['id']}")
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert drawn["image"] is None


async def test_it_is_documented(api: Api) -> None:
    document = (await api.request("GET", "//openapi.json")).expect(200)
    assert (
        "multipart/form-data"
        in document["paths"]["/api/v1/uploads"]["post"]["requestBody"]["content"]
    )
    assert {"get", "delete"} <= document["paths"]["/api/v1/uploads/{upload}"].keys()
    assert "Upload" in document["components"]["schemas"]


async def test_a_place_for_files_that_is_gone_is_seen_and_heals(start_server: StartServer) -> None:
    server = start_server()
    async with Api(server.url) as api:
        ann = await api.register("Ann")
        coming = server.data_dir / "uploads" / "tmp"
        coming.rmdir()
        coming.touch()  # whoever may do everything can write to any directory, but not below a file
        ready = (await api.request("GET", "//health/ready")).expect(503)
        assert ready["checks"]["store"] == ready["checks"]["access"] == "ok"
        assert "Files cannot be stored" in ready["checks"]["uploads"]
        problem = (await ann.api.request("POST", "/uploads", data=form_of(PNG))).expect(503)
        assert problem["code"] == "unavailable"
        coming.unlink()
        coming.mkdir()
        (await api.request("GET", "//health/ready")).expect(200)
        await upload(ann)
        assert list(coming.iterdir()) == []


async def test_what_is_no_form_is_not_taken(api: Api) -> None:
    ann = await api.register("Ann")
    problem = (await ann.api.request("POST", "/uploads", json={"file": "x"})).expect(415)
    assert problem["code"] == "invalid"
