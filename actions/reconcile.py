"""Mending what lost orders would have done: what clients follow is compared with what they may
read.

Orders to join and leave streams come over the bus, which may lose them. After every interruption,
and whenever an order is known to be missing, each client of the user is looked at once: it leaves
what it may not read, and if there is a stream that it should have joined, it is told to come back:
then it gets what it missed, and hears of what is new to it as after any other interruption.
"""

import asyncio
from collections.abc import Iterable

import structlog

from actions.clients import Client, Clients
from actions.streams import Rules, Streams
from actions.user_control import UserControl
from domain.errors import ParleyError

log = structlog.get_logger(__name__)

AT_ONCE = 20
"""Clients that are looked at together."""

RETRY = 0.2
"""Seconds after which a client that is still on its way in, or for which the store was out of
reach, is looked at again."""


class Reconciler:
    """Looks after the clients of this node."""

    def __init__(
        self, clients: Clients, rules: Rules, streams: Streams, control: UserControl
    ) -> None:
        self._clients = clients
        self._rules = rules
        self._streams = streams
        self._due: dict[Client, None] = {}
        self._suspects: set[Client] = set()
        """Clients that did not follow the right streams when they were looked at first."""
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
        """Whether nobody waits to be looked at."""
        return not self._due

    async def run(self) -> None:
        """Do it for as long as the node runs."""
        while True:
            await self._wake.wait()
            batch = list(self._due)[:AT_ONCE]
            later: list[Client] = []
            for client, done in zip(batch, await self._all(batch), strict=True):
                if not done:
                    later.append(client)
            for client in batch:
                self._due.pop(client, None)
            if later:
                await asyncio.sleep(RETRY)
                self.check(later)
            if not self._due:
                self._wake.clear()

    async def _all(self, batch: Iterable[Client]) -> list[bool]:
        return await asyncio.gather(*map(self._look, batch))

    async def _look(self, client: Client) -> bool:
        """Look at one client; False if it must be done again."""
        if client.outlet.closed:
            self._suspects.discard(client)
            return True
        if self._streams.is_coming(client):
            return False
        try:
            own = set(await self._rules.own(client.principal, client.namespace))
            others = list(client.streams - own)
            may = await asyncio.gather(
                *(self._rules.may_read(client.principal, stream) for stream in others)
            )
            foreign = [stream for stream, yes in zip(others, may, strict=True) if not yes]
            # The last that a client hears of a stream is why it hears no more.
            if not await self._streams.caught_up(client.principal.org, foreign):
                return False
        except ParleyError as error:
            if not self._delayed:
                log.warning("reconciling_delayed", code=error.code, clients=len(self._due))
            self._delayed = True
            return False
        except Exception:
            log.exception("reconciling_failed", connection=client.id)
            return True
        self._delayed = False
        foreign = [stream for stream in foreign if stream in client.streams]
        missing = own - client.streams - client.declined
        if not foreign and not missing:
            self._suspects.discard(client)
            return True
        if client not in self._suspects:
            # What would mend it may be on its way here: an order to join or to leave.
            self._suspects.add(client)
            return False
        self._suspects.discard(client)
        for stream in foreign:
            log.info("stream_taken_away", connection=client.id, stream=stream)
            self.dropped += 1
            self._streams.drop(client, stream)
        if missing and not client.outlet.closed:
            self.sent_back += 1
            client.outlet.close("revoked", reconnect=True)
        # A right that was given back while it was looked for is found missing the next time.
        return not foreign
