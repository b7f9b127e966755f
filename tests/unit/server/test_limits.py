"""How often everything may be asked for: as declared, unless the settings say otherwise."""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator

import pytest

import handlers
from config.docs import SHOWN_IN, updated
from config.load import SettingsError
from config.values import RateLimits
from domain.rates import DEFAULT, SECOND, Rate
from handlers.command import CommandSet, Request, command
from handlers.context import Context
from server.docs import limits as page
from server.features import COMMANDS, LIMITS, MODULES
from server.http.uploads import OPENAPI
from server.limits import limits_of


class Quick(Request):
    """Nothing."""


class QuickCommands(CommandSet):
    @command("quick.now", limit=Rate(3, SECOND))
    async def now(self, context: Context, request: Quick) -> None:
        """With a limit of its own."""

    @command("quick.later")
    async def later(self, context: Context, request: Quick) -> None:
        """Without."""


def command_sets() -> Iterator[type[CommandSet]]:
    for each in pkgutil.walk_packages(handlers.__path__, "handlers."):
        for kind in vars(importlib.import_module(each.name)).values():
            if isinstance(kind, type) and issubclass(kind, CommandSet) and kind is not CommandSet:
                yield kind


def test_a_limit_stands_with_the_declaration_of_the_command() -> None:
    assert QuickCommands.limits() == {"quick.now": Rate(3, SECOND), "quick.later": DEFAULT}
    assert LIMITS["message.send"] == Rate(50, SECOND)
    assert LIMITS["message.get"] == DEFAULT


def test_every_command_belongs_to_one_feature() -> None:
    assert Counter(COMMANDS) == Counter(set(command_sets()))


def test_every_bucket_is_declared_once() -> None:
    buckets = [
        *(name for each in MODULES for name in each.LIMITS),
        *(name for each in COMMANDS for name in each.limits()),
    ]
    assert [name for name, count in Counter(buckets).items() if count > 1] == []


def test_routes_that_are_no_commands_have_limits() -> None:
    operations = {each["operationId"] for path in OPENAPI.values() for each in path.values()}
    assert operations <= LIMITS.keys()


def test_what_the_settings_say_goes_before_what_is_declared() -> None:
    assert limits_of(RateLimits()) == (LIMITS, DEFAULT)
    limits, default = limits_of(RateLimits.parse("message.send=5/m,member.added=off"))
    assert limits == {**LIMITS, "message.send": (5, 60), "member.added": None}
    assert default == DEFAULT
    assert limits_of(RateLimits.parse("off")) == ({}, None)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"message\.sned is no bucket"):
        limits_of(RateLimits.parse("login=5/m,message.sned=5/s"))


def test_every_limit_is_shown() -> None:
    table = page.table()
    for name, rate in LIMITS.items():
        assert (f"| `{name}` |" in table) == (rate != DEFAULT)
    assert "| `message.send` | `50/s` |\n" in table
    text = SHOWN_IN.read_text(encoding="utf-8")
    assert text.count(page.START) == text.count(page.END) == 1
    assert updated(text, table, page.START, page.END) == text
