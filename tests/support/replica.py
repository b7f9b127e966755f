"""A client that keeps a conversation by applying events, as docs/messaging.md tells clients to."""

from typing import Any

TRANSPARENT = ("reactions", "status")
"""What events of the conversation's stream carry but do not decide."""

POSITIONS = ("read_seq", "delivered_seq")
"""What of a member never moves back."""


class Replica:
    """What one user's client knows of one conversation and all of its messages."""

    def __init__(self, conversation: dict[str, Any], messages: list[dict[str, Any]]) -> None:
        self.conversation = dict(conversation)
        self.messages = {each["id"]: dict(each) for each in messages}
        self.id = conversation["id"]
        self.hidden: set[str] = set()

    def apply(self, user: str, envelope: dict[str, Any]) -> None:
        """Take one durable event, of the conversation's stream or of the user's own."""
        data: Any = dict(envelope["data"])
        own = envelope["stream"] == f"messages/{user}"
        match envelope["type"]:
            case "message.created":
                if data["conversation"] == self.id and data["id"] not in self.hidden:
                    data.pop("client_id", None)
                    old = self.messages.get(data["id"], data)
                    self.messages[data["id"]] = data | {each: old[each] for each in TRANSPARENT}
            case "message.edited" | "message.pinned" | "message.unpinned":
                old = self.messages.get(data["id"])
                if old is not None:
                    self.messages[data["id"]] = data | {each: old[each] for each in TRANSPARENT}
            case "message.deleted":
                if data["conversation"] == self.id and own:
                    self.hidden.add(data["id"])
                    self.messages.pop(data["id"], None)
                elif data["conversation"] == self.id and data["id"] in self.messages:
                    self.messages[data["id"]] |= {
                        "body": "",
                        "attachments": [],
                        "mentions": [],
                        "reactions": {},
                        "deleted_at": envelope["at"],
                        "pinned_at": None,
                        "pinned_by": None,
                    }
            case "conversation.updated":
                if data["id"] == self.id and own:
                    for field in ("muted", "archived"):
                        if data[field] is not None:
                            self.conversation[field] = data[field]
                elif data["id"] == self.id:
                    self.conversation |= {
                        "title": data["title"],
                        "topic": data["topic"],
                        "members": [self._not_behind(each) for each in data["members"]],
                    }
            case "member.added":
                if data["conversation"] == self.id and self.conversation["kind"] != "channel":
                    self.conversation["members"] = [
                        *self._without(data["user"]),
                        {
                            "user": data["user"],
                            "role": data["role"],
                            "joined_at": envelope["at"],
                            "read_seq": 0,
                            "delivered_seq": 0,
                        },
                    ]
            case "member.removed":
                if data["conversation"] == self.id:
                    self.conversation["members"] = self._without(data["user"])
            case "member.updated":
                if data["conversation"] == self.id:
                    self.conversation["members"] = [
                        each | {"role": data["role"]} if each["user"] == data["user"] else each
                        for each in self.conversation["members"]
                    ]

    def _not_behind(self, member: dict[str, Any]) -> dict[str, Any]:
        for held in self.conversation["members"]:
            if held["user"] == member["user"]:
                return member | {each: max(held[each], member[each]) for each in POSITIONS}
        return member

    def _without(self, user: str) -> list[dict[str, Any]]:
        return [each for each in self.conversation["members"] if each["user"] != user]

    def state(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The conversation with its last message, and all messages by seq."""
        messages = sorted(self.messages.values(), key=lambda each: each["seq"])
        last = messages[-1] if messages else None
        return {**self.conversation, "last_message": last}, messages
