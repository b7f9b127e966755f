"""Mending what lost orders would have done: what clients follow is compared with what they may
read.

Orders to join and leave streams come over the bus, which may lose them. After every interruption,
and whenever an order is known to be missing, each client of the user is looked at once: it leaves
what it may not read, and if there is a stream that it should have joined, it is told to come back:
then it gets what it missed, and hears of what is new to it as after any other interruption.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

import structlog

from actions.connections.clients import Client, Clients
from actions.streams.streams import Rules, Streams
from domain.errors import ParleyError
from fanout.user_control import UserControl

log = structlog.get_logger(__name__)

AT_ONCE = 200
"""Clients that are looked at together: so the store is asked for many at a time."""

RETRY = 0.2
"""Seconds after which a client that is still on its way in, or for which the store was out of
reach, is looked at again."""

PATIENCE = 1.5
"""Seconds for which a client may go on following what it may not read, if the event that tells it
why is still being fetched."""


class Reconciler:
    """Looks after the clients of this node."""

    def __init__(
        self, clients: Clients, rules: Rules, streams: Streams, control: UserControl
    ) -> None:
        self._clients = clients
        self._rules = rules
        self._streams = streams
        self._due: dict[Client, None] = {}
        self._later: dict[Client, float] = {}
        """Clients that are to be looked at again, and when (time of the loop), soonest first."""
        self._looking = 0
        self._suspects: dict[Client, float] = {}
        """Clients that did not follow the right streams, and when that was found."""
        self._wake = asyncio.Event()
        self._delayed = False
        """Whether the store could not be asked the last time."""
        self.dropped = 0
        """Streams that clients followed and might not read."""
        self.sent_back = 0
        """Clients that had missed a stream they should have joined."""
        control.on_missed.append(self.check_user)

    def check_user(self, user: str, _stream: str = "") -> None:
        """Look at a user's clients."""
        self.check(self._clients.of_user(user))

    def check(self, clients: Iterable[Client]) -> None:
        """Look at these clients soon."""
        self._due.update(dict.fromkeys(clients))
        if self._due:
            self._wake.set()

    @property
    def quiet(self) -> bool:
        """Whether nobody is looked at or waits for it."""
        return not self._due and not self._later and not self._looking

    async def run(self) -> None:
        """Do it for as long as the node runs."""
        loop = asyncio.get_running_loop()
        while True:
            await self._until_due()
            # Whoever has to be looked at from here on is looked at again: what is read for this
            # look may be older.
            batch = list(self._due)[:AT_ONCE]
            for client in batch:
                del self._due[client]
                self._later.pop(client, None)
            self._looking = len(batch)
            done = await self._all(batch)
            for client, settled in zip(batch, done, strict=True):
                if not settled and client not in self._due:
                    self._later[client] = loop.time() + RETRY
            self._looking = 0

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for client, at in list(self._later.items()):
                if at > loop.time():
                    break
                del self._later[client]
                self._due[client] = None
            if self._due:
                return
            self._wake.clear()
            soonest = next(iter(self._later.values()), None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(soonest):
                    await self._wake.wait()

    async def _all(self, batch: Iterable[Client]) -> list[bool]:
        return await asyncio.gather(*map(self._look, batch))

    async def _look(self, client: Client) -> bool:
        """Look at one client; False if it must be done again."""
        if client.outlet.closed:
            self._suspects.pop(client, None)
            return True
        if self._streams.is_coming(client):
            return False
        try:
            own = set(await self._rules.own(client.principal, client.namespace))
            others = client.streams - own
            readable = await self._rules.readable(client.principal, others)
            foreign = [stream for stream in others if stream not in readable]
            settled = await self._take(client, foreign)
        except ParleyError as error:
            if not self._delayed:
                log.warning("reconciling_delayed", code=error.code, clients=len(self._due) + 1)
            self._delayed = True
            return False
        except Exception:
            log.exception("reconciling_failed", connection=client.id)
            return True
        self._delayed = False
        missing = own - client.streams - client.declined
        if not foreign and not missing:
            self._suspects.pop(client, None)
            return True
        if client not in self._suspects:
            # An order to join may be on its way here.
            self._suspects[client] = asyncio.get_running_loop().time()
            return False
        if not settled:
            return False
        del self._suspects[client]
        if missing and not client.outlet.closed:
            self.sent_back += 1
            client.outlet.close("revoked", reconnect=True)
        # A right that was given back while it was looked for is found missing the next time.
        return not foreign

    async def _take(self, client: Client, foreign: Sequence[str]) -> bool:
        """Take streams away that a client may not read; False if that has to wait for one."""
        told = [stream for stream in foreign if self._rules.tells(stream)]
        self._drop(client, [stream for stream in foreign if stream not in told])
        # The last that a client hears of such a stream is why it hears no more.
        if told and not await self._streams.caught_up(client.principal.org, told):
            now = asyncio.get_running_loop().time()
            if now - self._suspects.get(client, now) < PATIENCE:
                return False
        self._drop(client, told)
        return True

    def _drop(self, client: Client, streams: Iterable[str]) -> None:
        for stream in streams:
            if stream in client.streams:
                log.info("stream_taken_away", connection=client.id, stream=stream)
                self.dropped += 1
                self._streams.drop(client, stream)
