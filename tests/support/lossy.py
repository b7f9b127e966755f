"""A Redis that loses messages on their way to the nodes, without a word."""

import random
import re
from collections import Counter
from collections.abc import Callable

from tests.support.proxy import Carry, Proxy, carry_all

_MESSAGE = re.compile(
    rb"\*3\r\n\$\d+\r\ns?message\r\n\$\d+\r\n([^\r\n]+)\r\n\$\d+\r\n(.*)\r\n", re.DOTALL
)


class Loss:
    """Chooses one message in so many of each kind, somewhere among so many of them."""

    def __init__(self, one_in: int, seed: int = 20) -> None:
        """Nothing is lost before `begin`."""
        self.one_in = one_in
        self._random = random.Random(seed)
        self._next: dict[str, int] = {}
        self._losing = False
        self.came: Counter[str] = Counter()
        """Messages by kind, as long as some are lost."""
        self.lost: Counter[str] = Counter()

    def begin(self) -> None:
        """Lose messages from now on."""
        self._losing = True

    def end(self) -> None:
        """Lose none any more."""
        self._losing = False

    def takes(self, kind: str) -> bool:
        """Whether the next message of a kind is lost."""
        if not self._losing:
            return False
        place = self.came[kind] % self.one_in
        self.came[kind] += 1
        if not place:
            self._next[kind] = self._random.randrange(self.one_in)
        if place != self._next[kind]:
            return False
        self.lost[kind] += 1
        return True


class LossyProxy(Proxy):
    """A proxy before a Redis that leaves out some of the messages to those who are subscribed."""

    def __init__(self, port: int, loses: Callable[[str, bytes], bool]) -> None:
        """`port`: the Redis's. `loses`: whether a message on a channel is left out."""
        super().__init__(port)
        self._loses = loses

    @property
    def url(self) -> str:
        """Where to reach the Redis through it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def carries(self) -> tuple[Carry, Carry]:
        """Cuts what is said to the client into answers, and leaves out some."""
        answers = Answers()

        async def leave_out(data: bytes) -> bytes:
            if not data:
                return answers.rest
            return b"".join(each for each in answers.cut(data) if not self._is_lost(each))

        return carry_all, leave_out

    def _is_lost(self, answer: bytes) -> bool:
        found = _MESSAGE.fullmatch(answer)
        return found is not None and self._loses(found[1].decode(), found[2])


class Answers:
    """Cuts what a Redis says into its answers, messages among them. RESP2, which nodes speak."""

    def __init__(self) -> None:
        self.rest = b""
        """The beginning of an answer whose end has not come."""

    def cut(self, data: bytes) -> list[bytes]:
        """The answers that end in the next piece of what it says."""
        said = self.rest + data
        found: list[bytes] = []
        start = 0
        while (end := _end(said, start)) is not None:
            found.append(said[start:end])
            start = end
        self.rest = said[start:]
        return found


def _end(said: bytes, start: int) -> int | None:
    """Where the answer that begins at `start` ends; None if that has not come."""
    place, left = start, 1
    while left:
        line = said.find(b"\r\n", place)
        if line < 0:
            return None
        kind, size = said[place : place + 1], said[place + 1 : line]
        place, left = line + 2, left - 1
        if kind == b"*":
            left += max(0, int(size))
        elif kind == b"$":
            place += int(size) + 2 if int(size) >= 0 else 0
        else:
            assert kind in {b"+", b"-", b":"}, f"no answer of RESP2: {said[start:line]!r}"
    return place if place <= len(said) else None
