"""Random conversations against a model: state = history = what live clients saw.

Three people send, edit, delete, react, read, join, leave, lose their connection and come back.
Afterwards the log, the history over REST, the counts and what each connection was sent must all
tell the same story as a model of a few lines.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.client import Client, connect
from tests.support.rest import Account, Api
from tests.support.server import ServerProcess

Result = TypeVar("Result")

PEOPLE = ("Ann", "Bob", "Cid")
CONTENT = ("body", "deleted_at")
"""What deleting a message for everyone changes of it, as far as this test sends it."""
EMOJI = ("👍", "🎉", ":shipit:")
people = st.sampled_from(PEOPLE)
others = st.sampled_from(PEOPLE[1:])
bodies = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
picks = st.integers(0, 10_000)


class Person:
    """One of the three: an account, and a connection that may be there."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.client: Client | None = None
        self.reactions: Client | None = None
        self.online = False
        self.read_seq = 0
        self.came_at = 0
        """The seq of the event by which this person last came in."""
        self.reacted_at = 0
        """The head of the reactions then: of what is before it this person need not hear."""

    @property
    def id(self) -> str:
        """The user's id."""
        return self.account.id


class Conversation(RuleBasedStateMachine):
    """The machine; `server` and `kind` are set by subclasses made for a test."""

    server: ServerProcess

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.messages: dict[str, dict[str, Any]] = {}
        """By id, in order of sending: `{seq, sender, body, version, deleted, reactions}`."""
        self.members = {"Ann", "Bob"}
        self.sent = 0

    def run_async(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end in this machine's loop."""
        return self.runner.run(work)

    # -- beginning and end --------------------------------------------------------------------

    @initialize(kind=st.sampled_from(["group", "channel"]))
    def open(self, kind: str) -> None:
        """Three accounts, two of them in a conversation, all connected."""
        self.kind = kind
        self.run_async(self._open())

    async def _open(self) -> None:
        self.api = Api(self.server.url)
        self.people = {name: Person(await self.api.register(name)) for name in PEOPLE}
        for person in self.people.values():
            await self._connect(person)
        ann = self.people["Ann"]
        assert ann.client is not None
        made = await ann.client.call(
            "conversation.create",
            {
                "kind": self.kind,
                "members": [self.people["Bob"].id],
                "title": "Model",
                "client_id": "the conversation",
            },
        )
        self.id = made["id"]
        self.stream = f"messages/{self.id}"

    async def _connect(self, person: Person) -> None:
        token = person.account.token
        if person.client is None:
            person.client = await connect(self.server.url, "/messages", token)
            person.reactions = await person.client.join("/reactions")
        else:
            assert person.reactions is not None
            await person.client.reconnect()
            await person.reactions.attach(person.client.wire, person.reactions.streams)
        person.online = True

    def teardown(self) -> None:
        """Everything must fit together; then leave nothing behind."""
        try:
            if hasattr(self, "id"):
                self.run_async(self._check_all())
        finally:
            if hasattr(self, "people"):
                self.run_async(self._close())
            self.runner.close()

    async def _close(self) -> None:
        for person in self.people.values():
            if person.client is not None:
                await person.client.close()
        await self.api.close()

    # -- what people do -----------------------------------------------------------------------

    async def _do(self, name: str, command: str, data: dict[str, Any]) -> Any:
        """A command over the person's socket; Ann's if this one is offline and it is shared."""
        person = self.people[name]
        if not person.online:
            await self._connect(person)
        assert person.client is not None
        client = person.reactions if command.startswith("reaction.") else person.client
        assert client is not None
        return await client.request(command, data)

    def _answer(self, name: str, command: str, data: dict[str, Any], *, good: bool) -> Any:
        answer = self.run_async(self._do(name, command, data))
        assert answer["ok"] == good, (name, command, answer)
        return answer["data"] if good else answer["error"]["code"]

    def _pick(self, number: int) -> str:
        ids = list(self.messages)
        return ids[number % len(ids)]

    @rule(name=people, body=bodies)
    def send(self, name: str, body: str) -> None:
        """Members can; for others there is no such conversation."""
        self.sent += 1
        data = {"conversation": self.id, "client_id": f"c{self.sent}", "body": body}
        made = self._answer(name, "message.send", data, good=name in self.members)
        if name not in self.members:
            assert made == "not_found"
            return
        again = self._answer(name, "message.send", data, good=True)
        assert (again["id"], again["seq"]) == (made["id"], made["seq"])
        self.messages[made["id"]] = {
            "seq": made["seq"],
            "sender": name,
            "body": body,
            "version": made["version"],
            "deleted": False,
            "reactions": set(),
        }

    @precondition(lambda self: self.messages)
    @rule(name=people, number=picks, body=bodies, stale=st.booleans())
    def edit(self, name: str, number: int, body: str, stale: bool) -> None:
        """Only the sender, only the version there is."""
        id = self._pick(number)
        message = self.messages[id]
        version = message["version"] - 1 if stale else message["version"]
        mine = message["sender"] == name and name in self.members
        good = mine and not stale and not message["deleted"]
        if stale and version < 1:
            return
        data = {"message": id, "body": body, "version": version}
        answer = self._answer(name, "message.edit", data, good=good)
        if good:
            assert answer["version"] == version + 1
            message["body"], message["version"] = body, answer["version"]

    @precondition(lambda self: self.messages)
    @rule(name=people, number=picks)
    def delete(self, name: str, number: int) -> None:
        """The sender, and Ann, who owns the conversation."""
        id = self._pick(number)
        message = self.messages[id]
        if message["deleted"]:
            return
        good = name in self.members and name in (message["sender"], "Ann")
        self._answer(name, "message.delete", {"message": id, "scope": "everyone"}, good=good)
        if good:
            message |= {"deleted": True, "body": "", "reactions": set()}

    @precondition(lambda self: self.messages)
    @rule(name=people, number=picks, emoji=st.sampled_from(EMOJI), add=st.booleans())
    def react(self, name: str, number: int, emoji: str, add: bool) -> None:
        """Twice the same is the same."""
        id = self._pick(number)
        message = self.messages[id]
        good = name in self.members and not message["deleted"]
        command = "reaction.add" if add else "reaction.remove"
        self._answer(name, command, {"message": id, "emoji": emoji}, good=good)
        if good and add:
            message["reactions"].add((emoji, name))
        elif good:
            message["reactions"].discard((emoji, name))

    @precondition(lambda self: self.messages)
    @rule(name=people, number=picks)
    def read(self, name: str, number: int) -> None:
        """A position never moves back."""
        if name not in self.members:
            return
        seq = self.messages[self._pick(number)]["seq"]
        self._answer(name, "message.read", {"conversation": self.id, "seq": seq}, good=True)
        person = self.people[name]
        person.read_seq = max(person.read_seq, seq)

    @rule(name=others)
    def come(self, name: str) -> None:
        """Join a channel, be added to a group."""
        if name in self.members:
            return
        person = self.people[name]
        if self.kind == "channel":
            self._answer(name, "conversation.join", {"conversation": self.id}, good=True)
        else:
            data = {"conversation": self.id, "user": person.id}
            self._answer("Ann", "member.add", data, good=True)
        self.members.add(name)
        person.came_at = self.run_async(self._log())[-1]["seq"]
        person.reacted_at = len(self.run_async(self._log("reactions")))

    @rule(name=others)
    def go(self, name: str) -> None:
        """Leave."""
        good = name in self.members
        self._answer(name, "conversation.leave", {"conversation": self.id}, good=good)
        self.members.discard(name)

    @rule(name=people)
    def lose_connection(self, name: str) -> None:
        """The network goes, without a word."""
        person = self.people[name]
        if person.online and person.client is not None:
            self.run_async(person.client.cut())
            person.online = False

    @rule(name=people)
    def come_back(self, name: str) -> None:
        """Resume."""
        person = self.people[name]
        if not person.online:
            self.run_async(self._connect(person))

    # -- what must be true --------------------------------------------------------------------

    async def _log(self, namespace: str = "messages") -> list[dict[str, Any]]:
        """All events of the conversation, from the log."""
        stream = f"{namespace}/{self.id}"
        known = {stream: {"epoch": "", "seq": 0}}
        answer = await self.people["Ann"].account.api.post("/sync", {"streams": known})
        found = answer["streams"][stream]
        assert found["recovered"], found
        events: list[dict[str, Any]] = found["events"]
        return events

    @invariant()
    def counts_are_right(self) -> None:
        """What a member has not read, as REST tells it."""
        if not hasattr(self, "id"):
            return
        for name in self.members:
            answer = self.run_async(self._fetched(name))
            assert answer["unread"] == self._unread(name), name

    async def _fetched(self, name: str) -> Any:
        return await self.people[name].account.api.get(f"/conversations/{self.id}")

    def _unread(self, name: str) -> int:
        person = self.people[name]
        floor = max(person.read_seq, person.came_at)
        return sum(
            1
            for each in self.messages.values()
            if each["seq"] > floor and each["sender"] != name and not each["deleted"]
        )

    async def _check_all(self) -> None:
        events = await self._log()
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        for event in events:
            if event["type"] in {"message.created", "message.edited"}:
                deleted = self.messages[event["data"]["id"]]["deleted"]
                assert (event["data"]["deleted_at"] is not None) == deleted
                assert (event["data"]["body"] == "") == deleted
        for name, person in self.people.items():
            await self._check_history(name, person)
            if not person.online:
                await self._connect(person)
            await self._check_seen(name, person, events)
            if name in self.members:
                await self._check_reactions(name, person)

    async def _check_reactions(self, name: str, person: Person) -> None:
        """What was told last of a message's reactions is what it has."""
        client, stream = person.reactions, f"reactions/{self.id}"
        assert client is not None
        log = {event["seq"]: event for event in await self._log("reactions")}
        assert list(log) == list(range(1, len(log) + 1))
        if len(log) > person.reacted_at:
            await client.until(
                lambda: client.streams.get(stream, {}).get("seq", 0) == len(log),
                what=f"seq {len(log)} of reactions for {name}",
            )
        told: dict[str, dict[str, int]] = {}
        for event in client.events:
            if isinstance(event.data, dict) and event.data.get("stream") == stream:
                assert event.data == log[event.data["seq"]]
                if event.data["seq"] > person.reacted_at:
                    told[event.data["data"]["message"]] = event.data["data"]["counts"]
        for id, counts in told.items():
            if not self.messages[id]["deleted"]:
                assert counts == self._counts(id), f"{name}: {id}"

    def _counts(self, id: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for emoji, _ in self.messages[id]["reactions"]:
            counts[emoji] = counts.get(emoji, 0) + 1
        return counts

    async def _check_history(self, name: str, person: Person) -> None:
        if name not in self.members:
            await person.account.api.get(f"/conversations/{self.id}/messages", 404)
            return
        items: list[dict[str, Any]] = []
        before: dict[str, Any] = {}
        while True:
            page = await person.account.api.get(
                f"/conversations/{self.id}/messages", limit=7, **before
            )
            items = page["items"] + items
            if page["next"] is None:
                break
            before = {"cursor": page["next"]}
        assert [each["id"] for each in items] == list(self.messages)
        for each in items:
            expected = self.messages[each["id"]]
            assert each["reactions"] == self._counts(each["id"]), each
            assert (each["seq"], each["body"], each["deleted_at"] is not None) == (
                expected["seq"],
                expected["body"],
                expected["deleted"],
            )
            assert each["sender"] == self.people[expected["sender"]].id

    async def _check_seen(self, name: str, person: Person, events: list[dict[str, Any]]) -> None:
        client = person.client
        assert client is not None
        if name in self.members:
            await client.until(
                lambda: client.streams.get(self.stream, {}).get("seq") == len(events),
                what=f"seq {len(events)} for {name}",
            )
        by_seq = {event["seq"]: _of_all(event) for event in events}
        last: int | None = None
        for event in client.events:
            if event.name == "ready":
                head = event.data["streams"].get(self.stream)
                if head is not None:
                    # Either it was new to this client, or all that was missed came before.
                    assert head["recovered"]
                    assert last in (None, head["seq"]), f"{name}: {last}, ready says {head}"
                    last = head["seq"]
            elif isinstance(event.data, dict) and event.data.get("stream") == self.stream:
                if "seq" not in event.data:
                    continue
                seq = event.data["seq"]
                assert _without_content(event.data, by_seq[seq]) == by_seq[seq]
                assert last is None or seq > last, f"{name}: {seq} after {last}"
                if seq != (last or 0) + 1:
                    came_in = event.data["type"] == "member.added"
                    assert came_in, f"{name}: a hole between {last} and {seq}"
                    assert event.data["data"]["user"] == person.id
                last = seq


def _without_content(live: dict[str, Any], logged: dict[str, Any]) -> dict[str, Any]:
    """A live event as the log may have it by now, and as all see it: without what was deleted."""
    shown = _of_all(live)
    if logged["data"].get("deleted_at") is not None:
        shown["data"] |= {each: logged["data"][each] for each in CONTENT}
    return shown


def _of_all(event: dict[str, Any]) -> dict[str, Any]:
    """An event as all see it: the `client_id` is told to the sender alone."""
    data = {name: each for name, each in event["data"].items() if name != "client_id"}
    return {**event, "data": data}


@pytest.mark.timeout(1200)
def test_state_history_and_live_events_agree(server: ServerProcess, full: bool) -> None:
    machine = type("Machine", (Conversation,), {"server": server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=200 if full else 12,
            stateful_step_count=50 if full else 25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
