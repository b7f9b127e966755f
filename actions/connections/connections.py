"""Who is connected, on every node, for administrators: a list, and ending one of them."""

import asyncio
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import orjson
import structlog
from typing_extensions import TypedDict

from actions.connections.clients import Client, Clients
from domain.errors import Forbidden, NotFound, Unavailable
from domain.ids import new_id
from domain.pages import Page, by_id, cut, resume
from domain.principals import Principal, Role
from fanout.bus import Bus
from fanout.control import Control

log = structlog.get_logger(__name__)

CHANNEL = "connections"
"""Of the bus: questions to all nodes, and their answers."""

WITHIN = 2.0
"""Seconds that the other nodes' answers are waited for."""

_CLOSE = "connection.close"


class ConnectionView(TypedDict):
    """One client in one namespace."""

    id: str
    user: str
    role: str
    session: str
    """The login session it came with, or the API key."""
    namespace: str
    transport: str
    address: str
    user_agent: str
    node: str
    streams: int
    """How many it follows."""


class _Question:
    __slots__ = ("found", "nodes", "progress")

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.found: list[ConnectionView] = []
        self.progress = asyncio.Event()


class Connections:
    """Asks this node and all others; each knows its own.

    Args:
        node: this node's name, as an operator knows it.
        within: seconds that the other nodes' answers are waited for.
    """

    def __init__(
        self, clients: Clients, bus: Bus, control: Control, node: str, within: float = WITHIN
    ) -> None:
        self._clients = clients
        self._bus = bus
        self._control = control
        self._node = node
        self._within = within
        self._id = new_id()
        self._questions: dict[str, _Question] = {}
        control.on(_CLOSE, self._close_here)

    async def list(
        self, principal: Principal, *, user: str | None, cursor: str | None, limit: int
    ) -> Page[ConnectionView]:
        """The organization's connections by their ids; those of one user if `user` is given.

        Raises:
            Unavailable: a node did not answer: a list without its connections would mislead.
        """
        after = resume(cursor, "id") or ""
        found = await self._ask(principal.org, user=user, id=None, after=after, limit=limit + 1)
        page, next = cut(found, limit, by_id)
        return {"items": page, "next": next}

    async def close(self, principal: Principal, id: str, *, reconnect: bool) -> None:
        """End a connection, with all that came over the same transport, on whichever node it is.

        Args:
            reconnect: what the client is told in `closing`; its rights stay as they are.

        Raises:
            NotFound: the organization has no such connection.
            Forbidden: it is of somebody above the caller.
            Unavailable: a node did not answer.
        """
        found = await self._ask(principal.org, user=None, id=id, after="", limit=1)
        if not found:
            raise NotFound("There is no such connection.")
        if not principal.role.at_least(Role(found[0]["role"])):
            raise Forbidden("This connection's user has a role above yours.")
        log.info("connection_closed", connection=id, user=found[0]["user"], by=principal.user)
        self._control.send(_CLOSE, org=principal.org, id=id, reconnect=reconnect)

    # -- asking -------------------------------------------------------------------------------

    async def _ask(
        self, org: str, *, user: str | None, id: str | None, after: str, limit: int
    ) -> Sequence[ConnectionView]:
        asked = 0
        wanted = {"org": org, "user": user, "id": id, "after": after, "limit": limit}
        if self._bus.alone:
            return self._here(wanted)
        name, question = new_id(), _Question()
        self._questions[name] = question
        try:
            told = orjson.dumps({"question": name, "from": self._id, "wanted": wanted})
            asked = await self._bus.reach(CHANNEL, told)
            async with asyncio.timeout(self._within):
                while len(question.nodes) < asked:
                    question.progress.clear()
                    await question.progress.wait()
        except TimeoutError:
            log.warning("connections_unanswered", nodes=asked - len(question.nodes))
            raise Unavailable("A node did not tell its connections; try again.") from None
        finally:
            del self._questions[name]
        found = {each["id"]: each for each in [*question.found, *self._here(wanted)]}
        return [found[each] for each in sorted(found)][:limit]

    def receive(self, message: bytes) -> None:
        """Answer a question, or take an answer.

        Raises:
            ValueError: it is neither.
        """
        told = orjson.loads(message)
        try:
            if "wanted" in told:
                answer = {"answer": told["question"], "from": self._id, "found": []}
                if told["from"] != self._id:
                    answer["found"] = self._here(told["wanted"])
                    self._bus.publish(CHANNEL, orjson.dumps(answer))
                    return
                told = answer  # that it was asked too shows that the question went out
            question = self._questions.get(told["answer"])
            if question is not None:
                question.found += told["found"]
                question.nodes.add(told["from"])
                question.progress.set()
        except (KeyError, TypeError) as error:
            raise ValueError("neither question nor answer") from error

    # -- here ---------------------------------------------------------------------------------

    def _here(self, wanted: dict[str, Any]) -> Sequence[ConnectionView]:
        user: str | None = wanted["user"]
        clients: Iterable[Client] = self._clients
        if user is not None:
            clients = self._clients.of_user(user)
        found = [each for each in clients if _is_wanted(each, wanted)]
        found.sort(key=attrgetter("id"))
        return [self._view(each) for each in found[: wanted["limit"]]]

    def _view(self, client: Client) -> ConnectionView:
        outlet = client.outlet
        return {
            "id": client.id,
            "user": client.principal.user,
            "role": client.principal.role.value,
            "session": client.principal.session,
            "namespace": f"/{client.namespace}",
            "transport": outlet.transport,
            "address": outlet.remote,
            "user_agent": outlet.user_agent,
            "node": self._node,
            "streams": len(client.streams),
        }

    def _close_here(self, order: dict[str, Any]) -> None:
        for client in self._clients:
            if client.id == order["id"] and client.principal.org == order["org"]:
                client.outlet.close("revoked", reconnect=order["reconnect"])
                return


def _is_wanted(client: Client, wanted: dict[str, Any]) -> bool:
    return (
        client.principal.org == wanted["org"]
        and client.id > wanted["after"]
        and wanted["id"] in (None, client.id)
    )
