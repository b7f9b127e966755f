"""How a command is declared: once, and from that come the socket event, the REST route,
validation, permission, rate limit, metrics and documentation.

    class MessageCommands(CommandSet):
        namespace = "/messages"

        def __init__(self, messages: Messages) -> None:
            self.messages = messages

        @command(
            "message.send",
            route=Route("POST", "/conversations/{conversation}/messages", 201),
            limit=Rate(50, SECOND),
        )
        async def send(self, context: Context, request: SendMessage) -> Message:
            \"\"\"Send a message to a conversation.\"\"\"
            return await self.messages.send(context.principal, ...)

The request model and the type of the answer are read from the annotations, the summary and the
description from the docstring. A body parses nothing and formats nothing: it calls one action.
"""

import re
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from domain.principals import Role
from domain.rates import DEFAULT, Rate
from handlers.context import Context

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

_NAME = re.compile(r"[a-z_]+\.[a-z_]+\Z")


class Request(BaseModel):
    """Base of all request models: a field that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)


class Empty(Request):
    """A request without fields."""


@dataclass(frozen=True, slots=True)
class Route:
    """The REST side of a command, below `/api/v1`.

    Path parameters are fields of the request. What is not in the path comes from the query for
    GET and DELETE, and from a JSON object in the body otherwise.
    """

    method: Method
    path: str
    status: int = 200
    query: tuple[str, ...] = ()
    """Fields of a body that the query may carry as well: nothing secret, nothing that another
    site's page could have its visitors do."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))


@dataclass(frozen=True, slots=True)
class Command:
    """Everything the server knows of one thing a client can ask for."""

    name: str
    namespace: str | None
    """The Socket.IO namespace; None for commands that every namespace has."""
    request: type[Request]
    response: Any
    summary: str
    description: str
    run: Callable[[Context, Any], Awaitable[Any]]
    role: Role | None
    """The least role that may ask; None: anybody, also without a token."""
    route: Route | None
    socket: bool
    """Whether it is a socket event too."""


@dataclass(frozen=True, slots=True)
class _Declared:
    name: str
    route: Route | None
    limit: Rate
    role: Role | None
    socket: bool


def command(
    name: str,
    *,
    route: Route | None = None,
    limit: Rate = DEFAULT,
    role: Role | None = Role.GUEST,
    socket: bool = True,
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
    """Declare a method of a `CommandSet` as a command.

    Args:
        name: `noun.verb`.
        route: its REST route, if there is one.
        limit: how often somebody may ask; counted by the command's name.
        role: the least role that may ask; None for anybody, also without a token.
        socket: False for what only REST offers.
    """
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is not of the form noun.verb")

    def mark(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        method.__command__ = _Declared(name, route, limit, role, socket)  # type: ignore[attr-defined]
        return method

    return mark


class CommandSet:
    """The commands of one subject. A subclass takes the actions it calls in its constructor."""

    namespace: ClassVar[str | None] = None

    @classmethod
    def limits(cls) -> dict[str, Rate]:
        """How often somebody may ask for each of its commands, by name."""
        return {declared.name: declared.limit for declared, _ in cls._declared()}

    def commands(self) -> Iterator[Command]:
        """What the subclass declares, bound to this object."""
        for declared, attribute in self._declared():
            bound = attribute.__get__(self)
            hints = typing.get_type_hints(attribute)
            summary, _, description = (attribute.__doc__ or "").strip().partition("\n\n")
            yield Command(
                name=declared.name,
                namespace=self.namespace,
                request=hints["request"],
                response=hints["return"],
                summary=" ".join(summary.split()),
                description=" ".join(description.split()),
                run=bound,
                role=declared.role,
                route=declared.route,
                socket=declared.socket,
            )

    @classmethod
    def _declared(cls) -> Iterator[tuple[_Declared, Any]]:
        for attribute in vars(cls).values():
            declared: _Declared | None = getattr(attribute, "__command__", None)
            if declared is not None:
                yield declared, attribute


class Registry:
    """All commands of the server, by namespace and name."""

    def __init__(self, sets: Iterable[CommandSet], namespaces: Iterable[str]) -> None:
        """Collect the sets' commands.

        Raises:
            ValueError: two commands have one name in one namespace, or one route.
        """
        self.commands = [each for one in sets for each in one.commands()]
        self.namespaces = tuple(namespaces)
        self._by_event: dict[tuple[str, str], Command] = {}
        routes: dict[tuple[str, str], str] = {}
        for each in self.commands:
            if each.route is not None:
                shape = (each.route.method, re.sub(r"{\w+}", "{}", each.route.path))
                if shape in routes:
                    raise ValueError(f"{shape} is claimed by {routes[shape]} and {each.name}")
                routes[shape] = each.name
            if not each.socket:
                continue
            spaces = self.namespaces if each.namespace is None else (each.namespace,)
            for namespace in spaces:
                if (namespace, each.name) in self._by_event:
                    raise ValueError(f"{each.name} is declared twice in {namespace}")
                self._by_event[namespace, each.name] = each

    def find(self, namespace: str, name: str) -> Command | None:
        """The command behind a socket event."""
        return self._by_event.get((namespace, name))
