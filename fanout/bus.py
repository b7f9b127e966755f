"""How nodes hear of each other's events. One node needs none of it."""

from collections.abc import Callable, Collection
from typing import Protocol

from domain.delivery import Delivery

Receive = Callable[[str, bytes], None]
"""Given a channel and a message of another node, or one that was to `reach` this one too."""

Joined = Callable[[Collection[str]], None]
"""Given channels of which everything is heard from now on; what came before may have been missed."""


class Bus(Protocol):
    """Carries messages between nodes. It may lose them: the log may not."""

    @property
    def alone(self) -> bool:
        """Whether there can be no other node: then nothing needs to be published."""
        ...

    async def start(self, receive: Receive, joined: Joined) -> None:
        """Begin. `receive` is called for every message of other nodes on a subscribed channel and
        for each that is to `reach` all, `joined` with subscribed channels whenever hearing them
        begins: soon after subscribing, and again each time the connection had been lost. Neither is
        called after `stop`. It does not wait for a connection: while there is none, the bus keeps
        trying.
        """
        ...

    async def stop(self) -> None:
        """Send what is queued, within a bounded time, and disconnect."""
        ...

    def publish(
        self,
        channel: str,
        message: bytes,
        *,
        delivery: Delivery = Delivery.DURABLE,
        key: str | None = None,
    ) -> None:
        """Queue a message for every other node that subscribed to `channel`. Never blocks.

        Messages on one channel arrive in the order published, some perhaps twice. A newer latest
        message with the same channel and `key` takes the place of one that still waits. A volatile
        one does not wait for a connection that was lost, and a latest one that did comes some
        seconds after it is back, when other nodes hear again. When too much waits, volatile ones
        are dropped first, then latest ones, then durable ones, the oldest first.
        """
        ...

    async def reach(self, channel: str, message: bytes) -> int:
        """Publish a message at once, to those who hear `channel` at this moment and those who
        unsubscribed shortly before, this node included. Returns how many nodes that are, in a
        bounded time; they may receive it a little later. A bus that is `alone` reaches none.

        Raises:
            Unavailable: none can be reached now. Whether some were is not known.
        """
        ...

    def subscribe(self, channel: str) -> None:
        """Receive what other nodes publish to `channel`, soon. As often as it is subscribed to, it
        must be unsubscribed from.
        """
        ...

    def unsubscribe(self, channel: str) -> None:
        """No longer receive it, from this moment, if nobody else has subscribed to it; but for what
        is meant to `reach` all.
        """
        ...

    def hears(self, channel: str) -> bool:
        """Whether all that others publish to a channel comes here, as far as is known: it is
        subscribed to, `joined` was called with it, and the connection was not lost since then.
        """
        ...

    async def check(self) -> None:
        """Returns if this node hears what it publishes.

        Raises:
            Unavailable: it has not heard itself for some seconds.
        """
        ...


class LocalBus:
    """The bus of a single node: there is nobody else."""

    alone = True

    async def start(self, receive: Receive, joined: Joined) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to disconnect from."""

    def publish(
        self,
        channel: str,
        message: bytes,
        *,
        delivery: Delivery = Delivery.DURABLE,
        key: str | None = None,
    ) -> None:
        """Nobody else listens."""

    async def reach(self, channel: str, message: bytes) -> int:
        """Nobody else listens."""
        return 0

    def subscribe(self, channel: str) -> None:
        """Nobody else speaks."""

    def unsubscribe(self, channel: str) -> None:
        """Nobody else speaks."""

    def hears(self, channel: str) -> bool:
        """Nobody else speaks: nothing is missed."""
        return True

    async def check(self) -> None:
        """Nothing can be lost."""
