"""Two servers that are told the same and must answer the same: `Pair` of `World`.

What differs by nature (ids, times, tokens, cursors, epochs) is replaced by names given in the order
of first appearance, the same in both: `<id 3>`, `<token 1>`, `<cursor 2>`. Names may be used in
later requests; each world puts its own value in.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from random import Random
from typing import Any, NamedTuple

import orjson

from tests.support.client import Client, connect
from tests.support.recorder import ConnectRefused, Event
from tests.support.rest import Api, Reply

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_NAME = re.compile(r"<(?:id|token|cursor|time|epoch) [^<>]*(?:<id \d+>)?>")

_BYTES_NAME = re.compile(rb"<id \d+>")

_KINDS = {
    "access_token": "token",
    "refresh_token": "token",
    "token": "token",
    "key": "token",
    "next": "cursor",
}
"""Fields that hold what cannot be recognised by itself."""

_OTHER = {
    *("request_id", "connection", "server_time", "hint", "retry_after", "remote", "expires_in")
}
"""Fields that are another each time, and are never sent back."""

HEADERS = (
    "accept-ranges",
    "allow",
    "cache-control",
    "content-disposition",
    "content-range",
    "content-security-policy",
    "content-type",
    "location",
    "vary",
    "www-authenticate",
)
"""Headers whose values are compared; of the others, which there are."""

UNNAMED = "<unknown>"


class Names:
    """What one world calls what."""

    def __init__(self) -> None:
        self._named: dict[str, str] = {}
        self._meant: dict[str, str] = {}
        self._count: dict[str, int] = {}

    def name(self, kind: str, value: str, *, fresh: bool = True) -> str:
        """The name of a value; a new one for a new value if `fresh`."""
        known = self._named.get(value)
        if known is not None:
            return known
        if not fresh:
            return UNNAMED
        self._count[kind] = number = self._count.get(kind, 0) + 1
        return self.call(value, f"<{kind} {number}>")

    def call(self, value: str, name: str) -> str:
        """Name a value."""
        self._named[value] = name
        self._meant[name] = value
        return name

    def note(self, name: str, value: str) -> None:
        """What a name stands for from now on; the value itself has none."""
        self._meant[name] = value

    def meant(self, text: str) -> str:
        """A text with every name replaced by what it stands for."""
        return _NAME.sub(lambda found: self._meant.get(found[0], found[0]), text)

    def normal(self, value: Any, *, fresh: bool = True, field: str = "") -> Any:
        """A decoded answer in which all that differs by nature has its name."""
        if isinstance(value, dict):
            return self._object(value, fresh)
        if isinstance(value, list):
            return [self.normal(each, fresh=fresh) for each in value]
        if not isinstance(value, str):
            return f"<{field}>" if field in _OTHER and value is not None else value
        if field in _OTHER:
            return f"<{field}>"
        if field in _KINDS:
            return self.name(_KINDS[field], value, fresh=fresh)
        if field == "epoch":
            return "<epoch>" if value else value
        return self.text(value, fresh=fresh)

    def text(self, value: str, *, fresh: bool = True) -> str:
        """A text without ids and times."""
        if _TIME.search(value):
            value = _TIME.sub("<time>", value)
        return _ID.sub(lambda found: self.name("id", found[0], fresh=fresh), value)

    def _object(self, value: Mapping[str, Any], fresh: bool) -> dict[str, Any]:
        # An object's own id first: what is in it may name it.
        made = {
            self.text(name, fresh=fresh): self.normal(each, fresh=fresh, field=name)
            for name, each in value.items()
        }
        for name, each in value.items():  # where streams stand, and when things were made
            if isinstance(each, dict) and isinstance(each.get("epoch"), str):
                self.note(f"<epoch {self.text(name, fresh=False)}>", each["epoch"])
        if isinstance(value.get("epoch"), str) and isinstance(value.get("stream"), str):
            self.note(f"<epoch {self.text(value['stream'], fresh=False)}>", value["epoch"])
        if isinstance(value.get("id"), str) and isinstance(value.get("created_at"), str):
            self.note(f"<time {made['id']}>", value["created_at"])
        return made


class Device(NamedTuple):
    """One connection of a user, with all its namespaces; the same in both worlds."""

    user: str
    number: int


ENDED = {"ok": False, "error": {"code": "the connection ended"}}
"""In place of an answer that does not come."""

WATCHING = {"presence.watch", "presence.unwatch"}
"""Commands after which a client knows other things than the last event says."""

NAMESPACES = ("/messages", "/presence", "/reactions")


class World:
    """One server, of one node or of many, and those who use it."""

    def __init__(self, label: str, urls: Sequence[str], seed: int) -> None:
        """`seed` decides who meets which node."""
        self.label = label
        self.names = Names()
        self.devices: dict[Device, dict[str, Client]] = {}
        self.anew: dict[Device, list[int]] = {}
        """Devices that came back without resuming, and how much each namespace had heard before."""
        self._random = Random(seed)
        self._urls = list(urls)
        self._apis = [Api(url) for url in urls]

    def _node(self) -> int:
        return self._random.randrange(len(self._urls))

    async def rest(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: str | bytes | None = None,
        headers: Mapping[str, str] = {},
        node: int | None = None,
    ) -> Any:
        """One request at some node; its answer, normalised.

        Args:
            path: with its query, quoted, names in it as they are.
            body: JSON text with names in it, or bytes with names of ids in them.
        """
        api = self._apis[self._node() if node is None else node % len(self._apis)]
        sent = {name: self.names.meant(value) for name, value in headers.items()}
        if isinstance(body, str):
            body = self.names.meant(body).encode()
            sent.setdefault("Content-Type", "application/json")
        elif body is not None:
            body = _BYTES_NAME.sub(lambda found: self.names.meant(found[0].decode()).encode(), body)
        if token is not None:
            sent["Authorization"] = f"Bearer {self.names.meant(token)}"
        reply = await api.request(method, self.names.meant(path), data=body, headers=sent)
        return self._reply(reply)

    def _reply(self, reply: Reply) -> Any:
        kept = {name: reply.headers[name] for name in HEADERS if name in reply.headers}
        answer: dict[str, Any] = {
            "status": reply.status,
            "headers": {name: self.names.text(value) for name, value in kept.items()},
            "has": sorted(reply.headers.keys() - set(HEADERS)),
        }
        if "etag" in reply.headers:
            self.names.note("<token etag>", reply.headers["etag"])
        if "json" in reply.headers.get("content-type", ""):
            answer["body"] = self.names.normal(reply.json)
        elif "content-disposition" in kept:
            answer["body"] = f"{len(reply.body)} bytes, {sha256(reply.body).hexdigest()}"
        else:
            answer["body"] = self.names.text(reply.body.decode(errors="replace"))
        return answer

    # -- sockets ------------------------------------------------------------------------------

    async def connect(self, device: Device, token: str, *, resume: bool = False) -> Any:
        """Open a device, or open it anew, at some node; what its `ready` events say."""
        url = self._urls[self._node()]
        before = self.devices.get(device)
        token = self.names.meant(token)
        told = [] if before is None else [len(client.events) for client in before.values()]
        if before is not None:
            await before[NAMESPACES[0]].close()
        try:
            clients = await self._open(url, token, before, resume)
        except ConnectRefused as error:
            return {"refused": self.names.normal({"message": error.message, "data": error.data})}
        self.devices[device] = clients
        if before is not None and not resume:
            self.anew[device] = told
        return {name: self.names.normal(client.ready) for name, client in clients.items()}

    async def _open(
        self, url: str, token: str, before: dict[str, Client] | None, resume: bool
    ) -> dict[str, Client]:
        clients: dict[str, Client] = {}
        for name in NAMESPACES:
            if before is not None:
                client = before[name]
                client.url, client.token = url, token
                if not clients:
                    await client.reconnect(resume=resume)
                else:
                    wire = clients[NAMESPACES[0]].wire
                    await client.attach(wire, client.streams if resume else None)
            elif not clients:
                client = await connect(url, name, token)
            else:
                client = await clients[NAMESPACES[0]].join(name)
            clients[name] = client
        return clients

    async def cut(self, device: Device) -> Any:
        """Break a device's connection off."""
        await self.devices[device][NAMESPACES[0]].cut()

    async def call(self, device: Device, namespace: str, command: str, data: str) -> Any:
        """A command over a socket; `data` is JSON text with names in it."""
        client = self.devices[device][namespace]
        try:
            answer = await client.request(command, orjson.Fragment(self.names.meant(data)))
        except ConnectionError:
            return dict(ENDED)
        if command in WATCHING and answer["ok"]:
            told = answer["data"] or orjson.loads(self.names.meant(data))
            client.events.append(Event(command, told, 0.0))
        return self.names.normal(answer)

    async def burst(self, device: Device, namespace: str, command: str, all: list[str]) -> Any:
        """Commands sent without waiting for answers; the answers, in the order sent."""
        client = self.devices[device][namespace]
        sent = [client.send(command, orjson.Fragment(self.names.meant(data))) for data in all]
        return [self.names.normal(each) for each in await asyncio.gather(*sent)]

    # -- what was heard -----------------------------------------------------------------------

    def heard(self) -> dict[str, Any]:
        """By device and stream all durable events in their order, by device and key the last of
        the latest ones.
        """
        found: dict[str, Any] = {}
        for device, clients in self.devices.items():
            for place, client in enumerate(clients.values()):
                who = f"{device.user}{device.number} {client.namespace}"
                since = self.anew[device][place] if device in self.anew else 0
                for number, event in enumerate(client.events):
                    self._note(found, who, event, stale=number < since)
        return found

    def _note(self, found: dict[str, Any], who: str, event: Event, *, stale: bool) -> None:
        told = self.names.normal(event.data, fresh=False)
        if event.name == "closing":
            found.setdefault(f"{who} closing", []).append(told)
        elif event.name in LATEST and not stale:
            data = told["data"]
            if "total" in data:  # over all: the last to say it says how it is
                found[f"{who} {event.name} total"] = data.pop("total")
            about = " ".join(str(data.get(field)) for field in LATEST[event.name])
            found[f"{who} {event.name} {about}"] = data
        elif isinstance(told, dict) and "seq" in told and "stream" in told:
            found.setdefault(f"{who} {told['stream']}", []).append(told)
        elif who.endswith("/presence"):
            self._watched(found, who, event.name, told)

    def _watched(self, found: dict[str, Any], who: str, name: str, told: Any) -> None:
        """What a client knows of presence without having been told of a change."""
        if name == "presence.watch":
            for each in told:
                found[f"{who} presence.changed {each['user']}"] = each
        elif name in {"ready", "presence.unwatch"}:
            users = told["users"] if name == "presence.unwatch" else None
            for key in [key for key in found if key.startswith(f"{who} presence.changed ")]:
                if users is None or key.rpartition(" presence.changed ")[2] in users:
                    del found[key]

    async def close(self) -> None:
        """Leave."""
        for clients in self.devices.values():
            await clients[NAMESPACES[0]].close()
        for api in self._apis:
            await api.close()


LATEST = {
    "receipt.updated": ("conversation", "user"),
    "unread.updated": ("conversation",),
    "presence.changed": ("user",),
}
"""Events of which the last for each of these counts."""
