"""Hearing from one Redis server: one connection, subscribed to what is wanted."""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence

import structlog
from redis.exceptions import RedisError

from fanout.redis.sender import Backoff, end, is_sharded
from fanout.redis.servers import Address, ConnectionTo, RedisServers

log = structlog.get_logger(__name__)

CHANNELS_AT_ONCE = 500
"""Channels of one command."""

PING_EVERY = 1.0
SILENT_AFTER = 4.0
"""Seconds after which a connection that is pinged and says nothing is given up."""


class RedisListener:
    """Keeps one connection subscribed to a set of channels, for as long as it runs."""

    def __init__(
        self,
        address: Address,
        servers: RedisServers,
        on_message: Callable[[bytes, bytes], None],
        on_joined: Callable[[Sequence[bytes]], None],
        on_moved: Callable[[Address], None],
    ) -> None:
        """
        Args:
            on_message: given a channel and a message.
            on_joined: given channels whose messages come from now on; earlier ones may have been
                missed.
            on_moved: called when channels of this server have gone to another.
        """
        self.address = address
        self.connected = False
        self.connections = 0
        """How often it connected."""
        self._servers = servers
        self._on_message = on_message
        self._on_joined = on_joined
        self._on_moved = on_moved
        self._wanted: dict[bytes, None] = {}
        self._joined: set[bytes] = set()
        self._changed: dict[bytes, bool] = {}
        """Channels to subscribe to (True) or no longer (False), not told the server yet."""
        self._told: list[bytes] = []
        """Channels to be named to `on_joined` together."""
        self._announced: set[bytes] = set()
        """Channels that were named to it and have not been lost since."""
        self._wake = asyncio.Event()
        self._heard = 0.0
        self._backoff = Backoff()
        self._complained: set[type[Exception]] = set()
        """Of what, since it last went well."""
        self._well = False
        """Whether the server lets this connection hear what is wanted."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect and listen from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Disconnect."""
        await end(self._task)

    def add(self, channel: bytes) -> None:
        """Listen to a channel."""
        self._wanted[channel] = None
        self._change(channel, on=True)

    def remove(self, channel: bytes) -> None:
        """Listen to it no longer."""
        self._wanted.pop(channel, None)
        self._joined.discard(channel)
        self._announced.discard(channel)
        self._change(channel, on=False)

    def has(self, channel: bytes) -> bool:
        """Whether the server has confirmed that it will send what is published to a channel."""
        return channel in self._joined

    def is_whole(self, channel: bytes) -> bool:
        """Whether nothing was missed of a channel since `on_joined` was called with it."""
        return channel in self._announced

    @property
    def unused(self) -> bool:
        """Whether it listens to nothing."""
        return not self._wanted

    def _change(self, channel: bytes, *, on: bool) -> None:
        if self.connected:
            self._changed[channel] = on
            self._wake.set()

    # -- the connection -----------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            connection: ConnectionTo | None = None
            writing: asyncio.Task[None] | None = None
            try:
                connection = self._servers.connection(self.address)
                await connection.connect()
                verb = b"S" if await is_sharded(connection) else b""
                self._begin()
                writing = asyncio.get_running_loop().create_task(self._write(connection, verb))
                await self._read(connection)
            except (RedisError, OSError) as error:
                if type(error) not in self._complained:
                    log.warning("bus_listening_failed", server=self.address, error=str(error))
                    self._complained.add(type(error))
            except Exception as error:
                # Whatever it is, this must not stay deaf.
                if type(error) not in self._complained:
                    log.exception("bus_listening_failed", server=self.address)
                    self._complained.add(type(error))
            finally:
                self._end()
                await end(writing)
                if writing is not None and not writing.cancelled():
                    writing.exception()  # The same lost connection, which was told of above.
                if connection is not None:
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(self._backoff.next())
            if self._servers.clustered:
                self._on_moved(self.address)

    def _begin(self) -> None:
        self.connected = True
        self.connections += 1
        self._well = False
        self._heard = asyncio.get_running_loop().time()
        self._changed = dict.fromkeys(self._wanted, True)
        self._wake.set()

    def _goes_well(self) -> None:
        """Everything wanted is heard, or the connection has lasted. One that is let in may still be
        refused what it asks for: that is the same trouble, and tried again no sooner.
        """
        self._well = True
        if self._complained or self.connections > 1:
            log.info("bus_connected", server=self.address, channels=len(self._wanted))
        self._backoff.reset()
        self._complained.clear()

    def _end(self) -> None:
        self.connected = False
        self._joined.clear()
        self._announced.clear()
        self._changed.clear()

    async def _write(self, connection: ConnectionTo, verb: bytes) -> None:
        """Tell the server what changes, and ask now and then whether it is there."""
        try:
            while True:
                try:
                    async with asyncio.timeout(PING_EVERY):
                        await self._wake.wait()
                except TimeoutError:
                    if asyncio.get_running_loop().time() - self._heard > SILENT_AFTER:
                        log.warning("bus_silent", server=self.address)
                        return
                    await connection.send_command("PING", check_health=False)
                    continue
                self._wake.clear()
                changed, self._changed = self._changed, {}
                commands = [
                    *self._commands(verb + b"UNSUBSCRIBE", (c for c in changed if not changed[c])),
                    *self._commands(verb + b"SUBSCRIBE", (c for c in changed if changed[c])),
                ]
                for start in range(0, len(commands), CHANNELS_AT_ONCE):
                    packed = connection.pack_commands(commands[start : start + CHANNELS_AT_ONCE])
                    await connection.send_packed_command(packed, check_health=False)
        finally:
            # Whatever ended this ends the reading too.
            await connection.disconnect(nowait=True)

    def _commands(self, verb: bytes, channels: Iterable[bytes]) -> list[tuple[bytes, ...]]:
        listed = list(channels)
        # In a cluster the channels of one command must be of one slot.
        step = 1 if self._servers.clustered else CHANNELS_AT_ONCE
        return [(verb, *listed[at : at + step]) for at in range(0, len(listed), step)]

    async def _read(self, connection: ConnectionTo) -> None:
        read = connection.read_response
        clock = asyncio.get_running_loop().time
        while True:
            answer = await read(timeout=math.inf, disconnect_on_error=False, push_request=True)
            self._heard = clock()
            if not isinstance(answer, list):
                continue
            kind = answer[0]
            if kind in {b"smessage", b"message"}:
                self._on_message(answer[1], answer[2])
            elif kind in {b"ssubscribe", b"subscribe"}:
                self._confirm(answer[1])
            elif kind == b"sunsubscribe" and answer[1] in self._joined:
                # Not asked for: the channel's slot has moved to another server.
                self._on_moved(self.address)
            if not self._well and (kind == b"pong" or len(self._joined) == len(self._wanted)):
                self._goes_well()

    def _confirm(self, channel: bytes) -> None:
        if channel in self._wanted and self._changed.get(channel) is not False:
            self._joined.add(channel)
            if not self._told:
                asyncio.get_running_loop().call_soon(self._tell)
            self._told.append(channel)

    def _tell(self) -> None:
        told, self._told = self._told, []
        joined = [each for each in told if each in self._joined]
        self._announced.update(joined)
        self._on_joined(joined)
