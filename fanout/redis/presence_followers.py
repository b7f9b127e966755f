"""Who follows a stream on any node: asked in the room of that stream, because it is asked for much
more rarely than it changes. Only nodes where somebody follows it hear the question.
"""

import asyncio
from collections.abc import Iterable

import orjson
import structlog

from domain.delivery import Delivery
from domain.errors import Unavailable
from domain.ids import new_id
from fanout.bus import Bus
from fanout.presence import CHANNELS, Here

log = structlog.get_logger(__name__)

NODE = f"{CHANNELS}node:"

WITHIN = 1.0
"""Seconds that answers are waited for."""

IMPATIENT = 0.2
"""Seconds that they are waited for after somebody did not answer: Redis goes on counting a node that
went without a word until its connection is given up."""

FORGIVEN_AFTER = 60.0
"""Seconds until then."""


class _Question:
    __slots__ = ("found", "nodes", "progress")

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.found: set[str] = set()
        self.progress = asyncio.Event()


class Followers:
    """Asks the other nodes, and answers them."""

    def __init__(self, bus: Bus, node: str, here: Here) -> None:
        self._bus = bus
        self._node = node
        self._here = here
        self._questions: dict[str, _Question] = {}
        self._impatient_until = 0.0
        bus.subscribe(NODE + node)

    async def ask(self, stream: str) -> set[str]:
        """The users who follow a stream on other nodes; without those of nodes that do not answer
        within a second, and none while Redis is away.
        """
        id, question = new_id(), _Question()
        self._questions[id] = question
        loop = asyncio.get_running_loop()
        patience = WITHIN if loop.time() >= self._impatient_until else IMPATIENT
        asked = 0
        try:
            # Begins with `QUESTION`.
            told = orjson.dumps({"followers": id, "from": self._node})
            asked = await self._bus.reach(stream, told)
            async with asyncio.timeout(patience):
                while len(question.nodes) < asked:
                    question.progress.clear()
                    await question.progress.wait()
        except TimeoutError:
            log.warning("presence_unanswered", nodes=asked - len(question.nodes))
            if patience == WITHIN:
                self._impatient_until = loop.time() + FORGIVEN_AFTER
        except Unavailable:
            pass  # those here are known, and some of the others may have answered
        finally:
            del self._questions[id]
        return question.found

    def asked(self, stream: str, message: bytes) -> None:
        """Answer a question that a node asked in the room of a stream. That it was asked by this
        one, which knows its own, shows that it is among those who were asked.

        Raises:
            ValueError: it is none.
        """
        told = orjson.loads(message)
        try:
            id, node = told["followers"], told["from"]
            if node == self._node:
                self._take(id, node, ())
            else:
                self._answer(id, node, self._here(stream))
        except (KeyError, TypeError) as error:
            raise ValueError("no question about presence") from error

    def _answer(self, id: str, node: str, users: Iterable[str]) -> None:
        answer = {"question": id, "from": self._node, "users": list(users)}
        self._bus.publish(NODE + node, orjson.dumps(answer), delivery=Delivery.LATEST, key=id)

    def answered(self, message: bytes) -> None:
        """Take an answer.

        Raises:
            ValueError: it is none.
        """
        told = orjson.loads(message)
        try:
            id, node, users = told["question"], told["from"], told["users"]
        except (KeyError, TypeError) as error:
            raise ValueError("no answer about presence") from error
        self._take(id, node, users)

    def _take(self, id: str, node: str, users: Iterable[str]) -> None:
        question = self._questions.get(id)
        if question is not None:
            question.found.update(users)
            question.nodes.add(node)
            question.progress.set()
