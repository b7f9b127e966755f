"""Who may come in, and who has to go: authentication, kept true while things change.

An access token is believed by its signature, without asking the store, unless something about its
user's access changed in the last few minutes. Whoever changes something about it

1. notes the user in the store (`note`),
2. makes the change,
3. tells every node (`tell`).

A node that hears of it, or finds the note (it looks every second, in case the bus lost the order
or the writer died before step 3), asks the store about that user from then on, until the last
token from before the change has expired; and it closes that user's connections that would no
longer be let in.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from actions.accounts.authority import Authority
from actions.accounts.failures import counting_failures
from actions.accounts.tokens import KEY_PREFIX, Tokens, org_of, token_hash
from actions.connections.clients import Client, Clients
from domain.accounts.accounts import network_of
from domain.clock import Clock, parse_timestamp, timestamp
from domain.errors import ParleyError, Unauthenticated, Unavailable
from domain.ids import new_id
from domain.principals import KEY_ID_PREFIX, Principal, Role
from fanout.control import Control
from fanout.limits import RateLimiter
from store.accounts.accounts import AccountRepository
from store.accounts.sessions import SessionRepository

log = structlog.get_logger(__name__)

TOPIC = "access.changed"

POLL_EVERY = 1.0
"""Seconds between two looks for notes."""

RETRY_AFTER = 0.2
"""Seconds from a look that failed to the next: a store that is back is seen about as soon as it is
known to be back. While it is known to be away a look asks nobody."""

OVERLAP = 30.0
"""Seconds that a look goes back behind the one before: notes may become visible late, and the
nodes' clocks differ."""

SETTLING = 10.0
"""Seconds after a note in which the change itself may still be on its way into the store."""

BLIND_AFTER = 10.0
"""Seconds without a successful look after which tokens are no longer believed."""

REMEMBER = 1.0
"""Seconds that the store's answer about a session or key is remembered."""

USE_NOTED_EVERY = 60.0
"""Seconds between two notes that an API key was used."""

REFUSED_FOR = 10.0
"""Seconds that the refusal of an API key is remembered: a program that goes on trying a dead one
costs few reads, and hardly counts as one who guesses."""

_MAX_KEYS = 10_000
_MAX_NOTED = 100_000

BAD_KEY = "The API key is not valid."

OnRevoked = Callable[[Client], None]


class _Changed:
    """A user whose tokens are not believed without asking."""

    __slots__ = ("answers", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        """Unix seconds from which no token of before the change is left."""
        self.answers: dict[str, tuple[float, Role | None]] = {}
        """By session: until when (monotonic) it holds, and the role; None: not let in."""


class Authenticator:
    """Finds the principal of a token, and closes connections whose principal lost access."""

    def __init__(
        self,
        tokens: Tokens,
        accounts: AccountRepository,
        sessions: SessionRepository,
        control: Control,
        clients: Clients,
        limiter: RateLimiter,
        clock: Clock,
        access_ttl: float,
    ) -> None:
        """`access_ttl`: seconds that access tokens live."""
        self._tokens = tokens
        self._accounts = accounts
        self._sessions = sessions
        self._control = control
        self._clients = clients
        self._limiter = limiter
        self._clock = clock
        self._authority = Authority(accounts, sessions, clock)
        self._believed_for = access_ttl + OVERLAP
        self._changed: dict[str, _Changed] = {}
        self._keys: dict[str, tuple[float, Principal]] = {}
        self._refused: dict[str, float] = {}
        """By hash of an API key: until when (monotonic) it is refused without asking."""
        self._familiar: set[str] = set()
        """Hashes of API keys that were good: looking for one again is no guess."""
        self._in_use: dict[tuple[str, str], int] = {}
        """By organization and session: the generation of an access token shown here, to be noted."""
        self._noted: dict[str, int] = {}
        """By session: the generation that is to be noted, or was."""
        self._seen: dict[str, str] = {}
        self._looked_at: float | None = None
        self._to_review: dict[str, None] = {}
        self._wake = asyncio.Event()
        self.on_revoked: list[OnRevoked] = []
        """Called for each connection that is closed because its access ended."""
        control.on(TOPIC, self._heard)

    # -- letting in ---------------------------------------------------------------------------

    async def authenticate(self, token: str, remote: str) -> Principal:
        """The principal of an access token or an API key, shown by a network address.

        Raises:
            Unauthenticated: the token is wrong, expired or revoked, or its user disabled.
            RateLimited: too many wrong API keys came from this address.
            Unavailable: the store cannot be asked.
        """
        if token.startswith(KEY_PREFIX):
            return await self._by_key(token, remote)
        principal = self._tokens.verify(token)
        if principal.user in self._changed:
            principal = await self.confirm(principal)
        else:
            self._check_sight()
        if principal.generation > self._noted.get(principal.session, 0):
            self._use(principal)
        return principal

    def _use(self, principal: Principal) -> None:
        """What a refresh gave has arrived: the refresh token before it is no longer answered."""
        if len(self._noted) >= _MAX_NOTED:
            self._noted.clear()
        self._noted[principal.session] = principal.generation
        self._in_use[principal.org, principal.session] = principal.generation

    async def note_use(self) -> None:
        """Write down which refreshes have arrived, of those that were not yet.

        Raises:
            Unavailable: the store cannot be asked; what is not written stays to be written.
        """
        while self._in_use:
            (org, session), generation = self._in_use.popitem()
            try:
                await self._sessions.mark_used(org, session, generation)
            except Unavailable:
                self._in_use.setdefault((org, session), generation)
                raise

    async def confirm(self, principal: Principal) -> Principal:
        """The principal as it is now, for one that was authenticated some time ago.

        Raises:
            Unauthenticated: it would not be let in any more.
            Unavailable: the store cannot be asked.
        """
        self._check_sight()
        changed = self._changed.get(principal.user)
        if changed is None:
            return principal
        now = self._clock.monotonic()
        until, role = changed.answers.get(principal.session, (0.0, None))
        if until <= now:
            role = await self._role(principal)
            # If another change came meanwhile, this object is no longer asked.
            changed.answers[principal.session] = (now + REMEMBER, role)
        if role is None:
            raise Unauthenticated("The session has ended.")
        return principal if role is principal.role else replace(principal, role=role)

    async def _by_key(self, token: str, remote: str) -> Principal:
        hashed = token_hash(token)
        now = self._clock.monotonic()
        until, known = self._keys.get(hashed, (0.0, None))
        if known is not None and until > now and known.expires_at > self._clock.now():
            return known
        org = org_of(KEY_PREFIX, token)
        if org is None or self._refused.get(hashed, 0.0) > now:
            raise Unauthenticated(BAD_KEY)
        try:
            principal = await self._find_key(org, hashed, remote)
        except Unauthenticated:
            self._familiar.discard(hashed)
            if len(self._refused) >= _MAX_KEYS:
                self._refused.clear()
            self._refused[hashed] = now + REFUSED_FOR
            raise
        if len(self._keys) >= _MAX_KEYS:
            self._keys.clear()
        if len(self._familiar) >= _MAX_KEYS:
            self._familiar.clear()
        self._keys[hashed] = (now + REMEMBER, principal)
        self._familiar.add(hashed)
        return principal

    async def _find_key(self, org: str, hashed: str, remote: str) -> Principal:
        if hashed in self._familiar:
            return await self._stored_key(org, hashed)
        told = "Too many wrong API keys."
        network = network_of(remote)
        async with counting_failures(
            self._limiter, Unauthenticated, "api_key.refused", network, told
        ):
            return await self._stored_key(org, hashed)

    async def _stored_key(self, org: str, hashed: str) -> Principal:
        key = await self._sessions.find_key(org, hashed)
        if key is None:
            raise Unauthenticated(BAD_KEY)
        expires = parse_timestamp(key["expires_at"]) if key["expires_at"] else float("inf")
        principal = Principal(key["user"], org, Role(key["role"]), key["id"], expires, key["kind"])
        role = await self._role(principal)
        if role is None:
            raise Unauthenticated(BAD_KEY)
        used, now = key.get("last_used_at"), self._clock.now()
        if used is None or parse_timestamp(used) <= now - USE_NOTED_EVERY:
            await self._sessions.use_key(org, key["id"], timestamp(now))
        return replace(principal, role=role)

    async def _role(self, principal: Principal) -> Role | None:
        """What the store says: the role, or None if this principal is not to be let in."""
        org, now = principal.org, timestamp(self._clock.now())
        most: Role | None = None
        if principal.session.startswith(KEY_ID_PREFIX):
            source = await self._sessions.key(org, principal.session)
            if source is not None:
                most = Role(source["role"])
        else:
            source = await self._sessions.session(org, principal.session)
        if (
            source is None
            or source["user"] != principal.user
            or source["revoked_at"] is not None
            or (source["expires_at"] is not None and source["expires_at"] <= now)
        ):
            return None
        if principal.kind == "agent":
            return await self._authority.of_key(org, source)
        user = await self._accounts.user(org, principal.user)
        if user is None or user["disabled_at"] is not None:
            return None
        role = Role(user["role"])
        return most if most is not None and role.at_least(most) else role

    @property
    def watched(self) -> int:
        """How many users' tokens are not believed without asking."""
        return len(self._changed)

    # -- hearing of changes -------------------------------------------------------------------

    async def note(self, user: str) -> None:
        """Note, before changing it, that what a user may do changes."""
        await self._sessions.note_change(new_id(), user, timestamp(self._clock.now()))

    def tell(self, user: str) -> None:
        """Tell every node that what a user may do has changed."""
        self._control.send(TOPIC, user=user)

    def _heard(self, order: dict[str, Any]) -> None:
        self._mark(order["user"], self._clock.now())

    def _mark(self, user: str, at: float) -> None:
        known = self._changed.get(user)
        until = at + self._believed_for
        self._changed[user] = _Changed(until if known is None else max(until, known.until))
        self._keys.clear()
        self._to_review[user] = None
        self._wake.set()

    def _unseen(self) -> float:
        """Seconds since the last successful look."""
        return (
            float("inf") if self._looked_at is None else self._clock.monotonic() - self._looked_at
        )

    async def check(self) -> None:
        """Return if tokens are believed, and will be for the second in which the next look is due:
        who is sent here because of it is not refused on arrival.

        Raises:
            Unavailable: there was no successful look for too long, or none at all.
        """
        unseen = self._unseen()
        if self._looked_at is None:
            raise Unavailable("Revoked access was not looked for yet.")
        if unseen > BLIND_AFTER:
            raise Unavailable(f"Revoked access was last looked for {unseen:.1f} s ago.")

    def _check_sight(self) -> None:
        if self._unseen() > BLIND_AFTER + POLL_EVERY:
            raise Unavailable("Whether the token was revoked cannot be found out just now.")

    async def look(self) -> None:
        """Read the notes in the store that were not seen yet.

        Raises:
            Unavailable: the store cannot be asked.
        """
        started, now = self._clock.monotonic(), self._clock.now()
        back = OVERLAP if self._looked_at is not None else self._believed_for
        if self._looked_at is not None:
            back += started - self._looked_at
        since = timestamp(now - back)
        for note in await self._sessions.changes(since):
            at = parse_timestamp(note["at"])
            if note["id"] not in self._seen:
                self._seen[note["id"]] = note["at"]
                self._mark(note["user"], at)
            elif at > now - SETTLING:
                self._to_review[note["user"]] = None
        self._looked_at = started
        self._seen = {id: at for id, at in self._seen.items() if at >= since}
        for user in [user for user, each in self._changed.items() if each.until <= now]:
            del self._changed[user]

    async def review(self) -> None:
        """Close the connections of changed users that would not be let in as they are.

        Raises:
            Unavailable: the store cannot be asked; those not reviewed yet stay to be reviewed.
        """
        while self._to_review:
            user = next(iter(self._to_review))
            del self._to_review[user]
            try:
                for client in self._clients.of_user(user):
                    await self._review(client)
            except Unavailable:
                self._to_review[user] = None
                raise

    async def _review(self, client: Client) -> None:
        try:
            principal = await self.confirm(client.principal)
        except Unauthenticated:
            for callback in self.on_revoked:
                callback(client)
            client.outlet.close("revoked", reconnect=False)
            return
        if principal.role is not client.principal.role:
            # What it follows was decided by the old role: let it come in anew.
            client.outlet.close("revoked", reconnect=True)

    async def start(self) -> None:
        """Learn what changed before this process began. Needed before the first `authenticate`.

        Raises:
            Unavailable: the store cannot be asked.
        """
        await self.look()

    async def run(self) -> None:
        """Look and review for as long as the server runs."""
        healthy = True
        while True:
            try:
                async with asyncio.timeout(POLL_EVERY if healthy else RETRY_AFTER):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                # First: who has not looked for too long cannot review anybody, and would not
                # come to look again if that stood before it.
                if self._unseen() >= POLL_EVERY * 0.9:
                    await self.look()
                await self.review()
                await self.note_use()
                healthy = True
            except ParleyError as error:
                if healthy:
                    log.warning("access_look_failed", code=error.code)
                healthy = False
            except Exception:
                if healthy:
                    log.exception("access_look_failed")
                healthy = False
