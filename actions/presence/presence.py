"""The devices that are connected here, what users choose to show, and their going offline."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import structlog

from actions.connections.clients import Client
from actions.timeouts import Timeouts
from domain.clock import Clock, timestamp
from domain.errors import Invalid, ParleyError
from domain.presence.presence import (
    LINGER,
    ChosenStatus,
    Device,
    Presence,
    Profile,
    as_oneself_sees,
)
from domain.text import why_not_plain
from fanout.control import Control
from fanout.presence import Lost, PresenceRegistry
from store.presence.presence import PresenceRepository

log = structlog.get_logger(__name__)

RETRY = 1.0
"""Seconds after which storing `last_seen` is tried again when the store was out of reach."""

_LOGOUT = "presence.logout"

User = tuple[str, str]
"""An organization and a user."""


class _Session:
    """A device as this node knows it."""

    __slots__ = ("connections", "device", "gone_at", "logged_out", "org", "user")

    def __init__(self, org: str, user: str, device: Device) -> None:
        self.org = org
        self.user = user
        self.device = device
        self.connections = 1
        self.logged_out = False
        self.gone_at = ""
        """When its last connection went."""


class Presences:
    """Knows the devices connected to this node and tells the registry of them.

    A connection to any namespace counts; those of one session are one device.
    """

    def __init__(
        self,
        registry: PresenceRegistry,
        repository: PresenceRepository,
        control: Control,
        clock: Clock,
        linger: float = LINGER,
    ) -> None:
        """`linger`: seconds after the last connection went until the user is offline."""
        self._registry = registry
        self._repository = repository
        self._control = control
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._of_user: dict[User, dict[str, _Session]] = {}
        self._linger = linger
        self._lingering = Timeouts[_Session](linger, self._depart, clock)
        self._departed: list[_Session] = []
        self.swept = 0
        """Users of nodes that died whom this node has taken offline."""
        self._lost: list[Lost] = []
        """Users who went with their node and of whom it is not stored yet."""
        self._storing: asyncio.Task[None] | None = None
        control.on(_LOGOUT, self._logged_out_here)

    # -- coming and going ---------------------------------------------------------------------

    async def entered(self, client: Client, resumed: Collection[str]) -> None:
        """A client is in."""
        id = client.outlet.session_id
        session = self._sessions.get(id)
        if session is not None:
            session.connections += 1
            return
        who = client.principal
        mine = self._of_user.setdefault((who.org, who.user), {})
        alone = all(each.device.gone for each in mine.values())
        device = Device(id, who.session, timestamp(self._clock.now()), alone)
        session = _Session(who.org, who.user, device)
        self._sessions[id] = mine[id] = session
        self._registry.put(who.org, who.user, device)

    async def left(self, client: Client) -> None:
        """A client has gone. If it was the user's last one, the user stays for a while."""
        session = self._sessions.get(client.outlet.session_id)
        if session is None:
            return
        session.connections -= 1
        if session.connections:
            return
        del self._sessions[session.device.id]
        session.gone_at = timestamp(self._clock.now())
        if session.logged_out or self._is_elsewhere(session):
            self._depart(session)
            return
        session.device = session.device._replace(gone=True)
        self._registry.put(session.org, session.user, session.device)
        self._lingering.start(session)

    def logged_out(self, org: str, user: str, logins: Collection[str]) -> None:
        """A user has ended login sessions: their devices go at once, on every node."""
        self._control.send(_LOGOUT, org=org, user=user, logins=list(logins))

    def _logged_out_here(self, order: dict[str, Any]) -> None:
        mine = self._of_user.get((order["org"], order["user"]), {})
        for session in list(mine.values()):
            if session.device.login in order["logins"]:
                session.logged_out = True
                if self._lingering.stop(session):
                    self._depart(session)

    def _is_elsewhere(self, session: _Session) -> bool:
        mine = self._of_user[session.org, session.user]
        return any(each is not session and not each.device.gone for each in mine.values())

    def _depart(self, session: _Session) -> None:
        """A device goes for good."""
        self._departed.append(session)
        if self._storing is None:
            self._storing = asyncio.get_running_loop().create_task(self._store_departed())

    async def _store_departed(self) -> None:
        """Store when users were last seen, then take their devices away."""
        try:
            while self._departed:
                batch, self._departed = self._departed, []
                try:
                    await self._see(
                        [
                            (each.org, each.user, each.gone_at)
                            for each in batch
                            if not self._is_elsewhere(each)
                        ]
                    )
                except ParleyError as error:
                    log.warning("last_seen_delayed", code=error.code, users=len(batch))
                    self._departed = batch + self._departed
                    await asyncio.sleep(RETRY)
                    continue
                for session in batch:
                    self._forget(session)
        finally:
            self._storing = None

    def _forget(self, session: _Session) -> None:
        mine = self._of_user[session.org, session.user]
        del mine[session.device.id]
        if not mine:
            del self._of_user[session.org, session.user]
        self._registry.remove(session.org, session.user, session.device.id)

    async def _see(self, seen: Sequence[tuple[str, str, str]]) -> None:
        """Store `(org, user, at)`; of users who are invisible nothing is stored, so that it does
        not betray them.
        """
        by_org: dict[str, dict[str, str]] = {}
        for org, user, at in seen:
            latest = by_org.setdefault(org, {})
            latest[user] = max(at, latest.get(user, ""))
        for org, users in by_org.items():
            profiles = await self._repository.profiles(org, list(users))
            # A node that the user left earlier may tell of it later than the one left last.
            known = await self._repository.seen(org, list(users))
            await self._repository.see(
                org,
                {
                    user: at
                    for user, at in users.items()
                    if profiles[user].status != "invisible" and at > known.get(user, "")
                },
            )

    # -- choosing -----------------------------------------------------------------------------

    async def choose(
        self, client: Client, status: ChosenStatus, text: str | None, *, keep_text: bool = False
    ) -> Presence:
        """Set what a client's user shows: the status on this device, being invisible and the text
        on all. Returns the user's presence as this user sees it.

        Args:
            keep_text: leave the text as it is.

        Raises:
            Invalid: the text is none that others can be shown (`why_not_plain`).
        """
        org, user = client.principal.org, client.principal.user
        wrong = why_not_plain(text.strip()) if text is not None else None
        if wrong is not None:
            raise Invalid.field("text", wrong)
        old = (await self._repository.profiles(org, [user]))[user]
        now = timestamp(self._clock.now())
        if status == "invisible" and old.status != "invisible":
            # To others the user goes offline at this moment.
            await self._repository.see(org, {user: now})
        kept = old.text if keep_text else (text or "").strip() or None
        new = Profile(status, kept, now)
        await self._repository.choose(org, user, new)
        session = self._sessions.get(client.outlet.session_id)
        if session is not None:
            shown = None if status == "invisible" else status
            session.device = session.device._replace(status=shown, idle=False)
            self._registry.put(org, user, session.device)
        self._registry.touch(org, user)
        devices = (await self._registry.devices(org, [user])).get(user, ())
        seen = (await self._repository.seen(org, [user])).get(user)
        return as_oneself_sees(user, devices, new, seen)

    def set_idle(self, client: Client, *, idle: bool) -> None:
        """Whether nobody has touched a client's device for a while."""
        session = self._sessions.get(client.outlet.session_id)
        if session is not None and session.device.idle != idle:
            session.device = session.device._replace(idle=idle)
            self._registry.put(session.org, session.user, session.device)

    # -- in the background --------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Users known here: `online` those with a device connected to this node, `leaving` those
        whose last one has gone a moment ago.
        """
        online = sum(self._is_here(org, user) for org, user in self._of_user)
        return {"online": online, "leaving": len(self._of_user) - online}

    @property
    def quiet(self) -> bool:
        """Whether nothing is on its way to the store."""
        return self._storing is None

    def run_due(self) -> None:
        """Let go those who did not come back. Called by a timer; harmless at any time."""
        self._lingering.run_due()

    async def maintain(self) -> None:
        """Keep this node's devices alive in the registry, and clear up after nodes that died. To
        be called every 5 seconds or so.

        Raises:
            Unavailable: the registry or the store is out of reach.
        """
        await self._registry.renew()
        lost_now = await self._registry.sweep()
        self.swept += len(lost_now)
        self._lost += lost_now
        if self._lost:
            lost, now = list(self._lost), {}
            for org in {each.org for each in lost}:
                users = {each.user for each in lost if each.org == org}
                now[org] = await self._registry.devices(org, list(users))
            # Who has come back meanwhile was not seen last then.
            await self._see([each for each in lost if each.user not in now[each.org]])
            del self._lost[: len(lost)]
            for org, user, _ in lost:
                self._registry.touch(org, user)

    async def keep_seen(self) -> None:
        """Store that everybody connected here is seen now. To be called every `SEEN_EVERY`
        seconds.

        Raises:
            Unavailable: the store is out of reach.
        """
        now = timestamp(self._clock.now())
        await self._see(
            [(org, user, now) for (org, user) in self._of_user if self._is_here(org, user)]
        )

    def _is_here(self, org: str, user: str) -> bool:
        return any(not each.device.gone for each in self._of_user[org, user].values())

    async def close(self) -> None:
        """Store when those who are here were last seen. Others see them for a while yet, as they
        would without this node's end: most come back, to another node.
        """
        self._lingering.close()
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)
        now = timestamp(self._clock.now())
        everybody = [each for mine in self._of_user.values() for each in mine.values()]
        try:
            await self._see([(each.org, each.user, each.gone_at or now) for each in everybody])
        except ParleyError as error:
            log.warning("last_seen_not_stored", code=error.code, users=len(everybody))
        for session in everybody:
            if session.logged_out:
                self._registry.remove(session.org, session.user, session.device.id)
            else:
                gone = session.device._replace(gone=True)
                self._registry.put(session.org, session.user, gone)
        await self._registry.leave(self._linger)
        self._of_user.clear()
        self._sessions.clear()
