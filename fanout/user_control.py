"""What one node tells those nodes where a user has a connection: join, leave, forget.

Such an order goes over a channel of the user, so nodes without one hear nothing of it. The bus may
lose it. So each node numbers its orders, names with each the one before it to the same user, and
says some seconds later once more how far it has come. Who finds that one is missing, or could not
hear for a while, looks after what orders to this user would have changed (`on_missed`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Any

import orjson
import structlog

from domain.ids import new_id
from fanout.bus import Bus
from fanout.control import CHANNEL as TO_ALL

log = structlog.get_logger(__name__)

CHANNEL = "user:"
"""Before a user's id: the channel of the nodes where the user has a connection."""

REMINDED_AFTER = (1.0, 4.0)
"""Seconds after the last order to a user at which its number is said once more."""

REMEMBERED = 10_000
"""Users to whom the last order is remembered, those who had one last; more while it is to be said
once more."""

HEARD_WITHIN = 2.0
"""Seconds that a connection waits for its user's channel while Redis is there: it takes a
millisecond, but for a node to which thousands come at once."""

TICK = 0.25
"""Seconds between two looks at what is to be said once more."""

Act = Callable[[str, dict[str, Any]], None]
"""Given a user and an order."""


class _Ear:
    """What is heard of orders to one user."""

    __slots__ = ("last", "late", "opened", "waiting")

    def __init__(self) -> None:
        self.opened = False
        """Whether the channel was heard at some time."""
        self.late = False
        """Whether something was done here that should have waited for that."""
        self.last: dict[str, int] = {}
        """By node: the number of its last order."""
        self.waiting: list[asyncio.Future[None]] = []


class UserControl:
    """Runs an order here at once, and soon on every other node that the user is connected to."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._acts: dict[str, Act] = {}
        self._node = new_id()
        self._number = 0
        self._sent: OrderedDict[str, int] = OrderedDict()
        """By user: the number of the last order, oldest first."""
        self._reminders: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """By user: when the last order was given, and how often it was said since."""
        self._ears: dict[str, _Ear] = {}
        self.missed = 0
        """How often orders were, or may have been, missed."""
        self.on_missed: list[Callable[[str], None]] = []
        """Called with a user to whom orders of other nodes may not have come."""

    def on(self, topic: str, act: Act) -> None:
        """Declare what an order of this topic does on a node."""
        if topic in self._acts:
            raise ValueError(f"{topic} is declared twice")
        self._acts[topic] = act

    # -- ordering -----------------------------------------------------------------------------

    def send(self, users: Iterable[str], topic: str, **order: Any) -> None:
        """Have an order carried out for each of the users, wherever they are connected."""
        act = self._acts[topic]
        for user in users:
            act(user, order)
            self._order(user, topic, order)

    def tell_others(self, user: str, topic: str, **order: Any) -> None:
        """Have an order carried out on the other nodes alone."""
        self._order(user, topic, order)

    def _order(self, user: str, topic: str, order: dict[str, Any]) -> None:
        if self._bus.alone:
            return
        before = self._sent.pop(user, 0)
        self._number += 1
        self._sent[user] = self._number
        self._publish(user, number=self._number, before=before, topic=topic, order=order)
        self._reminders.pop(user, None)
        self._reminders[user] = asyncio.get_running_loop().time(), 0
        while len(self._sent) > REMEMBERED:
            oldest = next(iter(self._sent))
            if oldest in self._reminders:
                break
            del self._sent[oldest]

    def _publish(self, user: str, **told: Any) -> None:
        self._bus.publish(CHANNEL + user, orjson.dumps({"node": self._node, **told}))

    async def run(self) -> None:
        """Say once more how many orders there were, for as long as the node runs."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            self._remind(loop.time())

    def _remind(self, now: float) -> None:
        for user, (given_at, said) in list(self._reminders.items()):
            if now - given_at < REMINDED_AFTER[0]:
                break  # those behind were given later
            if now - given_at < REMINDED_AFTER[said]:
                continue
            self._publish(user, number=self._sent[user])
            if said + 1 < len(REMINDED_AFTER):
                self._reminders[user] = given_at, said + 1
            else:
                del self._reminders[user]

    # -- hearing ------------------------------------------------------------------------------

    def follow(self, user: str) -> None:
        """A user has a connection here."""
        if self._bus.alone:
            return
        self._ears[user] = _Ear()
        self._bus.subscribe(CHANNEL + user)

    def unfollow(self, user: str) -> None:
        """A user has none any more."""
        ear = self._ears.pop(user, None)
        if ear is not None:
            self._bus.unsubscribe(CHANNEL + user)
            _wake(ear)
            # From now on orders are missed: what is known of the user must not outlive this.
            for callback in self.on_missed:
                callback(user)

    @property
    def alone(self) -> bool:
        """Whether there are no other nodes."""
        return self._bus.alone

    def hears(self, user: str) -> bool:
        """Whether all orders to a user come here: then what was read since may be kept."""
        if self._bus.alone:
            return True
        ear = self._ears.get(user)
        return ear is not None and ear.opened and self._bus.hears(CHANNEL + user)

    async def heard(self, user: str) -> None:
        """Returns when orders to a user, who has a connection here, come: what is read after it is
        kept right by them. It does not wait for Redis to come back; then the user is one who may
        have missed something as soon as orders come.
        """
        ear = self._ears.get(user)
        if ear is None or ear.opened:
            return
        if not self._bus.hears(TO_ALL):
            ear.late = True
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ear.waiting.append(waiting)
        try:
            async with asyncio.timeout(HEARD_WITHIN):
                await waiting
        except TimeoutError:
            ear.late = True

    def joined(self, channels: Collection[str]) -> None:
        """Channels, of which those that begin with `CHANNEL` matter, are heard from now on."""
        for channel in channels:
            ear = self._ears.get(channel.removeprefix(CHANNEL))
            if ear is None or not channel.startswith(CHANNEL):
                continue
            again = ear.opened or ear.late
            ear.opened, ear.late = True, False
            _wake(ear)
            if again:
                self.may_have_missed(channel.removeprefix(CHANNEL))

    def receive(self, channel: str, message: bytes) -> None:
        """Carry out another node's order.

        Raises:
            ValueError: it is none.
        """
        user = channel.removeprefix(CHANNEL)
        ear = self._ears.get(user)
        if ear is None:
            return
        told = orjson.loads(message)
        if not isinstance(told, dict):
            raise ValueError("no order")
        try:
            if "number" in told and not self._count(user, ear, told):
                return
            if "topic" not in told:
                return
            act = self._acts.get(told["topic"])
            if act is None:
                # Of a newer version, in the middle of an upgrade.
                log.warning("control_unknown", topic=told["topic"])
                return
            act(user, told["order"])
        except (KeyError, TypeError) as error:
            raise ValueError("no order") from error

    def _count(self, user: str, ear: _Ear, told: dict[str, Any]) -> bool:
        """Note an order's number; False if it came before."""
        node, number = told["node"], told["number"]
        last = ear.last.get(node, 0)
        if number <= last:
            return False
        ear.last[node] = number
        # What was given before the user came is missing too; to look once more does no harm.
        if told.get("before", number) > last:
            self.may_have_missed(user)
        return True

    def all_may_have_missed(self) -> None:
        """Another node has died: its last orders, to whomever, may not have come."""
        for user in list(self._ears):
            self.may_have_missed(user)

    def may_have_missed(self, user: str) -> None:
        """Orders of other nodes to a user may not have come."""
        self.missed += 1
        log.debug("user_orders_missed", user=user)
        for callback in self.on_missed:
            callback(user)


def _wake(ear: _Ear) -> None:
    for waiting in ear.waiting:
        if not waiting.done():
            waiting.set_result(None)
    ear.waiting.clear()
