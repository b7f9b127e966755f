"""Somebody asks, over a socket or REST: what random sessions do everything by."""

import itertools
import json
from random import Random
from typing import Any
from urllib.parse import quote

from handlers.command import Route
from tests.support.pair import Pair
from tests.support.rest import PASSWORD
from tests.support.vocabulary import (
    COMMANDS,
    NAMES,
    NOBODY,
    PEOPLE,
    WORDS,
    json_text,
    object_text,
    plain,
)
from tests.support.worlds import Device


class Someone:
    """A user as the session knows it."""

    def __init__(self, name: str, email: str) -> None:
        self.name = name
        self.email = email
        self.id = NOBODY
        self.token = ""
        self.refresh = ""
        self.devices: list[Device] = []


class Asking:
    """Some people, what they know, and how they ask; everything follows from the seed."""

    def __init__(self, pair: Pair, seed: int, admin: tuple[str, str], tag: str = "") -> None:
        self.pair = pair
        self.seed = seed
        self.random = Random(seed)
        self.word = f"seed{seed}{tag}"
        self.admin = Someone("root", admin[0])
        self._admin_password = admin[1]
        self.people = {name: Someone(name, f"{name}.{seed}{tag}@example.com") for name in PEOPLE}
        self.conversations: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.uploads: list[dict[str, Any]] = []
        self.pages: list[tuple[str, str, dict[str, Any]]] = []
        """Pages that go on: who asked, what, with which fields."""
        self.retries: list[tuple[str, str, dict[str, Any]]] = []
        self.keys: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)
        self.heard = 0

    # -- beginning ----------------------------------------------------------------------------

    async def begin(self) -> None:
        """Register everybody, connect their devices."""
        body = {"email": self.admin.email, "password": self._admin_password}
        answer = await self.pair.rest("POST", "/auth/login", body=json.dumps(body))
        self._logged_in(self.admin, answer["body"])
        for who, shown in zip(self.people.values(), NAMES, strict=True):
            body = {
                "email": who.email,
                "password": PASSWORD,
                "name": f"{shown} {self.word}",
            }
            answer = await self.pair.rest("POST", "/auth/register", body=json.dumps(body))
            assert answer["status"] == 201, answer
            self._logged_in(who, answer["body"])
        for name, count in (("ann", 2), ("bob", 1), ("cid", 1), ("eve", 1)):
            for number in range(count):
                await self.connect(self.people[name], number)
        for kind, other in (("direct", "bob"), ("group", "cid"), ("channel", "bob")):
            fields = {
                "kind": kind,
                "members": [self.people[other].id],
                "client_id": f"first {kind}",
                **({} if kind == "direct" else {"title": f"{kind} {self.word}"}),
            }
            await self.command("ann", "conversation.create", fields)

    def _logged_in(self, who: Someone, tokens: dict[str, Any]) -> None:
        who.id = tokens["user"]["id"]
        who.token, who.refresh = tokens["access_token"], tokens["refresh_token"]

    async def connect(self, who: Someone, number: int, *, resume: bool = False) -> None:
        """Open somebody's device, or open it anew."""
        device = Device(who.name, number)
        answer = await self.pair.connect(device, who.token, resume=resume)
        if "refused" not in answer and device not in who.devices:
            who.devices.append(device)

    # -- one command --------------------------------------------------------------------------

    async def command(
        self, name: str, command: str, fields: dict[str, Any], *, at_last: bool = False
    ) -> Any:
        """A command by somebody, over a socket or REST; its data, or None if it was refused."""
        who = self.admin if name == "root" else self.people[name]
        known = COMMANDS[command]
        texts = {field: json_text(value) for field, value in fields.items()}
        ways = [each for each in known.namespaces if who.devices]
        by_rest = known.route is not None and (not ways or self.random.random() < 0.5)
        if not by_rest and not ways:
            return None
        if by_rest:
            assert known.route is not None
            answer = await self.rest(who, known.route, texts, at_last)
            data = answer["body"] if answer["status"] < 300 else None
        else:
            device = self.random.choice(who.devices)
            answer = await self.pair.call(
                device, self.random.choice(ways), command, object_text(texts), at_last=at_last
            )
            data = answer.get("data")
        if data is not None:
            self.learn(name, command, fields, data)
        return data

    async def rest(
        self, who: Someone, route: Route, texts: dict[str, str], at_last: bool = False
    ) -> Any:
        """A command over REST; the whole answer."""
        path = route.path
        rest = dict(texts)
        for parameter in route.parameters:
            value = plain(rest.pop(parameter, '"none"'))[:300]
            path = path.replace(f"{{{parameter}}}", quote(value, safe="<> ") or "%20")
        if route.method in {"GET", "DELETE"}:
            pairs = [
                f"{quote(name, safe='')}={quote(plain(value)[:500], safe='<> ')}"
                for name, value in rest.items()
                if value != "null"
            ]
            if pairs:
                path += "?" + "&".join(pairs)
            return await self.pair.rest(route.method, path, token=who.token, at_last=at_last)
        return await self.pair.rest(route.method, path, token=who.token, body=object_text(rest))

    def learn(self, name: str, command: str, fields: dict[str, Any], data: Any) -> None:
        """Remember what an answer says, for later steps."""
        known = {each["id"] for each in self.conversations}
        if "members" in data and "kind" in data and data["id"] not in known:
            self.conversations.append(data)
        if isinstance(data, dict) and "body" in data and "seq" in data:
            self.messages = [each for each in self.messages if each["id"] != data["id"]][-40:]
            self.messages.append(data)
        if isinstance(data, dict) and isinstance(data.get("next"), str):
            self.pages = [*self.pages[-10:], (name, command, {**fields, "cursor": data["next"]})]
        if command in {"message.send", "conversation.create"}:
            self.retries = [*self.retries[-20:], (name, command, fields)]

    # -- picking ------------------------------------------------------------------------------

    def chance(self, share: float) -> bool:
        """True so often."""
        return self.random.random() < share

    def name(self) -> str:
        """Somebody."""
        return self.random.choice(PEOPLE)

    def user(self) -> str:
        """A user's id, or now and then none."""
        if self.chance(0.06):
            return self.random.choice([NOBODY, "nobody", "$where", "a.b", "..", "%", "\x00", "é"])
        return self.people[self.name()].id

    def conversation(self) -> str:
        """A conversation's id, or now and then none."""
        if self.chance(0.04) or not self.conversations:
            return self.random.choice([NOBODY, "x" * 64, self.people["ann"].id, "$", "a/b", "\x00"])
        return str(self.random.choice(self.conversations)["id"])

    def message(self) -> dict[str, Any]:
        """A message, or now and then none."""
        if self.chance(0.04) or not self.messages:
            return {"id": self.random.choice([NOBODY, "?", "x" * 65]), "version": 1, "seq": 1}
        return self.random.choice(self.messages)

    def text(self) -> str:
        """Some words."""
        return " ".join(self.random.choices(WORDS, k=self.random.randint(1, 5)))

    def title(self) -> str | None:
        """A title, or now and then a wrong one."""
        if self.chance(0.2):
            return self.random.choice(["", "  ", "t" * 200, "t" * 201, "a\nb", "\x00", None])
        return f" {self.text()} "

    def limit(self) -> int:
        """A page's size, or now and then a wrong one."""
        return self.random.choice(
            [1, 2, 3, 5, 50, 200, *([0, 201, -1] if self.chance(0.2) else ())]
        )

    def seq(self) -> int:
        """A place in a stream."""
        if self.chance(0.1):
            return self.random.choice([0, 2**53, 2**53 + 1, -1, 2**31, 2**63, 10**6])
        return self.random.randint(0, 60)

    def some(self, **fields: Any) -> dict[str, Any]:
        """Some of the fields."""
        return {name: value for name, value in fields.items() if self.chance(0.4)}
