"""The bus over Redis pub/sub: one channel per room, sharded where the server can."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import structlog
from redis.exceptions import RedisError

from domain.clock import Clock
from domain.delivery import Delivery
from domain.errors import Unavailable
from domain.ids import new_id
from fanout.bus import Joined, Receive
from fanout.redis.canary import Canaries
from fanout.redis.header import Header, read_header, write_header
from fanout.redis.listener import RedisListener
from fanout.redis.outbox import Outbox, Waiting
from fanout.redis.sender import RedisSender, end
from fanout.redis.servers import Address, RedisServers

log = structlog.get_logger(__name__)

LINGER = 5.0
"""Seconds a channel stays subscribed after its last subscriber: many come back."""

CANARY_EVERY = 1.0
REACHED_WITHIN = 1.0
"""Seconds for a message that must go at once, or not at all."""

STOP_WITHIN = 2.0
"""Seconds that stopping waits for the queue to be sent."""

REFRESH_EVERY = 0.5
"""Seconds between two looks at which server of a cluster has what."""

MAX_HEADERS = 1000
"""Headers whose meaning is kept."""


class _Channel:
    """A channel that is subscribed to here, or was until a moment ago."""

    __slots__ = ("address", "count", "lingering", "name", "told", "wire")

    def __init__(self, name: str, wire: bytes) -> None:
        self.name = name
        self.wire = wire
        self.count = 0
        self.address: Address | None = None
        self.lingering: asyncio.TimerHandle | None = None
        self.told = False
        """Whether those who subscribed were told that it is heard."""


class RedisBus:
    """The bus of nodes that share a Redis."""

    alone = False

    def __init__(
        self,
        servers: RedisServers,
        clock: Clock,
        *,
        prefix: str = "parley",
        linger: float = LINGER,
        outbox: Callable[[], Outbox] = Outbox,
    ) -> None:
        """`prefix` sets servers apart that share a Redis: channels begin with it. `outbox` makes
        the queue to one Redis server. `servers` stays the caller's to close.
        """
        self.node = new_id()
        """This node, until it ends."""
        self._servers = servers
        self._clock = clock
        self._prefix = prefix
        self._name_at = len(f"{prefix}:".encode())
        """Where a channel's name begins in what Redis calls it."""
        self._linger = linger
        self._make_outbox = outbox
        self._header = write_header(self.node)
        self._header_for_all = write_header(self.node, all=True)
        self._headers: dict[bytes, Header] = {}
        """What headers say."""
        self._canaries = Canaries(prefix, self.node, clock)
        self._channels: dict[str, _Channel] = {}
        self._by_wire: dict[bytes, _Channel] = {}
        self._senders: dict[Address, RedisSender] = {}
        self._listeners: dict[Address, RedisListener] = {}
        self._unrouted: list[Waiting] = []
        self._receive: Receive = lambda _channel, _message: None
        self._joined: Joined = lambda _channels: None
        self._tasks: list[asyncio.Task[None]] = []
        self._lost = asyncio.Event()
        """Set when some server is said to have moved or gone."""
        self._started = False
        self._gone: Counter[str] = Counter()
        self.received = 0
        """Messages of other nodes."""

    # -- life ---------------------------------------------------------------------------------

    async def start(self, receive: Receive, joined: Joined) -> None:
        self._receive, self._joined = receive, joined
        self._started = True
        self._add_canary(self._canaries.first)
        loop = asyncio.get_running_loop()
        if self._servers.clustered:
            self._tasks.append(loop.create_task(self._keep_routes()))
            self._lost.set()
        self._route_all()
        self._tasks.append(loop.create_task(self._sing()))

    async def stop(self) -> None:
        self._receive, self._joined = (lambda _c, _m: None), (lambda _c: None)
        sending = [
            asyncio.ensure_future(each.drained())
            for each in self._senders.values()
            if each.connected
        ]
        if sending:
            await asyncio.wait(sending, timeout=STOP_WITHIN)
            for each in sending:
                each.cancel()
        for channel in self._by_wire.values():
            if channel.lingering is not None:
                channel.lingering.cancel()
        self._started = False
        for task in self._tasks:
            await end(task)
        self._tasks.clear()
        await asyncio.gather(*(each.stop() for each in self._senders.values()))
        await asyncio.gather(*(each.stop() for each in self._listeners.values()))
        self._senders.clear()
        self._listeners.clear()

    # -- publishing ---------------------------------------------------------------------------

    def publish(
        self,
        channel: str,
        message: bytes,
        *,
        delivery: Delivery = Delivery.DURABLE,
        key: str | None = None,
    ) -> None:
        wire = f"{self._prefix}:{channel}".encode()
        full_key = (wire, key or "") if delivery is Delivery.LATEST else None
        self._put(Waiting(wire, self._header + message, delivery, full_key))

    async def reach(self, channel: str, message: bytes) -> int:
        wire = f"{self._prefix}:{channel}".encode()
        reached: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        told = self._header_for_all + message
        self._put(Waiting(wire, told, Delivery.VOLATILE, None, reached))
        try:
            async with asyncio.timeout(REACHED_WITHIN):
                return await reached
        except TimeoutError:
            raise Unavailable("Redis does not answer.") from None

    def _put(self, waiting: Waiting) -> None:
        if not self._started:
            return
        try:
            address = self._servers.address_of(waiting.channel)
        except RedisError:
            # A cluster that is not known yet: as long as that lasts little can be kept.
            if waiting.delivery is not Delivery.VOLATILE and len(self._unrouted) < 10_000:
                self._unrouted.append(waiting)
            return
        sender = self._senders.get(address)
        if sender is None:
            sender = RedisSender(address, self._servers, self._make_outbox(), self._message_moved)
            self._senders[address] = sender
            sender.start()
        # One that is waited for may wait for the first connection; it is given up in time.
        waits = sender.connected or waiting.reached is not None
        if waiting.delivery is Delivery.VOLATILE and not waits:
            sender.outbox.dropped[Delivery.VOLATILE] += 1
            return
        sender.outbox.put(waiting)
        sender.wake()

    # -- subscribing --------------------------------------------------------------------------

    def subscribe(self, channel: str) -> None:
        entry = self._channels.get(channel)
        if entry is None:
            wire = f"{self._prefix}:{channel}".encode()
            entry = self._channels[channel] = self._by_wire[wire] = _Channel(channel, wire)
            self._route(entry)
        entry.count += 1
        if entry.lingering is not None:
            entry.lingering.cancel()
            entry.lingering = None
            if self._is_heard(entry):
                # It was heard all the time, but nobody listened.
                asyncio.get_running_loop().call_soon(self._rejoin, entry)

    def unsubscribe(self, channel: str) -> None:
        entry = self._channels.get(channel)
        if entry is None or not entry.count:
            return
        entry.count -= 1
        if not entry.count:
            entry.told = False
            loop = asyncio.get_running_loop()
            entry.lingering = loop.call_later(self._linger, self._leave, entry)

    def _rejoin(self, entry: _Channel) -> None:
        if entry.count and self._is_heard(entry):
            entry.told = True
            self._joined([entry.name])

    def _is_heard(self, entry: _Channel) -> bool:
        listener = self._listeners.get(entry.address) if entry.address is not None else None
        return listener is not None and listener.has(entry.wire)

    def _leave(self, entry: _Channel) -> None:
        entry.lingering = None
        del self._channels[entry.name]
        del self._by_wire[entry.wire]
        if entry.address is not None and entry.address in self._listeners:
            self._listeners[entry.address].remove(entry.wire)

    def _route(self, entry: _Channel) -> None:
        """Listen to a channel at the server that has it now."""
        if not self._started:
            return
        try:
            address = self._servers.address_of(entry.wire)
        except RedisError:
            self._lost.set()
            return
        if address == entry.address:
            return
        if entry.address is not None and entry.address in self._listeners:
            self._listeners[entry.address].remove(entry.wire)
        entry.address = address
        listener = self._listeners.get(address)
        if listener is None:
            listener = self._listeners[address] = RedisListener(
                address, self._servers, self._heard, self._confirmed, self._server_moved
            )
            listener.start()
            if self._servers.clustered:
                asyncio.get_running_loop().call_soon(self._place_canaries)
        listener.add(entry.wire)

    def _route_all(self) -> None:
        for entry in self._by_wire.values():
            self._route(entry)
        waiting, self._unrouted = self._unrouted, []
        for each in waiting:
            self._put(each)

    # -- hearing ------------------------------------------------------------------------------

    def _heard(self, wire: bytes, data: bytes) -> None:
        line, _, message = data.partition(b"\n")
        head = self._headers.get(line)
        if head is None:
            if len(self._headers) >= MAX_HEADERS:
                self._headers.clear()
            head = self._headers[line] = read_header(line)
        own = head.node == self.node
        if own and wire in self._canaries:
            self._canaries.heard(wire)
        if not head.for_all:
            entry = self._by_wire.get(wire)
            if own or entry is None or not entry.count:
                return
        if not head.readable:
            self._gone["unreadable"] += 1
            return
        self.received += not own
        # What is for all is taken whenever Redis sends it, as Redis counts those it sends it to: the
        # channel may have been left a moment ago.
        channel = wire[self._name_at :].decode()
        try:
            self._receive(channel, message)
        except Exception:
            # One message that makes trouble must not cost all others.
            self._gone["unreadable"] += 1
            log.exception("bus_message_failed", channel=channel)

    def _confirmed(self, wires: Sequence[bytes]) -> None:
        entries = [self._by_wire[wire] for wire in wires if wire in self._by_wire]
        told = [each for each in entries if each.count and each.wire not in self._canaries]
        for each in told:
            each.told = True
        if told:
            self._joined([each.name for each in told])

    # -- health -------------------------------------------------------------------------------

    def hears(self, channel: str) -> bool:
        entry = self._channels.get(channel)
        if entry is None or not entry.told or entry.address is None:
            return False
        listener = self._listeners.get(entry.address)
        return listener is not None and listener.is_whole(entry.wire)

    async def check(self) -> None:
        self._canaries.check(lambda wire: self._by_wire[wire].address)

    async def _sing(self) -> None:
        """Publish something to oneself now and then."""
        while True:
            for wire in self._canaries.wires:
                self._put(Waiting(wire, self._header, Delivery.LATEST, (wire, "")))
            await asyncio.sleep(CANARY_EVERY)

    def _add_canary(self, wire: bytes) -> _Channel:
        canary = self._by_wire[wire] = _Channel("", wire)
        canary.count = 1
        self._canaries.add(wire)
        return canary

    def _place_canaries(self) -> None:
        """Have one at each server of a cluster that is listened to."""
        there: set[Address] = set()
        for wire in self._canaries.wires:
            address = self._by_wire[wire].address
            if address is None:
                continue
            if address in there:  # its slot has moved to where another one is
                self._canaries.discard(wire)
                self._listeners[address].remove(wire)
                del self._by_wire[wire]
            there.add(address)
        for address, listener in list(self._listeners.items()):
            if address in there or listener.unused:
                continue
            try:
                name = self._canaries.named_for(address, self._servers.address_of)
            except RedisError:
                return  # what is known of the cluster changes just now, and it is looked at again
            if name is not None:
                self._route(self._add_canary(name))

    @property
    def publishing(self) -> bool:
        """Whether all servers that something was published to are connected."""
        return all(each.connected for each in self._senders.values())

    @property
    def hearing(self) -> bool:
        """Whether all servers that are listened to are connected."""
        return bool(self._listeners) and all(each.connected for each in self._listeners.values())

    @property
    def channels(self) -> int:
        """How many channels are subscribed to, those that linger included."""
        return len(self._channels)

    def counts(self) -> Mapping[str, float]:
        """What the bus has done: messages published, received, coalesced, dropped by class."""
        found: Counter[str] = Counter(self._gone)
        found["received"] = self.received
        for sender in self._senders.values():
            found["published"] += sender.published
            found["coalesced"] += sender.outbox.coalesced
            for delivery, dropped in sender.outbox.dropped.items():
                found[f"dropped_{delivery.value}"] += dropped
        return found

    @property
    def queued_bytes(self) -> int:
        """What waits to be published."""
        return sum(each.outbox.bytes for each in self._senders.values())

    # -- clusters -----------------------------------------------------------------------------

    def _message_moved(self, address: Address, waiting: Sequence[Waiting]) -> None:
        self._unrouted += waiting
        self._lost.set()

    def _server_moved(self, address: Address) -> None:
        self._lost.set()

    async def _keep_routes(self) -> None:
        """Follow a cluster's slots and nodes."""
        unknown = False
        while True:
            await self._lost.wait()
            self._lost.clear()
            try:
                await self._servers.refresh()
            except (RedisError, OSError) as error:
                if not unknown:
                    log.warning("bus_cluster_unknown", error=str(error))
                unknown = True
                self._lost.set()
            else:
                if unknown:
                    log.info("bus_cluster_known")
                unknown = False
                await self._follow_routes()
            await asyncio.sleep(REFRESH_EVERY)

    async def _follow_routes(self) -> None:
        for sender in list(self._senders.values()):
            if not sender.connected:
                self._unrouted += sender.outbox.take(len(sender.outbox), sender.outbox.bytes)
        self._route_all()
        self._place_canaries()
        for address, sender in list(self._senders.items()):
            if not sender.connected and not sender.outbox:
                del self._senders[address]
                await sender.stop()
        for address, listener in list(self._listeners.items()):
            if listener.unused:
                del self._listeners[address]
                await listener.stop()
