"""Who follows a stream on any node: asked of all of them over the bus, because it is asked for much
more rarely than it changes.
"""

import asyncio
from collections.abc import Collection, Sequence

import orjson
import structlog

from domain.delivery import Delivery
from domain.ids import new_id
from fanout.bus import Bus
from fanout.presence import CHANNELS, Here

log = structlog.get_logger(__name__)

ALL = f"{CHANNELS}all"
NODE = f"{CHANNELS}node:"

WITHIN = 1.0
"""Seconds that answers are waited for."""


class _Question:
    __slots__ = ("answered", "found", "missing")

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing
        self.found: set[str] = set()
        self.answered = asyncio.Event()


class Followers:
    """Asks the other nodes, and answers them."""

    def __init__(self, bus: Bus, node: str, here: Here) -> None:
        self._bus = bus
        self._node = node
        self._here = here
        self._questions: dict[str, _Question] = {}
        self._silent: set[str] = set()
        """Nodes that did not answer: they are not waited for until they are heard again."""
        bus.subscribe(ALL)
        bus.subscribe(NODE + node)

    async def ask(self, stream: str, nodes: Collection[str]) -> set[str]:
        """The users who follow a stream on these nodes; without those of nodes that do not answer
        within a second.
        """
        id, question = new_id(), _Question(set(nodes) - self._silent)
        asked = {"question": id, "from": self._node, "stream": stream}
        self._questions[id] = question
        try:
            self._bus.publish(ALL, orjson.dumps(asked), delivery=Delivery.LATEST, key=id)
            if question.missing:
                async with asyncio.timeout(WITHIN):
                    await question.answered.wait()
        except TimeoutError:
            log.warning("presence_unanswered", nodes=len(question.missing))
            self._silent = (self._silent | question.missing) & set(nodes)
        finally:
            del self._questions[id]
        return question.found

    def receive(self, message: bytes) -> None:
        """Take a question or an answer of another node.

        Raises:
            ValueError: it is neither.
        """
        told = orjson.loads(message)
        try:
            if "stream" in told:
                self._answer(told["question"], told["from"], told["stream"])
            else:
                self._take(told["question"], told["from"], told["users"])
        except (KeyError, TypeError) as error:
            raise ValueError("no question about presence") from error

    def _answer(self, id: str, node: str, stream: str) -> None:
        answer = {"question": id, "from": self._node, "users": list(self._here(stream))}
        self._bus.publish(NODE + node, orjson.dumps(answer), delivery=Delivery.LATEST, key=id)

    def _take(self, id: str, node: str, users: Sequence[str]) -> None:
        self._silent.discard(node)
        question = self._questions.get(id)
        if question is None:
            return
        question.found.update(users)
        question.missing.discard(node)
        if not question.missing:
            question.answered.set()
