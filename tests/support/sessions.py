"""Random sessions of several people, for `Pair`: all commands, over sockets and REST, right and wrong."""

import json
from typing import Any

from tests.support.asking import Asking
from tests.support.vocabulary import (
    COMMANDS,
    CURSORS,
    EMOJI,
    FIELDS,
    NAMES,
    NOBODY,
    RAW,
    WORDS,
    object_text,
    readable,
)
from tests.support.worlds import ENDED


class Session(Asking):
    """One random session; everything in it follows from the seed."""

    async def run(self, steps: int) -> None:
        """So many steps, with a look at what was heard now and then."""
        await self.begin()
        actions = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
        for number in range(steps):
            action = self.random.choice(actions)
            await getattr(self, action)()
            if number % 25 == 24:
                await self.pair.settle()
        self.heard = await self.pair.settle()

    # -- what people do -----------------------------------------------------------------------

    async def open(self) -> None:
        """A conversation, new or there already."""
        fields: dict[str, Any] = {
            "kind": self.random.choice(["direct", "group", "channel", "direct", "club"]),
            "members": [self.user() for _ in range(self.random.randint(0, 3))],
            "client_id": f"c{next(self.numbers)}",
            **self.some(title=self.title()),
        }
        if fields["kind"] == "direct":
            fields["members"] = fields["members"][:1]
            if self.chance(0.9):
                fields.pop("title", None)
        if len(self.conversations) < 12 or self.chance(0.2):
            await self.command(self.name(), "conversation.create", fields)

    async def change(self) -> None:
        """A conversation, or who is in it."""
        command = self.random.choice(
            ["conversation.update"] * 3
            + [
                "conversation.join",
                "conversation.leave",
                "member.add",
                "member.remove",
                "member.update",
            ]
        )
        fields: dict[str, Any] = {"conversation": self.conversation()}
        if self.chance(0.05):
            command = "conversation.delete"
        if self.chance(0.05):
            command = "conversation.leave_many"
            fields = {"conversations": [self.conversation() for _ in range(3)]}
        if command == "conversation.update":
            fields |= self.some(
                title=self.title(), topic=self.title(), muted=self.chance(0.5), archived=True
            )
        elif command.startswith("member."):
            fields["user"] = self.user()
            if command == "member.update":
                fields["role"] = self.random.choice(["owner", "member"])
        await self.command(self.name(), command, fields)

    async def send(self) -> None:
        """A message."""
        body = self.text()
        if self.chance(0.06):
            body = self.random.choice(
                ["", "x" * 16_384, "x" * 16_385, "é" * 8192, "é" * 8193, "a\x00b", "\r\n\t", "\x1b"]
            )
        fields = {
            "conversation": self.conversation(),
            "client_id": f"m{next(self.numbers)}",
            "body": body,
        }
        if self.chance(0.3):
            fields |= self.some(
                reply_to=self.message()["id"],
                thread=self.message()["id"],
                mentions=[self.user(), self.user()],
                attachments=[each["id"] for each in self.uploads[-2:]],
            )
        await self.command(self.name(), "message.send", fields)

    async def send_many(self) -> None:
        """Messages, without waiting."""
        who = self.people[self.name()]
        if not who.devices:
            return
        conversation = self.conversation()
        all = [
            json.dumps(
                {
                    "conversation": conversation,
                    "client_id": f"b{next(self.numbers)}",
                    "body": self.text(),
                }
            )
            for _ in range(self.random.randint(2, 8))
        ]
        device = self.random.choice(who.devices)
        for answer in await self.pair.burst(device, "/messages", "message.send", all):
            if answer["ok"]:
                self.learn(who.name, "message.burst", {}, answer["data"])

    async def retry(self) -> None:
        """The same again, or nearly."""
        if not self.retries:
            return
        name, command, fields = self.random.choice(self.retries)
        if self.chance(0.4):
            fields = {**fields, self.random.choice(["body", "title"]): "another"}
        if command == "message.send":
            fields.pop("title", None)
        else:
            fields.pop("body", None)
        await self.command(self.name() if self.chance(0.2) else name, command, fields)

    async def alter(self) -> None:
        """Change, delete, pin, mark a message."""
        message = self.message()
        command = self.random.choice(
            ["message.edit"] * 3 + ["message.delete", "pin.add", "pin.add", "pin.remove"]
        )
        fields: dict[str, Any] = {"message": message["id"]}
        if command == "message.edit":
            version = message["version"] + self.random.choice([0, 0, 0, 1, -1, 2**52])
            fields |= {"body": self.text(), "version": version}
        elif command == "message.delete":
            fields |= self.some(scope=self.random.choice(["me", "me", "everyone", "all"]))
        sender = next((n for n, p in self.people.items() if p.id == message.get("sender")), "ann")
        await self.command(sender if self.chance(0.6) else self.name(), command, fields)

    async def react(self) -> None:
        """Add or remove a reaction, or list them."""
        command = self.random.choice(["reaction.add"] * 3 + ["reaction.remove", "reaction.list"])
        fields: dict[str, Any] = {"message": self.message()["id"]}
        if command == "reaction.list":
            fields |= self.some(limit=self.limit())
        else:
            fields["emoji"] = self.random.choice(EMOJI)
        await self.command(self.name(), command, fields)

    async def receive(self) -> None:
        """Say how far one has come, or ask."""
        command = self.random.choice(
            ["message.read", "message.delivered", "message.mark", "message.status"]
        )
        message = self.message()
        fields: dict[str, Any]
        if command in {"message.read", "message.delivered"}:
            fields = {"conversation": self.conversation(), "seq": self.seq()}
        elif command == "message.mark":
            fields = {
                "message": message["id"],
                "status": self.random.choice(["read", "delivered", "sent"]),
            }
        else:
            fields = {"message": message["id"], **self.some(limit=self.limit())}
        await self.command(self.name(), command, fields)

    async def look(self) -> None:
        """Fetch something."""
        conversation, limit = self.conversation(), self.some(limit=self.limit())
        command, fields = self.random.choice(
            [
                ("conversation.list", self.some(kind="channel", archived=True, joinable=True)),
                ("conversation.list", {}),
                ("conversation.get", {"conversation": conversation}),
                ("member.list", {"conversation": conversation}),
                ("message.get", {"message": self.message()["id"]}),
                ("message.history", {"conversation": conversation, **self._bounds()}),
                ("message.history", {"conversation": conversation, **self._bounds()}),
                ("pin.list", {"conversation": conversation}),
                ("contact.list", self.some(q=self.text(), blocked=True)),
                ("upload.list", {}),
                ("session.list", {}),
                ("user.get", {"id": self.user()}),
                ("user.me", {}),
            ]
        )
        if command not in {
            "conversation.get",
            "message.get",
            "user.get",
            "user.me",
            "session.list",
        }:
            fields = {**fields, **limit}
        await self.command(self.name(), command, fields)

    def _bounds(self) -> dict[str, Any]:
        bounds: dict[str, Any] = {
            "before": self.seq(),
            "after": self.seq(),
            "around": self.seq(),
            "thread": self.message()["id"],
            "since": f"<time {self.message()['id']}>",
            "until": f"<time {self.message()['id']}>",
        }
        names = self.random.sample(list(bounds), self.random.choice([0, 1, 1, 1, 2]))
        return {name: bounds[name] for name in names}

    async def find(self) -> None:
        """Search for messages or people."""
        word = self.random.choice(WORDS)
        if self.chance(0.3):
            word = self.random.choice([word.upper(), word.lower(), word[:1], word[:2], word[1:]])
        if self.chance(0.3):
            word += " " + self.random.choice(WORDS)
        if self.chance(0.5):
            fields: dict[str, Any] = {
                "q": word,
                **self.some(limit=self.limit(), conversation=self.conversation()),
            }
            if self.chance(0.2):
                fields |= self.some(sender=self.user(), since=f"<time {self.message()['id']}>")
            await self.command(self.name(), "message.search", fields)
        else:
            q = self.random.choice(
                [
                    f"{self.random.choice(NAMES).split()[0]} {self.word}",
                    self.word,
                    f"{self.random.choice(['mul', 'ang', 'stras', 'neil', '小龍', '小', 'O'])} {self.word}",
                    self.people[self.name()].email,
                    self.people[self.name()].email[:6],
                ]
            )
            name = "root" if self.chance(0.3) else self.name()
            await self.command(name, "user.search", {"q": q, **self.some(limit=self.limit())})

    async def go_on(self) -> None:
        """The next page of something."""
        if self.pages:
            name, command, fields = self.random.choice(self.pages)
            if self.chance(0.1):
                fields = {**fields, "cursor": self.random.choice(CURSORS)}
            await self.command(name, command, fields)

    async def know(self) -> None:
        """Contacts and blocks."""
        command = self.random.choice(
            ["contact.add", "contact.remove", "contact.block", "contact.unblock", "contact.unblock"]
        )
        await self.command(self.name(), command, {"user": self.user()})

    async def be_there(self) -> None:
        """Presence, typing."""
        name = self.name()
        status = self.random.choice(["online", "away", "busy", "invisible", "offline"])
        command, fields = self.random.choice(
            [
                ("presence.set", {"status": status, **self.some(text=self.title())}),
                ("presence.activity", {"idle": self.chance(0.5)}),
                ("presence.watch", {"users": [self.user() for _ in range(3)]}),
                ("presence.unwatch", {"users": [self.user()]}),
                ("presence.room", {"stream": f"messages/{self.conversation()}"}),
                ("typing.start", {"conversation": self.conversation()}),
                ("typing.stop", {"conversation": self.conversation()}),
            ]
        )
        # Presence comes by itself, and its times with it.
        at_last = command in {"presence.watch", "presence.room", "presence.set"}
        await self.command(name, command, fields, at_last=at_last)

    async def follow(self) -> None:
        """Streams by hand."""
        namespace = self.random.choice(["messages", "messages", "reactions", "presence"])
        stream = f"{namespace}/{self.conversation()}"
        known = {"epoch": self.random.choice([f"<epoch {stream}>", "", "other"]), "seq": self.seq()}
        what = self.random.choice(["stream.subscribe", "stream.sync", "stream.sync"])
        if what == "stream.sync":
            await self.command(self.name(), what, {"streams": {stream: known}})
            return
        position = {"stream": stream, **(known if self.chance(0.7) else {})}
        await self.command(self.name(), what, {"streams": [position]})

    async def wrong(self) -> None:
        """Anything, with anything in it."""
        command = self.random.choice(sorted(COMMANDS))
        if command in {"auth.logout", "auth.refresh", "session.refresh", "auth.login"}:
            return
        fields = {
            "conversation": self.conversation(),
            "message": self.message()["id"],
            "user": self.user(),
            "client_id": f"w{next(self.numbers)}",
        }
        declared = [name for name in fields if self.chance(0.5)]
        texts = {name: json.dumps(fields[name]) for name in declared}
        for _ in range(self.random.choice([1, 1, 2])):
            field = self.random.choice([*FIELDS, *FIELDS, "$where", "a.b", "", "__proto__"])
            texts[field] = self.random.choice(RAW)
        known = COMMANDS[command]
        who = self.people[self.name()]
        if known.route is not None and (not known.namespaces or self.chance(0.5)):
            await self.rest(who, known.route, texts)
        elif who.devices and known.namespaces:
            data = object_text(texts)
            if len(data) < 60_000:
                device = self.random.choice(who.devices)
                if not readable(data):  # a malformed packet, which ends the connection
                    await self.pair.settle()
                answer = await self.pair.call(device, known.namespaces[0], command, data)
                if answer == ENDED:
                    await self.connect(who, device.number, resume=True)

    async def move(self) -> None:
        """A device loses its connection and comes back, at some node."""
        who = self.people[self.name()]
        if not who.devices:
            return
        device = self.random.choice(who.devices)
        await self.pair.settle()
        cut = self.chance(0.5)
        if cut:
            await self.pair.cut(device)
        for _ in range(self.random.choice([0, 2])):
            await self.send()
        if not cut:  # what is on its way when the old connection ends may arrive, or may not
            await self.pair.settle()
        await self.connect(who, device.number, resume=self.chance(0.7))

    async def profile(self) -> None:
        """One's own account."""
        fields = self.some(
            name=f"{self.text()[:60]} {self.word}",
            avatar=self.random.choice(["https://x.example/a.png", None, "javascript:1", "x"]),
            settings=self.random.choice(
                [{"a.b": 1, "$set": {"$x": None}}, {"": ""}, {"n": 1e308, "i": -(2**63)}, {}]
            ),
        )
        await self.command(self.name(), "user.update", fields)

    async def administer(self) -> None:
        """What only administrators may, by one and by others."""
        name = "root" if self.chance(0.7) else self.name()
        command, fields = self.random.choice(
            [
                ("api_key.create", {"name": self.title(), **self.some(role="admin", ttl=60)}),
                ("api_key.list", {"limit": 1}),
                ("invite.create", self.some(role="guest", email="a@b.example")),
                ("user.set_role", {"id": NOBODY, "role": "guest"}),
                ("user.disable", {"id": self.admin.id}),
            ]
        )
        await self.command(name, command, fields)


WEIGHTS = {
    "open": 4,
    "change": 8,
    "send": 20,
    "send_many": 3,
    "retry": 6,
    "alter": 14,
    "react": 8,
    "receive": 8,
    "look": 16,
    "find": 12,
    "go_on": 8,
    "know": 5,
    "be_there": 8,
    "follow": 6,
    "wrong": 14,
    "move": 3,
    "profile": 2,
    "administer": 3,
}
"""How often what is done, in comparison."""
