"""Short scenes for `Pair` that a random session would hardly play: files, logins, roles, limits."""

import json
from typing import Any

from tests.support.pair import Pair
from tests.support.pictures import drawing, encoded
from tests.support.rest import PASSWORD
from tests.support.worlds import Device

CHUNK = 255 * 1024
"""Bytes that one engine keeps together."""

BOUNDARY = "----parts"
NODES = 3


class Person:
    """A user of a scene."""

    def __init__(self, email: str, body: dict[str, Any]) -> None:
        self.email = email
        self.id: str = body["user"]["id"]
        self.token: str = body["access_token"]
        self.refresh: str = body["refresh_token"]


async def register(pair: Pair, name: str, **more: Any) -> Person:
    """A new user."""
    email = f"{name}@scene.example"
    fields = {"email": email, "password": PASSWORD, "name": name, **more}
    answer = await pair.rest("POST", "/auth/register", body=json.dumps(fields))
    assert answer["status"] == 201, answer
    return Person(email, answer["body"])


async def login(pair: Pair, email: str, password: str = PASSWORD) -> Person:
    """Another login."""
    fields = {"email": email, "password": password}
    answer = await pair.rest("POST", "/auth/login", body=json.dumps(fields))
    return Person(email, answer["body"])


async def everywhere(pair: Pair, person: Person, path: str = "/users/me") -> int:
    """The status that a user gets at every node, as soon as they agree."""
    status: int = 0
    for node in range(NODES):
        answer = await pair.rest("GET", path, token=person.token, node=node, at_last=True)
        status = answer["status"]
    return status


def form(data: bytes, name: str, kind: str, **fields: str) -> tuple[bytes, dict[str, str]]:
    """A form with a file, and its headers."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    )
    body = "".join([*parts, head]).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


async def send_file(
    pair: Pair, who: Person, data: bytes, name: str = "a.bin", kind: str = "", **fields: str
) -> Any:
    """Upload a file; the answer."""
    body, headers = form(data, name, kind or "application/octet-stream", **fields)
    return await pair.rest("POST", "/uploads", token=who.token, body=body, headers=headers)


PNG = encoded(drawing(), "image/png")


async def files(pair: Pair) -> None:
    """Uploads of all sizes, names and types; ranges; who may have them; the quota."""
    ann, bob, eve = [await register(pair, name) for name in ("fann", "fbob", "feve")]
    sizes = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 300 * 1024, 300 * 1024 + 1)
    sent: list[Any] = []
    for size in sizes:
        data = bytes(i * 31 % 251 for i in range(size))
        answer = await send_file(pair, ann, data, f"{size}.bin")
        if answer["status"] == 201:
            sent.append(answer["body"])
    # More than is left of the quota; what is deleted is free again, at every node.
    for _ in range(2):
        await send_file(pair, ann, b"x" * 300 * 1024)
    await pair.rest("DELETE", f"/uploads/{sent[1]['id']}", token=ann.token)
    await pair.rest("DELETE", f"/uploads/{sent[1]['id']}", token=ann.token)
    await pair.rest("GET", f"/uploads/{sent[1]['id']}", token=ann.token)
    await send_file(pair, ann, b"y" * 200 * 1024)
    await pair.rest("GET", "/uploads?limit=2", token=ann.token)
    names = ("é ü.txt", "../../etc/passwd", "a%22b.html", "日本語.png", "x" * 300 + ".txt", "", ".")
    for name in (*names, "a\u202egpj.exe"):
        await send_file(pair, bob, b"plain text", name, "text/plain")
    kinds = ("image/png", "text/html", "image/svg+xml", "application/pdf", "nonsense", "text/plain")
    for kind in kinds:
        for data in (PNG, b"<html><script>", b"%PDF-1.7", b"\x00\x01"):
            answer = await send_file(pair, bob, data, "f", kind)
            if answer["status"] == 201:
                for query in ("", "?size=small", "?size=large", "?size=huge"):
                    path = f"/uploads/{answer['body']['id']}{query}"
                    await pair.rest("GET", path, token=bob.token)
    for data, name in ((PNG, "p.png"), (PNG, "p.png"), (PNG, "q.png"), (PNG + b"x", "p.png")):
        await send_file(pair, bob, data, name, "image/png", client_id="once")
    big = sent[-1]["id"]
    await _ranges(pair, ann, big)
    for each in (bob, eve):
        await pair.rest("GET", f"/uploads/{big}", token=each.token)
    fields = {"kind": "group", "members": [bob.id], "client_id": "f", "title": "Files"}
    answer = await pair.rest("POST", "/conversations", token=ann.token, body=json.dumps(fields))
    room = answer["body"]["id"]
    shared = await send_file(pair, ann, b"shared", "s.txt", "text/plain", conversation=room)
    for path in (f"/uploads/{shared['body']['id']}", f"/uploads/{big}"):
        await pair.rest("GET", path, token=bob.token)
    await send_file(pair, eve, b"foreign", "s.txt", conversation=room)
    for who, files, number in ((bob, [big], 1), (ann, [big, big], 2), (ann, ["none"], 3)):
        fields = {"client_id": f"m{number}", "attachments": files}
        await pair.rest(
            "POST", f"/conversations/{room}/messages", token=who.token, body=json.dumps(fields)
        )
    await pair.rest("GET", f"/uploads/{big}", token=bob.token)
    await pair.rest("DELETE", f"/uploads/{big}", token=bob.token)
    await pair.rest("DELETE", f"/uploads/{big}", token=ann.token)
    await pair.rest("GET", f"/conversations/{room}/messages", token=bob.token)


async def _ranges(pair: Pair, who: Person, id: str) -> None:
    size = 300 * 1024
    spans = ("0-0", "0-9", "-1", "-0", f"{size}-", f"{size - 1}-", "5-4", "a-b", "0-0,5-9", "0-")
    edges = (f"{CHUNK - 5}-{CHUNK + 5}", f"{CHUNK}-{CHUNK}", f"-{size + 9}", f"7-{10**30}", "")
    await pair.rest("GET", f"/uploads/{id}", token=who.token)
    for span in (*spans, *edges):
        headers = {"Range": f"bytes={span}"}
        await pair.rest("GET", f"/uploads/{id}", token=who.token, headers=headers)
    for headers in (
        {"If-None-Match": "<token etag>"},
        {"If-None-Match": "*"},
        {"If-None-Match": '"other"'},
        {"Range": "bytes=0-9", "If-Range": "<token etag>"},
        {"Range": "bytes=0-9", "If-Range": '"other"'},
        {"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
        {"If-Modified-Since": "Mon, 01 Jan 2099 00:00:00 GMT"},
    ):
        await pair.rest("GET", f"/uploads/{id}", token=who.token, headers=headers)
        await pair.rest("HEAD", f"/uploads/{id}?download=true", token=who.token, headers=headers)


async def logins(pair: Pair) -> None:
    """Sessions: listed, refreshed, ended; passwords; what is known at the same moment elsewhere."""
    ann = await register(pair, "lann")
    other = await login(pair, ann.email)
    for email, password in ((ann.email, "wrong"), ("nobody@scene.example", "wrong"), ("x", "")):
        await pair.rest(
            "POST", "/auth/login", body=json.dumps({"email": email, "password": password})
        )
    answer = await pair.rest("GET", "/auth/sessions", token=ann.token)
    for each in answer["body"]["items"]:
        await pair.rest("GET", f"/auth/sessions/{each['id']}", token=other.token)
    renewed = await _refresh(pair, other.refresh)
    # The old one is answered once more; older than that, all of its family ends.
    await _refresh(pair, "<token 1>x")
    await _refresh(pair, other.refresh)
    await _refresh(pair, renewed["body"]["refresh_token"])
    await _refresh(pair, other.refresh)
    await _refresh(pair, renewed["body"]["refresh_token"])
    other.token = renewed["body"]["access_token"]
    assert await everywhere(pair, other) == 401
    assert await everywhere(pair, ann) == 200
    third = await login(pair, ann.email)
    device = Device("lann", 0)
    await pair.connect(device, third.token)
    newer = (await _refresh(pair, third.refresh))["body"]["access_token"]
    for token in (newer, ann.token, "none", ""):
        await pair.call(device, "/messages", "auth.refresh", json.dumps({"token": token}))
    answer = await pair.rest("GET", "/auth/sessions", token=ann.token)
    mine = next(each for each in answer["body"]["items"] if not each["current"])
    await pair.rest("DELETE", f"/auth/sessions/{mine['id']}", token=ann.token)
    await pair.rest("DELETE", f"/auth/sessions/{mine['id']}", token=ann.token)
    assert await everywhere(pair, third) == 401
    await pair.connect(device, third.token)
    await pair.settle()
    new = "Another horse 8 battery"
    for fields in (
        {"password": new},
        {"password": new, "current_password": "wrong"},
        {"password": "short", "current_password": PASSWORD},
        {"password": new, "current_password": PASSWORD, "name": " New  Name "},
    ):
        await pair.rest("PUT", "/users/me", token=ann.token, body=json.dumps(fields))
    for password in (PASSWORD, new):
        await pair.rest(
            "POST", "/auth/login", body=json.dumps({"email": ann.email, "password": password})
        )
    await pair.rest("POST", "/auth/logout?all=true", token=ann.token, body="{}")
    assert await everywhere(pair, ann) == 401
    for body in (
        {"email": ann.email, "password": PASSWORD, "name": "Twin"},
        {"email": ann.email.upper(), "password": PASSWORD, "name": "Twin"},
        {"email": "not an address", "password": PASSWORD, "name": "Twin"},
        {"email": "weak@scene.example", "password": "password", "name": "Weak"},
        {"email": "e@scene.example", "password": PASSWORD, "name": ""},
        {"email": "e@scene.example", "password": PASSWORD, "name": "\x00"},
        {"email": "e@scene.example", "password": PASSWORD, "name": "E", "invite": "none"},
    ):
        await pair.rest("POST", "/auth/register", body=json.dumps(body))


async def _refresh(pair: Pair, token: str) -> Any:
    return await pair.rest("POST", "/auth/refresh", body=json.dumps({"refresh_token": token}))


async def roles(pair: Pair, admin: tuple[str, str]) -> None:
    """What administrators do, and what it does to others at every node."""
    root = await login(pair, *admin)
    ann = await register(pair, "rann")
    invited: Any = None
    for fields in ({"role": "guest", "email": "rguest@scene.example"}, {"role": "owner"}, {}):
        answer = await pair.rest("POST", "/invites", token=root.token, body=json.dumps(fields))
        invited = invited or answer["body"]
    fields = {"password": PASSWORD, "name": "G", "invite": invited["token"]}
    for email in ("other@scene.example", "rguest@scene.example", "again@scene.example"):
        await pair.rest("POST", "/auth/register", body=json.dumps({**fields, "email": email}))
    guest = await login(pair, "rguest@scene.example")
    for path in ("/users", "/users/me", "/conversations?kind=channel&joinable=true", "/api-keys"):
        await pair.rest("GET", path, token=guest.token)
    device = Device("rann", 0)
    await pair.connect(device, ann.token)
    for role in ("admin", "king", "member", "technician"):
        body = json.dumps({"role": role})
        await pair.rest("PUT", f"/users/{ann.id}/role", token=root.token, body=body)
        await everywhere(pair, ann, "/api-keys")
        await pair.rest("PUT", f"/users/{guest.id}/role", token=ann.token, body=body)
    await pair.rest("PUT", f"/users/{root.id}/role", token=root.token, body='{"role":"member"}')
    await pair.connect(device, ann.token)
    await pair.settle()
    for verb in ("disable", "disable", "enable", "enable"):
        await pair.rest("POST", f"/users/{ann.id}/{verb}", token=root.token, body="{}")
        await everywhere(pair, ann)
    await pair.settle()
    await pair.rest("GET", f"/users/{ann.id}", token=guest.token)
    ann = await login(pair, ann.email)
    await _keys(pair, root, ann)


async def _keys(pair: Pair, root: Person, ann: Person) -> None:
    made = []
    for fields in (
        {"name": "robot"},
        {"name": "me", "kind": "user", "role": "admin"},
        {"name": "high", "role": "owner"},
        {"name": "\x00"},
        {"name": "short", "ttl": 59},
    ):
        answer = await pair.rest("POST", "/api-keys", token=root.token, body=json.dumps(fields))
        if answer["status"] == 201:
            made.append(answer["body"])
    cursor = ""
    while True:
        answer = await pair.rest("GET", f"/api-keys?limit=1{cursor}", token=root.token)
        if answer["body"]["next"] is None:
            break
        cursor = f"&cursor={answer['body']['next']}"
    for key in made:
        for path in ("/users/me", "/users?q=rann", "/conversations"):
            await pair.rest("GET", path, token=key["key"])
        await pair.rest("GET", "/users/me", token=key["key"] + "x")
        await pair.connect(Device(key["name"], 0), key["key"])
        await pair.rest("DELETE", f"/api-keys/{key['id']}", token=ann.token)
        await pair.rest("DELETE", f"/api-keys/{key['id']}", token=root.token)
        for node in range(NODES):
            await pair.rest("GET", "/users/me", token=key["key"], node=node, at_last=True)
        await pair.connect(Device(key["name"], 0), key["key"])
        await pair.rest("DELETE", f"/api-keys/{key['id']}", token=root.token)


async def limits(pair: Pair, full: bool) -> None:
    """As many as there may be, and one more."""
    ann, bob = await register(pair, "mann"), await register(pair, "mbob")
    fields = {"kind": "channel", "members": [bob.id], "client_id": "l", "title": "Limits"}
    answer = await pair.rest("POST", "/conversations", token=ann.token, body=json.dumps(fields))
    room = answer["body"]["id"]
    device = Device("mann", 0)
    await pair.connect(device, ann.token)
    count = 102 if full else 8
    sends = [
        json.dumps({"conversation": room, "client_id": f"l{n}", "body": f"word {n}"})
        for n in range(count)
    ]
    messages = [
        each["data"] for each in await pair.burst(device, "/messages", "message.send", sends)
    ]
    for command in ("pin.add", "pin.add", "pin.remove"):
        for each in messages if full else messages[:3]:
            await pair.call(device, "/messages", command, json.dumps({"message": each["id"]}))
    for n in range(22):
        body = json.dumps({"emoji": f":kind_{n % 21}:"})
        await pair.rest(
            "POST", f"/messages/{messages[0]['id']}/reactions", token=bob.token, body=body
        )
    paths = (
        f"/conversations/{room}/messages?limit=3",
        f"/conversations/{room}/messages?limit=3&after=0",
        f"/conversations/{room}/messages?limit=3&after=2&before=9",
        f"/conversations/{room}/messages?limit=4&around=5",
        "/search/messages?q=wor&limit=3",
        f"/messages/{messages[0]['id']}/reactions?limit=6",
        f"/conversations/{room}/pins?limit=2",
        f"/conversations/{room}/members?limit=1",
    )
    for path in paths:
        cursor = ""
        for _ in range(6):
            answer = await pair.rest("GET", path + cursor, token=ann.token)
            if answer["body"]["next"] is None:
                break
            cursor = f"&cursor={answer['body']['next']}"
    for seq in (0, 1, 5):
        stream = f"messages/{room}"
        known = {stream: {"epoch": f"<epoch {stream}>", "seq": seq}}
        await pair.rest("POST", "/sync", token=bob.token, body=json.dumps({"streams": known}))
    if full:
        await _gap(pair, ann, device, room)
    await pair.settle()


async def _gap(pair: Pair, ann: Person, device: Device, room: str) -> None:
    """More events than are replayed."""
    for start in range(0, 1000, 100):
        sends = [
            json.dumps({"conversation": room, "client_id": f"g{start + n}", "body": "gap"})
            for n in range(100)
        ]
        await pair.burst(device, "/messages", "message.send", sends)
    stream = f"messages/{room}"
    for seq in (0, 1, 100, 150):
        known = {stream: {"epoch": f"<epoch {stream}>", "seq": seq}}
        await pair.rest("POST", "/sync", token=ann.token, body=json.dumps({"streams": known}))


async def rates(pair: Pair) -> None:
    """Rate limits count the same at one node and at many."""
    ann = await register(pair, "tann")
    for _ in range(7):
        await pair.rest("GET", "/auth/sessions/none", token=ann.token)
    for _ in range(7):
        body = json.dumps({"email": ann.email, "password": "wrong"})
        await pair.rest("POST", "/auth/login", body=body)
    await pair.rest(
        "POST", "/auth/login", body=json.dumps({"email": ann.email, "password": PASSWORD})
    )


RATES = {"session.get": "5/h", "login": "5/h", "login.address": "off"}
"""The limits that `rates` reaches."""
