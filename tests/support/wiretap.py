"""Listening in on what a Redis at the other end of a TCP connection says."""

import re
from collections import Counter

from tests.support.proxy import Carry, Proxy, carry_all

_CHANNEL = rb"\r\n\$\d+\r\n([^\r\n]+)\r\n"


class Wiretap(Proxy):
    """A proxy before a Redis that keeps what it says."""

    def __init__(self, port: int) -> None:
        """`port`: the Redis's."""
        super().__init__(port)
        self._heard: list[bytearray] = []
        """By connection."""

    @property
    def url(self) -> str:
        """Where to reach the Redis through it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def heard(self) -> bytes:
        """All that was said, one connection after the other."""
        return b"".join(self._heard)

    def forget(self) -> None:
        """Begin anew. Call it when nothing is half said."""
        for heard in self._heard:
            heard.clear()

    @property
    def messages(self) -> Counter[str]:
        """How many messages came on each channel."""
        return self._channels(rb"\bs?message")

    @property
    def subscribed(self) -> set[str]:
        """The channels whose subscription was confirmed."""
        return set(self._channels(rb"\bs?subscribe"))

    @property
    def unsubscribed(self) -> set[str]:
        """The channels whose end of subscription was confirmed."""
        return set(self._channels(rb"\bs?unsubscribe"))

    def _channels(self, kind: bytes) -> Counter[str]:
        return Counter(
            channel.decode()
            for heard in self._heard
            for channel in re.findall(kind + _CHANNEL, heard)
        )

    def carries(self) -> tuple[Carry, Carry]:
        """Keeps what is said to the client."""
        heard = bytearray()
        self._heard.append(heard)

        async def keep(data: bytes) -> bytes:
            heard.extend(data)
            return data

        return carry_all, keep
