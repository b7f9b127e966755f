"""How nodes hear of each other's events. One node needs none of it."""

from collections.abc import Callable
from typing import Protocol

Receive = Callable[[str, bytes], None]


class Bus(Protocol):
    """Carries messages between nodes. It may lose them: the log may not."""

    async def start(self, receive: Receive) -> None:
        """Connect; `receive(channel, message)` is called for every message of other nodes."""
        ...

    async def stop(self) -> None:
        """Send what is queued, within a bounded time, and disconnect."""
        ...

    def publish(self, channel: str, message: bytes, *, key: str | None = None) -> None:
        """Queue a message for every other node that subscribed to `channel`. Never blocks.

        A newer message with the same `key` takes the place of one that still waits.
        """
        ...

    def subscribe(self, channel: str) -> None:
        """Receive what other nodes publish to `channel`, soon."""
        ...

    def unsubscribe(self, channel: str) -> None:
        """No longer receive it."""
        ...


class LocalBus:
    """The bus of a single node: there is nobody else."""

    async def start(self, receive: Receive) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to disconnect from."""

    def publish(self, channel: str, message: bytes, *, key: str | None = None) -> None:
        """Nobody else listens."""

    def subscribe(self, channel: str) -> None:
        """Nobody else speaks."""

    def unsubscribe(self, channel: str) -> None:
        """Nobody else speaks."""
