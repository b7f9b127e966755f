"""What random sessions are made of: words, values good and bad, and the commands with their routes."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from handlers.accounts import auth, contacts, users
from handlers.command import CommandSet, Route
from handlers.messaging import (
    conversations,
    history,
    members,
    messages,
    pins,
    reactions,
    receipts,
    typing,
)
from handlers.presence import presence
from handlers.streams import streams
from handlers.uploads import uploads
from tests.chaos.values import VALUES

NOBODY = "00000000-0000-7000-8000-000000000000"
PEOPLE = ("ann", "bob", "cid", "eve")
NAMES = ("Ann Müller", "Bôb Ångström", "李 小龍 Cid", "Eve O'Neil-Straße")
WORDS = (
    *("hello", "world", "Crème", "BRÛLÉE", "naïve", "Straße", "STRASSE", "İstanbul", "ısı", "ﬁn"),
    *("日本語", "テスト", "カ゚", "ガ", "한국어", "नमस्ते", "สวัสดี", "Ελλάδα", "ΌΣΟΣ", "όσος", "привет"),
    *("👍", "👨‍👩‍👧", "❤️", "x²", "½", "Ⅷ", "a_b", "a.b", "$set", "100%", "don’t", "don't", "C++"),
    *("e\u0301te\u0301", "مرحبا", "שָׁלוֹם", "z" * 120, "ﷺ", "𝒳", "Ⓐ", "ǅ", "ŉ", "Å", "Å", "ſ"),
)
EMOJI = ("👍", "🎉", ":shipit:", "❤", "❤️", "👨‍👩‍👧", "🇩🇪", "x", ":", "👍🏽", "👍👍", ":a:", "")
RAW = tuple(VALUES.values())


class Described(NamedTuple):
    """How a command can be given."""

    namespaces: tuple[str, ...]
    route: Route | None


def _described() -> Iterator[tuple[str, Described]]:
    for module in (
        *(auth, contacts, conversations, history, members, messages, pins, presence, reactions),
        *(receipts, streams, typing, uploads, users),
    ):
        for kind in vars(module).values():
            if not isinstance(kind, type) or not issubclass(kind, CommandSet):
                continue
            for method in vars(kind).values():
                found = getattr(method, "__command__", None)
                if found is None:
                    continue
                spaces = (kind.namespace,) if kind.namespace else ("/messages", "/reactions")
                yield found.name, Described(spaces if found.socket else (), found.route)


COMMANDS = dict(_described())


CURSORS = ("", "e30", "eyJpZCI6MX0", "eyJpZCI6IiJ9", "eyJzZXEiOjF9", "%%%", "eyJpZCI6IngifQ")
FIELDS = tuple(
    sorted(
        {
            *(
                "limit",
                "cursor",
                "body",
                "version",
                "seq",
                "q",
                "emoji",
                "title",
                "members",
                "kind",
            ),
            *("streams", "users", "status", "text", "since", "before", "role", "name", "settings"),
            *("conversation", "message", "user", "mentions", "attachments", "id", "client_id"),
        }
    )
)


def json_text(value: Any) -> str:
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False)


def readable(text: str) -> bool:
    """Whether a text is JSON that the server can read."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def plain(text: str) -> str:
    """A JSON text as a query has it."""
    if text.startswith('"'):
        value: str = json.loads(text)
        return value.encode(errors="replace").decode()
    return text


def object_text(texts: dict[str, str]) -> str:
    """An object of fields whose values are JSON texts."""
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in texts.items()) + "}"
