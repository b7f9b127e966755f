"""The devices of all users on all nodes, in Redis. Changes travel over the bus, on a channel per
user, so they reach the nodes on which somebody watches that user.

What is here is known here, Redis or not. Away, it is missed for what other nodes have, of which the
last that was known goes on for users who are watched; on its return everything here is said anew
and everything watched is looked at again.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError

from domain.clock import Clock, timestamp
from domain.delivery import Delivery
from domain.errors import Unavailable
from domain.ids import new_id
from domain.presence.presence import Device
from fanout.bus import Bus
from fanout.presence import CHANNELS, QUESTION, Changed, Here, Lost
from fanout.redis.presence_followers import Followers
from fanout.redis.presence_store import AT_ONCE, ENTRY_TTL, Entry, PresenceStore, Put, User, name_of
from fanout.redis.servers import AWAY, RedisServers

log = structlog.get_logger(__name__)

RENEWED_EVERY = 5.0
"""Seconds between two renewals, as the composition root has them made."""

DEAD_AFTER = 50.0
"""Seconds without renewal after which a node is dead: with the next sweep its users are offline
within 60 seconds."""

SETTLED_AFTER = 15.0
"""Seconds for which Redis must have answered before a node declares others dead: after an outage
all have first to renew."""

SAID_AGAIN = ENTRY_TTL / 3
"""Seconds within which everything here is said again, in case Redis has lost it."""

LOOKED_AGAIN = 30.0
"""Seconds within which every watched user is looked at, in case the bus lost a change."""

PARTS = 16
"""Of a cluster, by users; a single server has one."""

DOUBTED = 8.0
"""Seconds for which a Redis that has come back, or another one that took over, may not know yet what
other nodes know: they notice at the latest when they renew."""

PAUSE = 0.5
"""Seconds for which Redis is not asked after it did not answer."""

WITHIN = 1.0
"""Seconds that an answer is waited for."""

USER = f"{CHANNELS}user:"

_T = TypeVar("_T")


class RedisPresenceRegistry:
    """The registry of nodes that share a Redis."""

    def __init__(
        self,
        servers: RedisServers,
        bus: Bus,
        clock: Clock,
        *,
        prefix: str = "parley",
        dead_after: float = DEAD_AFTER,
        settled_after: float = SETTLED_AFTER,
        looked_again: float = LOOKED_AGAIN,
        doubted: float = DOUBTED,
    ) -> None:
        """`servers` and `bus` stay the caller's. `prefix` sets servers apart that share a Redis."""
        self.node = new_id()
        """This node, until it ends."""
        self._bus = bus
        self._clock = clock
        self._dead_after = dead_after
        self._settled_after = settled_after
        self._looked_again = looked_again
        self._doubted = doubted
        self._parts = [
            PresenceStore(servers, f"{prefix}:{{presence:{number}}}", self.node)
            for number in range(PARTS if servers.clustered else 1)
        ]
        self._here_of: dict[User, tuple[Device, ...]] = {}
        self._accompanied: set[str] = set()
        """Devices here that came when others were connected elsewhere."""
        self._watched: dict[str, User] = {}
        self._known: dict[User, Entry] = {}
        """What was last read of watched users."""
        self._heard: set[str] = set()
        """Channels that were joined."""
        self._doubting: asyncio.TimerHandle | None = None
        """While it runs, what other nodes had before Redis was away is taken to be there still."""
        self._renewed = False
        """Whether this node was ever known to Redis."""
        self._to_compare = False
        """Whether Redis may have devices here that are gone."""
        self._said: set[str] = set()
        """Devices here that Redis was told of."""
        self._dirty: dict[User, bool] = {}
        """What is to be said to Redis, and whether it is a change."""
        self._saying: asyncio.Task[None] | None = None
        self._again: list[User] = []
        self._looks: list[User] = []
        self._away_until: float | None = None
        """Time of the loop before which Redis is not asked; None while it answers."""
        self._told_alone = False
        self._settled_at = clock.monotonic() + settled_after
        self._followers: Followers | None = None
        self._closed = False
        self._changed: Changed = lambda _org, _user: None
        self._here: Here = lambda _stream: ()

    def start(self, changed: Changed, here: Here) -> None:
        self._changed = changed
        self._here = here
        self._followers = Followers(self._bus, self.node, here)

    # -- what is here -------------------------------------------------------------------------

    def put(self, org: str, user: str, device: Device) -> None:
        others = self._here_of.get((org, user), ())
        if device.id in self._accompanied:
            device = device._replace(alone=False)
        kept = tuple(each for each in others if each.id != device.id)
        self._here_of[org, user] = (*kept, device)
        self.touch(org, user)

    def remove(self, org: str, user: str, device: str) -> None:
        kept = tuple(each for each in self._here_of.get((org, user), ()) if each.id != device)
        self._accompanied.discard(device)
        self._said.discard(device)
        if kept:
            self._here_of[org, user] = kept
        else:
            self._here_of.pop((org, user), None)
        self.touch(org, user)

    def touch(self, org: str, user: str) -> None:
        self._tell_here((org, user))
        self._say([(org, user)], change=True)

    def _tell_here(self, user: User) -> None:
        if _channel(user) in self._watched:
            self._changed(*user)

    # -- watching -----------------------------------------------------------------------------

    def watch(self, org: str, user: str) -> None:
        channel = _channel((org, user))
        if channel not in self._watched:
            self._watched[channel] = org, user
            self._bus.subscribe(channel)

    def unwatch(self, org: str, user: str) -> None:
        if self._watched.pop(_channel((org, user)), None) is not None:
            self._bus.unsubscribe(_channel((org, user)))
            self._heard.discard(_channel((org, user)))
            self._known.pop((org, user), None)

    def joined(self, channels: Collection[str]) -> None:
        if not self._heard.isdisjoint(channels):
            # Redis was away, and nothing may have asked it for anything meanwhile.
            self._doubt()
        self._heard.update(channels)
        for channel in channels:
            if channel in self._watched:
                self._changed(*self._watched[channel])

    def receive(self, channel: str, message: bytes) -> None:
        if channel in self._watched:
            self._changed(*self._watched[channel])
        elif self._followers is None or channel.startswith(USER):
            return
        elif message.startswith(QUESTION):
            self._followers.asked(channel, message)
        else:
            self._followers.answered(message)

    # -- reading ------------------------------------------------------------------------------

    async def devices(self, org: str, users: Sequence[str]) -> dict[str, Sequence[Device]]:
        wanted = [(org, each) for each in users]
        entries = await self._read(wanted)
        found: dict[str, Sequence[Device]] = {}
        for each in wanted:
            entry = entries.get(each) or self._known.get(each)
            there = self._elsewhere(entry) if entry is not None else {}
            # A device is on one node; should two say that they have it, this one knows.
            there.update((device.id, device) for device in self._here_of.get(each, ()))
            if there:
                found[each[1]] = tuple(there.values())
        return found

    def _elsewhere(self, entry: Entry) -> dict[str, Device]:
        return {
            device.id: device
            for node, devices in entry.by_node.items()
            if node != self.node
            for device in devices
        }

    async def _read(self, users: Sequence[User]) -> dict[User, Entry]:
        """What Redis has of users; those that cannot be asked for are left out."""
        found: dict[User, Entry] = {}
        for part, mine in self._by_part(users):
            try:
                entries, known_here = await self._ask(
                    lambda part=part, mine=mine: part.read(mine)  # type: ignore[misc]
                )
                if not known_here and not self._closed:
                    # It knows nothing of this node, and so perhaps nothing of others either.
                    await self._renew_part(part)
            except Unavailable:
                continue
            found.update(zip(mine, entries, strict=True))
        in_doubt = self._doubting is not None
        for user, entry in found.items():
            known = self._known.get(user)
            if in_doubt and known is not None:
                found[user] = Entry(entry.changes, {**known.by_node, **entry.by_node})
            if _channel(user) in self._watched:
                self._known[user] = found[user]
        return found

    def _by_part(self, users: Iterable[User]) -> list[tuple[PresenceStore, list[User]]]:
        parts: dict[int, list[User]] = {}
        for each in users:
            number = zlib.crc32(name_of(each)) % len(self._parts)
            parts.setdefault(number, []).append(each)
        return [
            (self._parts[number], mine[start : start + AT_ONCE])
            for number, mine in parts.items()
            for start in range(0, len(mine), AT_ONCE)
        ]

    # -- saying -------------------------------------------------------------------------------

    def _say(self, users: Iterable[User], *, change: bool) -> None:
        for each in users:
            self._dirty[each] = change or self._dirty.get(each, False)
        if self._saying is None and self._dirty and not self._closed:
            self._saying = asyncio.get_running_loop().create_task(self._say_all())

    async def _say_all(self) -> None:
        try:
            while self._dirty:
                batch, self._dirty = self._dirty, {}
                try:
                    await self._say_some(batch)
                except Unavailable:
                    for user, change in batch.items():
                        self._dirty[user] = change or self._dirty.get(user, False)
                    await asyncio.sleep(PAUSE)
        finally:
            self._saying = None

    async def _say_some(self, batch: dict[User, bool]) -> None:
        for change in (True, False):
            mine = [user for user, changed in batch.items() if changed is change]
            for part, users in self._by_part(mine):
                await self._put(part, users, change=change)

    async def _put(self, part: PresenceStore, users: Sequence[User], *, change: bool) -> None:
        puts = [self._put_of(each) for each in users]
        told = await self._ask(lambda: part.put(puts, change=change))
        if told is None:
            await self._renew_part(part)
            told = await self._ask(lambda: part.put(puts, change=change))
            if told is None:
                raise Unavailable("Redis does not know this node.")
        for put, accompanied in zip(puts, told, strict=True):
            self._note_said(put, accompanied)
        if change:
            # Only now: whoever hears of it reads it at once.
            for each in users:
                self._bus.publish(_channel(each), b"{}", delivery=Delivery.LATEST, key=each[1])

    def _put_of(self, user: User) -> Put:
        """What there is to say. Whether a device is the user's only one when it comes, Redis has
        to find out.
        """
        devices = self._here_of.get(user, ())
        if not any(each.alone and each.id not in self._said for each in devices):
            return Put(user, devices)
        return Put(
            user,
            devices,
            [each if each.id in self._said else each._replace(alone=False) for each in devices],
        )

    def _note_said(self, put: Put, accompanied: bool) -> None:
        now = self._here_of.get(put.user, ())
        fresh = {each.id for each in put.devices} - self._said
        fresh &= {each.id for each in now}
        self._said |= fresh
        if accompanied and fresh:
            self._accompanied |= fresh
            self._here_of[put.user] = tuple(
                each._replace(alone=False) if each.id in fresh else each for each in now
            )
            self._tell_here(put.user)

    # -- living and dying ---------------------------------------------------------------------

    async def renew(self) -> None:
        for part in self._parts:
            await self._renew_part(part)
        self._renewed = True
        if self._told_alone:
            # All parts: of a cluster some may answer while others do not.
            self._told_alone = False
            log.info("presence_together", users=len(self._here_of), watched=len(self._watched))
        if self._to_compare:
            await self._compare()
        self._say_again()
        await self._look_again()

    async def _renew_part(self, part: PresenceStore) -> None:
        if not await self._ask(part.renew):
            log.info("presence_said_anew", users=len(self._here_of))
            if self._renewed:
                self._doubt()
            self._say(self._here_of, change=True)

    async def _compare(self) -> None:
        """Take away who is not here any more: a Redis that took over may have missed that they went."""
        for part in self._parts:
            said = await self._ask(part.said)
            self._say((each for each in said if each not in self._here_of), change=True)
        self._to_compare = False

    def _say_again(self) -> None:
        """Say a share of what is here."""
        self._again = self._again or list(self._here_of)
        share = _share(len(self._here_of), SAID_AGAIN)
        now, self._again = self._again[:share], self._again[share:]
        self._say(now, change=False)

    async def _look_again(self) -> None:
        """Look at a share of who is watched; tell of those whose changes were not heard."""
        self._looks = self._looks or list(self._watched.values())
        share = _share(len(self._watched), self._looked_again)
        now, self._looks = self._looks[:share], self._looks[share:]
        before = {each: self._known.get(each) for each in now}
        for user, entry in (await self._read(now)).items():
            if entry != before[user] and _channel(user) in self._watched:
                self._changed(*user)

    async def sweep(self) -> Sequence[Lost]:
        if self._clock.monotonic() < self._settled_at:
            return ()
        lost: list[Lost] = []
        for part in self._parts:
            try:
                while (swept := await self._ask(self._sweep_once(part))) is not None:
                    at = timestamp(swept.renewed)
                    lost += [Lost(org, user, at) for org, user in swept.lost]
                    log.info("presence_swept", node=swept.node, users=len(swept.lost))
                    for each in swept.kept:
                        self.touch(*each)
            except Unavailable:
                # Who was found gone is gone; the rest remains to be swept.
                if not lost:
                    raise
                break
        return lost

    def _sweep_once(self, part: PresenceStore) -> Callable[[], Awaitable[Any]]:
        return lambda: part.sweep(self._dead_after)

    async def leave(self, linger: float) -> None:
        if self._closed:
            return
        self._closed = True
        self._changed = lambda _org, _user: None
        if self._doubting is not None:
            self._doubting.cancel()
        try:
            async with asyncio.timeout(2 * WITHIN):
                if self._saying is not None:
                    await self._saying
                for part in self._parts:
                    await self._ask(lambda part=part: part.renew(self._dead_after - linger))  # type: ignore[misc]
        except (Unavailable, TimeoutError):
            log.warning("presence_not_left", users=len(self._here_of))
            if self._saying is not None:
                self._saying.cancel()
                await asyncio.gather(self._saying, return_exceptions=True)

    # -- who follows a stream -----------------------------------------------------------------

    async def following(self, stream: str) -> set[str]:
        mine = set(self._here(stream))
        return mine | await self._followers.ask(stream) if self._followers is not None else mine

    # -- Redis --------------------------------------------------------------------------------

    async def _ask(self, command: Callable[[], Awaitable[_T]]) -> _T:
        """Raises Unavailable when Redis does not answer, and at once for a while after that."""
        loop = asyncio.get_running_loop()
        if self._away_until is not None and loop.time() < self._away_until:
            raise Unavailable("Redis does not answer.")
        try:
            async with asyncio.timeout(WITHIN):
                try:
                    answer = await command()
                except RedisConnectionError:
                    # A connection that lay idle while the server went and came back.
                    answer = await command()
        except AWAY as error:
            if not self._told_alone:
                self._told_alone = True
                log.warning("presence_alone", error=str(error) or type(error).__name__)
            self._away_until = loop.time() + PAUSE
            self._settled_at = self._clock.monotonic() + self._settled_after
            raise Unavailable("Redis does not answer.") from error
        if self._away_until is not None:
            self._back()
        return answer

    def _back(self) -> None:
        self._away_until = None
        self._doubt()

    def _doubt(self) -> None:
        """Redis may have forgotten, and other nodes may not have said everything again yet."""
        self._settled_at = self._clock.monotonic() + self._settled_after
        if self._doubting is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._doubting = loop.call_later(self._doubted, self._trust)
            self._to_compare = True
            self._say(self._here_of, change=False)

    def _trust(self) -> None:
        self._doubting = None
        for user in list(self._watched.values()):
            self._changed(*user)


def _channel(user: User) -> str:
    return USER + name_of(user).decode()


def _share(count: int, within: float) -> int:
    """How many of so many come up at each renewal, so that all have within so many seconds."""
    return max(1, -(-count * int(RENEWED_EVERY * 1000) // max(1, int(within * 1000))))
