"""Publishing to one Redis server: whatever has queued up goes in one pipeline."""

import asyncio
import math
import random
from collections.abc import Callable, Sequence

import structlog
from redis.exceptions import AskError, MovedError, RedisError, ResponseError

from fanout.redis.outbox import Outbox, Waiting
from fanout.redis.servers import Address, ConnectionTo, RedisServers

log = structlog.get_logger(__name__)

MESSAGES_AT_ONCE = 512
BYTES_AT_ONCE = 256 * 1024
"""Of one pipeline."""

ANSWERED_WITHIN = 2.0
"""Seconds for the answers to one pipeline."""

HEARD_AGAIN = 2.0
"""Seconds within which nodes that have lost their connections too hear again: what has no place in
a log is sent after that.
"""

RETRY_FIRST = 0.05
RETRY_LAST = 0.5
"""Seconds between two attempts to reach a server."""


async def is_sharded(connection: ConnectionTo) -> bool:
    """Whether the server at the other end has sharded pub/sub (since version 7)."""
    await connection.send_command("COMMAND", "INFO", "SPUBLISH")
    found = await connection.read_response()
    return bool(found) and found[0] is not None


async def end(task: "asyncio.Task[None] | None") -> None:
    """Cancel a task and wait for its end. Asked for again and again: until Python 3.12,
    `asyncio.wait_for` forgets a cancellation that comes in the moment it returns.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=0.1)


class Backoff:
    """Seconds until the next attempt: growing, bounded, with jitter."""

    def __init__(self) -> None:
        self._delay = RETRY_FIRST

    def next(self) -> float:
        """How long to wait now."""
        delay = self._delay
        self._delay = min(delay * 2, RETRY_LAST)
        return delay * (0.5 + random.random() / 2)

    def reset(self) -> None:
        """It worked."""
        self._delay = RETRY_FIRST


class RedisSender:
    """Sends what is put into its outbox to one server, in order, for as long as it runs."""

    def __init__(
        self,
        address: Address,
        servers: RedisServers,
        outbox: Outbox,
        on_moved: Callable[[Address, Sequence[Waiting]], None],
    ) -> None:
        """`on_moved` is given messages that belong to another server."""
        self.address = address
        self.outbox = outbox
        self.connected = False
        self.published = 0
        """Messages the server has taken."""
        self._refusing = False
        """Whether the last message was refused, which is told of the first in a row."""
        self._servers = servers
        self._on_moved = on_moved
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End at once; what waits stays in the outbox."""
        await end(self._task)

    def wake(self) -> None:
        """Something was put into the outbox."""
        self._drained.clear()
        self._wake.set()

    async def drained(self) -> None:
        """Returns when the server has taken everything."""
        self._release()
        await self._drained.wait()

    @property
    def idle(self) -> bool:
        """Whether the server has taken everything."""
        return self._drained.is_set()

    def _release(self) -> None:
        self.outbox.release()
        if self.outbox:
            self.wake()

    async def _run(self) -> None:
        backoff = Backoff()
        complained: set[type[Exception]] = set()  # of what, since it last went well
        while True:
            connection: ConnectionTo | None = None
            releasing: asyncio.TimerHandle | None = None
            try:
                connection = self._servers.connection(self.address)
                await connection.connect()
                command = b"SPUBLISH" if await is_sharded(connection) else b"PUBLISH"
                self.connected = True
                if complained:
                    self.outbox.hold_latest()
                    loop = asyncio.get_running_loop()
                    releasing = loop.call_later(HEARD_AGAIN, self._release)
                backoff.reset()
                complained.clear()
                await self._serve(connection, command)
            except (RedisError, OSError) as error:
                if type(error) not in complained:
                    log.warning("bus_publishing_failed", server=self.address, error=str(error))
                    complained.add(type(error))
            except Exception as error:
                # Whatever it is, this must not stay silent.
                if type(error) not in complained:
                    log.exception("bus_publishing_failed", server=self.address)
                    complained.add(type(error))
            finally:
                self.connected = False
                if releasing is not None:
                    releasing.cancel()
                self.outbox.release()
                self.outbox.drop_volatile()
                if connection is not None:
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(backoff.next())
            if self._servers.clustered and complained:
                self._on_moved(self.address, ())

    async def _serve(self, connection: ConnectionTo, command: bytes) -> None:
        while True:
            batch = self.outbox.take(MESSAGES_AT_ONCE, BYTES_AT_ONCE)
            if not batch:
                self._wake.clear()
                self._drained.set()
                await self._wake.wait()
                continue
            try:
                moved = await self._send(connection, command, batch)
            except BaseException:
                # The server may have taken some: whoever gets one twice recognises it.
                self.outbox.put_back(batch)
                raise
            if moved:
                self._on_moved(self.address, moved)

    async def _send(
        self, connection: ConnectionTo, command: bytes, batch: Sequence[Waiting]
    ) -> list[Waiting]:
        """Send one pipeline; returns what belongs elsewhere."""
        head = b"*3\r\n$%d\r\n%b\r\n$" % (len(command), command)
        packed = b"".join(
            [
                b"%b%d\r\n%b\r\n$%d\r\n%b\r\n"
                % (head, len(each[0]), each[0], len(each[1]), each[1])
                for each in batch
            ]
        )
        moved: list[Waiting] = []
        # One timer for the batch, in place of one for each answer.
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                await connection.send_packed_command(packed, check_health=False)
                for waiting in batch:
                    try:
                        receivers = await connection.read_response(timeout=math.inf)
                    except (MovedError, AskError):
                        moved.append(waiting)
                    except ResponseError as error:
                        if not self._refusing:
                            text = str(error)
                            log.warning("bus_message_refused", server=self.address, error=text)
                        self._refusing = True
                    else:
                        self._refusing = False
                        self.published += 1
                        if waiting.reached is not None and not waiting.reached.done():
                            waiting.reached.set_result(receivers)
        except TimeoutError:
            raise OSError(f"no answer within {ANSWERED_WITHIN:g} s") from None
        return moved
