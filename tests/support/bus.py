"""A bus between the nodes of one process, which can be told to lose what it carries."""

from collections import Counter
from collections.abc import Callable

from domain.delivery import Delivery
from domain.errors import Unavailable
from fanout.bus import Joined, Receive


class Wire:
    """What the buses of one cluster hang on."""

    def __init__(self) -> None:
        self.buses: list[LossyBus] = []
        self.cut = False
        """Nothing gets through, and who comes back is told to have missed something."""
        self.carried = 0


class LossyBus:
    """One node's end. Everything arrives at once, but for what is lost."""

    alone = False

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._receive: Receive | None = None
        self._joined: Joined = lambda _channels: None
        self._channels: Counter[str] = Counter()
        self.slow = False
        """Does not say that a subscription has begun, until `rejoin`."""
        self.lossy = False
        """Loses what this node publishes, and nobody is told."""
        self.loses: Callable[[str, bytes], bool] = lambda _channel, _message: False
        wire.buses.append(self)

    async def start(self, receive: Receive, joined: Joined) -> None:
        self._receive, self._joined = receive, joined

    async def stop(self) -> None:
        self._receive = None

    def publish(
        self,
        channel: str,
        message: bytes,
        *,
        delivery: Delivery = Delivery.DURABLE,
        key: str | None = None,
    ) -> None:
        self._carry(channel, message)

    async def reach(self, channel: str, message: bytes) -> int:
        if self._wire.cut:
            raise Unavailable("cut")
        return self._carry(channel, message, itself=True)

    def _carry(self, channel: str, message: bytes, *, itself: bool = False) -> int:
        if self.lossy or self._wire.cut or self.loses(channel, message):
            return 0
        hearing = [
            each._receive
            for each in self._wire.buses
            if (itself or each is not self)
            and each._receive is not None
            and each._channels[channel]
        ]
        self._wire.carried += len(hearing)
        for receive in hearing:
            receive(channel, message)
        return len(hearing)

    def subscribe(self, channel: str) -> None:
        self._channels[channel] += 1
        if not self._wire.cut and not self.slow:
            self._joined([channel])

    def unsubscribe(self, channel: str) -> None:
        self._channels[channel] -= 1

    def rejoin(self) -> None:
        """The connection is there again."""
        self._joined([channel for channel, count in self._channels.items() if count > 0])

    def hears(self, channel: str) -> bool:
        return self._channels[channel] > 0 and not self._wire.cut

    async def check(self) -> None:
        if self._wire.cut:
            raise Unavailable("cut")
