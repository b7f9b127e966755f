"""Watching users: their presence now, and every change of it."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

import structlog

from actions.connections.clients import Client, Clients, Outlet
from actions.streams.streams import Rules
from domain.clock import Clock, timestamp
from domain.errors import NotFound, ParleyError, TooLarge
from domain.events import Actor
from domain.pages import Page, cut, resume
from domain.presence.presence import (
    MAX_WATCHED,
    NAMESPACE,
    PRESENCE_CHANGED,
    Presence,
    as_oneself_sees,
    as_others_see,
    hidden,
)
from domain.principals import Principal
from fanout.control import Control
from fanout.hub import Hub
from fanout.presence import PresenceRegistry
from fanout.publisher import Publisher
from store.accounts.contacts import ContactRepository
from store.presence.presence import PresenceRepository

log = structlog.get_logger(__name__)

RETRY = 1.0
"""Seconds after which a change, or a block, is looked at again when the store was out of reach."""

_BLOCK = "presence.block"


class _Watched:
    """A user who is watched by somebody connected here."""

    __slots__ = ("changes", "org", "own", "own_room", "room", "user", "value", "watchers")

    def __init__(self, org: str, user: str) -> None:
        self.org = org
        self.user = user
        # Ids are unique in an organization only as far as one may guess: so it is in the name.
        self.room = f"{NAMESPACE}/{org}:{user}"
        self.own_room = f"{self.room}:own"
        """Of the user's own connections, which see what others do not."""
        self.watchers = 0
        self.changes = 0
        """Grows with every change, so that one during a read is noticed."""
        self.value: Presence | None = None
        """What others were told last; None until it is known."""
        self.own: Presence | None = None
        """What the user was told last."""


class PresenceWatch:
    """Tells watchers of the presence of users of their organization who have not blocked them."""

    def __init__(
        self,
        registry: PresenceRegistry,
        repository: PresenceRepository,
        contacts: ContactRepository,
        rules: Rules,
        hub: Hub,
        clients: Clients,
        publisher: Publisher,
        control: Control,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._contacts = contacts
        self._rules = rules
        self._hub = hub
        self._clients = clients
        self._publisher = publisher
        self._control = control
        self._clock = clock
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._of_client: dict[Client, dict[str, _Watched]] = {}
        self._dirty: dict[_Watched, None] = {}
        self._worker: asyncio.Task[None] | None = None
        self._blocks = 0
        """Grows with every block made or lifted."""
        self._unsure: dict[Client, None] = {}
        """Who may be shown somebody who has blocked them, or not be shown who no longer does."""
        self._checker: asyncio.Task[None] | None = None
        control.on(_BLOCK, self._blocked_here)
        control.on_missed.append(self._blocks_missed)
        registry.start(self._changed, self._following_here)

    # -- asked by clients ---------------------------------------------------------------------

    async def watch(self, client: Client, users: Sequence[str]) -> list[Presence]:
        """Tell a client of the users' presence from now on. Returns what it is now.

        Of users who do not exist for the client's user it is that of somebody who is not there.

        Raises:
            TooLarge: the client would watch more than `MAX_WATCHED` users.
        """
        mine = self._of_client.get(client, {})
        wanted = list(dict.fromkeys(users))
        fresh = [each for each in wanted if each not in mine]
        if len(mine) + len(fresh) > MAX_WATCHED:
            raise TooLarge(f"A connection may watch at most {MAX_WATCHED} users.")
        org, user = client.principal.org, client.principal.user
        added = [self._hold(org, each) for each in fresh]
        try:
            await self._refresh([each for each in added if each.value is None])
            blocked = await self._blockers(org, user, wanted)
        except BaseException:
            self._release(added)
            raise
        if client.outlet.closed:
            self._release(added)
            return []
        if client not in self._of_client:
            self._of_client[client] = {}
            client.when_closed(lambda: self._gone(client))
        mine = self._of_client[client]
        mine.update((each.user, each) for each in added)
        # Nothing happens between here and the answer: what comes after it is told.
        values: list[Presence] = []
        for each in wanted:
            watched = mine[each]
            if each == user:
                self._hub.join(watched.own_room, client.outlet)
                values.append(watched.own or hidden(each))
            elif each in blocked:
                values.append(hidden(each))
            else:
                self._hub.join(watched.room, client.outlet)
                values.append(watched.value or hidden(each))
        return values

    def unwatch(self, client: Client, users: Iterable[str]) -> None:
        """Tell a client no longer of these users; those it does not watch are ignored."""
        mine = self._of_client.get(client, {})
        ended = [mine.pop(each) for each in dict.fromkeys(users) if each in mine]
        for watched in ended:
            self._hub.leave(watched.room, client.outlet)
            self._hub.leave(watched.own_room, client.outlet)
        self._release(ended)

    async def room(
        self, principal: Principal, stream: str, *, cursor: str | None, limit: int
    ) -> Page[Presence]:
        """Who is connected and follows a stream, on all nodes, by user id; but those who are
        invisible to the caller.

        Raises:
            NotFound: the caller may not read the stream.
        """
        if not await self._rules.may_read(principal, stream):
            raise NotFound("There is no such stream.")
        after = resume(cursor, "user") or ""
        users = sorted(each for each in await self._registry.following(stream) if each > after)
        page, next = cut(users, limit, lambda user: {"user": user})
        values = await self._values(principal, page)
        return {
            "items": [each for each in values if each["status"] != "offline"],
            "next": next,
        }

    async def _values(self, principal: Principal, users: Sequence[str]) -> list[Presence]:
        """The presence of users as the caller may know it."""
        found = await self._read(principal.org, users)
        blocked = await self._blockers(principal.org, principal.user, users)
        return [
            found[each][1]
            if each == principal.user
            else hidden(each)
            if each in blocked
            else found[each][0]
            for each in users
        ]

    # -- blocks -------------------------------------------------------------------------------

    def blocked(self, org: str, blocker: str, blocked: str, on: bool) -> None:
        """A user has blocked another, or lifted the block: who is blocked sees the other one
        offline, on every node.
        """
        self._control.send(_BLOCK, org=org, blocker=blocker, blocked=blocked, on=on)

    def _blocked_here(self, order: dict[str, Any]) -> None:
        self._blocks += 1
        watched = self._watched.get((order["org"], order["blocker"]))
        if watched is None:
            return
        for client in self._clients.of_user(order["blocked"], NAMESPACE):
            if self._of_client.get(client, {}).get(watched.user) is watched:
                self._show(client, watched, hide=order["on"])

    def _show(self, client: Client, watched: _Watched, *, hide: bool) -> None:
        """Show a user to a watcher, or the user's absence, unless it is so already."""
        if hide is not self._hub.contains(watched.room, client.outlet):
            return
        if hide:
            self._hub.leave(watched.room, client.outlet)
            self._send(client, hidden(watched.user))
        else:
            self._hub.join(watched.room, client.outlet)
            self._send(client, watched.value or hidden(watched.user))

    def _blocks_missed(self) -> None:
        """Other nodes may have told of blocks: find out in the store."""
        self._blocks += 1  # who is reading them at this moment reads them again
        self._unsure.update(dict.fromkeys(self._of_client))
        if self._unsure and self._checker is None:
            self._checker = asyncio.get_running_loop().create_task(self._check_blocks())

    async def _check_blocks(self) -> None:
        try:
            while self._unsure:
                client = next(iter(self._unsure))
                del self._unsure[client]
                try:
                    await self._check_blocks_of(client)
                except ParleyError as error:
                    log.warning(
                        "blocks_not_checked", code=error.code, clients=len(self._unsure) + 1
                    )
                    self._unsure[client] = None
                    await asyncio.sleep(RETRY)
        finally:
            self._checker = None

    async def _check_blocks_of(self, client: Client) -> None:
        user = client.principal.user
        others = [each for each in self._of_client.get(client, {}) if each != user]
        if not others:
            return
        blocked = await self._blockers(client.principal.org, user, others)
        mine = self._of_client.get(client, {})
        for each in others:
            if each in mine:
                self._show(client, mine[each], hide=each in blocked)

    async def _blockers(self, org: str, user: str, others: Sequence[str]) -> set[str]:
        """Which of the others have blocked the user."""
        while True:
            before = self._blocks
            found = await self._contacts.blockers(org, user, others)
            if self._blocks == before:
                return found

    def _send(self, client: Client, value: Presence) -> None:
        self._publisher.send(
            PRESENCE_CHANGED,
            [client.outlet],
            timestamp(self._clock.now()),
            value,
            actor=Actor(value["user"]),
            key=value["user"],
        )

    # -- keeping ------------------------------------------------------------------------------

    def _hold(self, org: str, user: str) -> _Watched:
        watched = self._watched.get((org, user))
        if watched is None:
            watched = self._watched[org, user] = _Watched(org, user)
            self._registry.watch(org, user)
        watched.watchers += 1
        return watched

    def _release(self, ended: Iterable[_Watched]) -> None:
        for watched in ended:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[watched.org, watched.user]
                self._dirty.pop(watched, None)
                self._registry.unwatch(watched.org, watched.user)

    def _gone(self, client: Client) -> None:
        self._release(self._of_client.pop(client, {}).values())

    @property
    def watched(self) -> int:
        """How many users are watched from here."""
        return len(self._watched)

    @property
    def watchers(self) -> int:
        """How many connections here watch somebody."""
        return len(self._of_client)

    @property
    def quiet(self) -> bool:
        """Whether everything that has changed was looked at."""
        return self._worker is None and self._checker is None

    def _following_here(self, stream: str) -> set[str]:
        outlets = cast("Collection[Outlet]", self._hub.members(stream))
        return {each.state.principal.user for each in outlets}

    # -- changes ------------------------------------------------------------------------------

    def _changed(self, org: str, user: str) -> None:
        watched = self._watched.get((org, user))
        if watched is None:
            return
        watched.changes += 1
        self._dirty[watched] = None
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        """Look at what has changed, those of one organization together."""
        try:
            while self._dirty:
                org = next(iter(self._dirty)).org
                batch = [each for each in self._dirty if each.org == org][:MAX_WATCHED]
                for each in batch:
                    del self._dirty[each]
                try:
                    await self._refresh(batch)
                except ParleyError as error:
                    log.warning("presence_delayed", code=error.code, users=len(batch))
                    self._dirty.update((each, None) for each in batch if each.watchers)
                    await asyncio.sleep(RETRY)
        finally:
            self._worker = None

    async def _refresh(self, batch: Sequence[_Watched]) -> None:
        """Find out the present values, of users of one organization, and tell what differs."""
        while batch:
            before = [each.changes for each in batch]
            found = await self._read(batch[0].org, [each.user for each in batch])
            overtaken: list[_Watched] = []
            for each, changes in zip(batch, before, strict=True):
                if each.changes != changes:
                    overtaken.append(each)
                else:
                    self._take(each, *found[each.user])
            batch = overtaken

    async def _read(self, org: str, users: Sequence[str]) -> dict[str, tuple[Presence, Presence]]:
        """Users' presence as others and as they themselves see it."""
        if not users:
            return {}
        devices = await self._registry.devices(org, users)
        profiles = await self._repository.profiles(org, users)
        unseen = [
            each for each in users if each not in devices or profiles[each].status == "invisible"
        ]
        seen = await self._repository.seen(org, unseen) if unseen else {}
        found: dict[str, tuple[Presence, Presence]] = {}
        for each in users:
            told = (each, devices.get(each, ()), profiles[each], seen.get(each))
            found[each] = as_others_see(*told), as_oneself_sees(*told)
        return found

    def _take(self, watched: _Watched, value: Presence, own: Presence) -> None:
        """Remember the values and tell those that differ from what was told before."""
        actor, at = Actor(watched.user), timestamp(self._clock.now())
        before, own_before = watched.value, watched.own
        if before != value:
            watched.value = value
            if before is not None:
                self._publisher.emit(
                    PRESENCE_CHANGED, watched.room, at, value, actor=actor, key=watched.user
                )
        if own_before != own:
            watched.own = own
            if own_before is not None:
                self._publisher.emit(
                    PRESENCE_CHANGED, watched.own_room, at, own, actor=actor, key=watched.user
                )

    async def close(self) -> None:
        """Tell nobody anything any more."""
        for task in (self._worker, self._checker):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
