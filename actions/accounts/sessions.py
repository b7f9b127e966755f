"""Login sessions: begun by logging in, kept alive by refreshing, ended by logging out."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from actions.accounts.access import Authenticator
from actions.accounts.authority import without_key
from actions.accounts.expiry import Expirations
from actions.accounts.tokens import Tokens, token_hash
from actions.connections.clients import Client, Clients
from domain.accounts import accounts
from domain.accounts.accounts import Expiry, Session
from domain.clock import Clock, parse_timestamp, timestamp
from domain.errors import Invalid, NotFound, Unauthenticated
from domain.ids import new_id
from domain.principals import Principal, Role
from store.accounts.accounts import AccountRepository
from store.accounts.sessions import SessionRepository

log = structlog.get_logger(__name__)

MAX_USER_AGENT = 256
"""Characters of a user agent that are kept."""

REVOKED_KEPT = 86_400.0
"""Seconds that a session which was ended is kept, so that logging out twice at once is no error.
Its tokens are refused for as long as they exist, also when it is gone: no session, no entry."""

NOTES_KEPT = 2 * 86_400.0
"""Seconds that notes of changed access are kept: longer than any access token lives."""


REFRESH_GRACE = 30.0
MAX_AGE = 30 * 86_400.0

OnEnded = Callable[[str, str, list[str]], None]
"""(org, user, the sessions that ended)."""


class Origin:
    """Where a request comes from, as a session shows it."""

    __slots__ = ("remote", "user_agent")

    def __init__(self, remote: str, user_agent: str) -> None:
        self.remote = remote
        self.user_agent = user_agent[:MAX_USER_AGENT]


class Sessions:
    """What can happen to login sessions."""

    def __init__(
        self,
        sessions: SessionRepository,
        users: AccountRepository,
        tokens: Tokens,
        authenticator: Authenticator,
        expirations: Expirations,
        clients: Clients,
        clock: Clock,
        refresh_ttl: float,
        refresh_grace: float = REFRESH_GRACE,
        max_age: float = MAX_AGE,
    ) -> None:
        """`refresh_ttl`: seconds that a session lives without being refreshed; `refresh_grace`:
        seconds in which a refresh token may be used again; `max_age`: seconds that a session lives
        at most.
        """
        self._sessions = sessions
        self._users = users
        self._tokens = tokens
        self._authenticator = authenticator
        self._expirations = expirations
        self._clients = clients
        self._clock = clock
        self._refresh_ttl = refresh_ttl
        self._refresh_grace = refresh_grace
        self._max_age = max_age
        self.on_ended: list[OnEnded] = []
        """Called when sessions were ended, before their connections are closed."""

    async def begin(self, org: str, user: Mapping[str, Any], origin: Origin) -> accounts.Tokens:
        """A new session of a user who proved to be one, as the user was when that was looked at.

        Raises:
            Unauthenticated: the password was changed, or the user disabled, meanwhile: whoever did
                that ended the sessions there were.
        """
        now = self._clock.now()
        session = new_id()
        refresh_token = self._tokens.refresh(org, session)
        doc: dict[str, Any] = {
            "id": session,
            "user": user["id"],
            "created_at": timestamp(now),
            "last_used_at": timestamp(now),
            "expires_at": timestamp(now + min(self._refresh_ttl, self._max_age)),
            "user_agent": origin.user_agent,
            "remote": origin.remote,
            "revoked_at": None,
            "refresh": token_hash(refresh_token),
        }
        await self._sessions.add(org, doc)
        # The change comes before the end of all sessions, so one of the two sees the other.
        now_user = await self._users.user(org, user["id"])
        if (
            now_user is None
            or now_user["disabled_at"] is not None
            or now_user["password_at"] != user["password_at"]
        ):
            await self._revoke(org, user["id"], [session])
            raise Unauthenticated("The account was changed at this moment; log in again.")
        await self._end_oldest(org, user["id"])
        return self._pair(org, user, doc, refresh_token, 0)

    def _pair(
        self,
        org: str,
        user: Mapping[str, Any],
        session: Mapping[str, Any],
        refresh_token: str,
        generation: int,
    ) -> accounts.Tokens:
        access_token, seconds = self._tokens.access(
            user["id"],
            org,
            Role(user["role"]),
            session["id"],
            generation=generation,
            until=self._last_moment(session),
        )
        return {
            "access_token": access_token,
            "refresh_token": refresh_token,
            "token_type": "Bearer",
            "expires_in": seconds,
            "user": accounts.own_view(user, org),
        }

    def _last_moment(self, session: Mapping[str, Any]) -> float:
        return parse_timestamp(session["created_at"]) + self._max_age

    async def refresh(self, refresh_token: str, origin: Origin) -> accounts.Tokens:
        """A new pair of tokens for a refresh token, which is used up by it (RFC 9700, section
        4.14.2: rotation).

        The one before the current is answered with the current one for as long as this may be a
        second tab or an answer that was lost: for some seconds after its use, or until an access
        token that came with the current one is shown. Later, and with an older one, it ends the
        session: either the user or a thief has the newer one.

        Raises:
            Unauthenticated: it is not valid, used, or its session has ended.
        """
        org, id = self._tokens.session_of(refresh_token)
        fresh, hashed = self._tokens.successor(refresh_token), token_hash(refresh_token)
        while True:
            session = await self._sessions.session(org, id)
            now = self._clock.now()
            if (
                session is None
                or session["revoked_at"]
                or session["expires_at"] <= timestamp(now)
                or self._last_moment(session) <= now
            ):
                raise Unauthenticated("The session has ended.")
            user = await self._users.user(org, session["user"])
            if user is None or user["disabled_at"] is not None:
                raise Unauthenticated("The session has ended.")
            generation = session.get("generation", 0)
            if session["refresh"] != hashed:
                if self._may_come_again(session, hashed, now):
                    return self._pair(org, user, session, fresh, generation)
                log.warning("refresh_token_reused", user=user["id"], session=id)
                await self._revoke(org, user["id"], [id])
                raise Unauthenticated("The refresh token was used before; the session has ended.")
            if await self._sessions.rotate(
                org,
                id,
                old=hashed,
                new=token_hash(fresh),
                at=timestamp(now),
                expires_at=timestamp(min(now + self._refresh_ttl, self._last_moment(session))),
                generation=generation + 1,
                remote=origin.remote,
                user_agent=origin.user_agent,
            ):
                return self._pair(org, user, session, fresh, generation + 1)
            # Somebody else did at this moment: what they made of the session decides.

    def _may_come_again(self, session: Mapping[str, Any], hashed: str, now: float) -> bool:
        """Whether the refresh token of this hash, which is not the current one, is answered."""
        if session.get("previous") != hashed:
            return False
        age = now - parse_timestamp(session["rotated_at"])
        return age <= self._refresh_grace or not session["used"]

    async def mine(self, principal: Principal) -> list[Session]:
        """The caller's sessions, newest first."""
        now = timestamp(self._clock.now())
        live = await self._sessions.live(principal.org, principal.user, now)
        return [_view(principal, each) for each in live]

    async def one(self, principal: Principal, session: str) -> Session:
        """One of the caller's sessions.

        Raises:
            NotFound: the caller has no such session, or it has ended.
        """
        return _view(principal, await self._own(principal, session))

    async def end(self, principal: Principal, session: str) -> None:
        """End one of the caller's sessions.

        Raises:
            NotFound: the caller has no such session, or it has ended.
            Forbidden: the caller came with an API key.
        """
        without_key(principal)
        await self._own(principal, session)
        await self._revoke(principal.org, principal.user, [session])

    async def _own(self, principal: Principal, session: str) -> Mapping[str, Any]:
        found = await self._sessions.session(principal.org, session)
        if (
            found is None
            or found["user"] != principal.user
            or found["revoked_at"] is not None
            or found["expires_at"] <= timestamp(self._clock.now())
        ):
            raise NotFound("There is no such session.")
        return found

    async def end_own(self, principal: Principal) -> None:
        """Log out: end the session of the caller's token.

        Raises:
            Invalid: the caller came with an API key.
        """
        if await self._sessions.session(principal.org, principal.session) is None:
            raise Invalid("An API key does not log out; it can be revoked.")
        await self._revoke(principal.org, principal.user, [principal.session])

    async def end_everywhere(self, principal: Principal) -> None:
        """Log out on all devices.

        Raises:
            Forbidden: the caller came with an API key.
        """
        without_key(principal)
        await self.end_all(principal.org, principal.user)

    async def end_keys(self, org: str, user: str) -> None:
        """End the API keys that act as this user."""
        made = await self._sessions.keys_made_by(org, user, timestamp(self._clock.now()))
        keys = [each for each in made if each["kind"] == "user"]
        if not keys:
            return
        await self._authenticator.note(user)
        for each in keys:
            await self._sessions.revoke_key(org, each["id"], timestamp(self._clock.now()))
        self._authenticator.tell(user)

    async def end_all(self, org: str, user: str, *, but: str | None = None) -> None:
        """End all sessions of a user, or all but one."""
        live = await self._sessions.live(org, user, timestamp(self._clock.now()))
        await self._revoke(org, user, [each["id"] for each in live if each["id"] != but])

    async def _end_oldest(self, org: str, user: str) -> None:
        live = await self._sessions.live(org, user, timestamp(self._clock.now()))
        if len(live) > accounts.MAX_SESSIONS:
            # Ids too: of those that came in the same millisecond all nodes end the same ones.
            live.sort(key=lambda each: (each["last_used_at"], each["id"]), reverse=True)
            await self._revoke(org, user, [each["id"] for each in live[accounts.MAX_SESSIONS :]])

    async def _revoke(self, org: str, user: str, sessions: list[str]) -> None:
        if not sessions:
            return
        await self._authenticator.note(user)
        now = self._clock.now()
        at, forget_at = timestamp(now), timestamp(now + min(REVOKED_KEPT, self._refresh_ttl))
        try:
            for session in sessions:
                await self._sessions.revoke(org, session, at, forget_at=forget_at)
        finally:
            for callback in self.on_ended:
                callback(org, user, sessions)
            self._authenticator.tell(user)

    async def trim(self) -> None:
        """Forget what nobody needs any more: expired and revoked sessions, expired invitations,
        old login attempts and notes. To be called every now and then.
        """
        now = self._clock.now()
        await self._sessions.trim_sessions(timestamp(now))
        await self._sessions.trim_attempts(timestamp(now - accounts.ATTEMPTS_KEPT))
        await self._sessions.trim_changes(timestamp(now - NOTES_KEPT))
        await self._users.trim_invites(timestamp(now))
        await self._users.trim_resets(timestamp(now))

    async def extend(self, client: Client, token: str, remote: str) -> Expiry:
        """Give a connection a newer access token of the same session, before its own ends. It
        holds for all namespaces that were opened over the same transport session. `remote`: the
        connection's network address.

        Raises:
            Invalid: it is of another user or session.
            Unauthenticated: it is not valid.
        """
        principal = await self._authenticator.authenticate(token, remote)
        mine = client.principal
        if (principal.user, principal.org, principal.session) != (
            mine.user,
            mine.org,
            mine.session,
        ):
            raise Invalid.field("token", "is of another session; connect anew with it")
        if principal.role is not mine.role:
            raise Unauthenticated("Your role has changed; connect anew.")
        for each in self._clients.of_session(mine.user, mine.session):
            same = each.outlet.session_id == client.outlet.session_id
            if same and each.principal.expires_at < principal.expires_at:
                self._expirations.update(each, principal)
        return accounts.expiry(client.principal.expires_at, self._clock.now())


def _view(principal: Principal, session: Mapping[str, Any]) -> Session:
    return {
        "id": session["id"],
        "created_at": session["created_at"],
        "last_used_at": session["last_used_at"],
        "expires_at": session["expires_at"],
        "user_agent": session["user_agent"],
        "remote": session["remote"],
        "current": session["id"] == principal.session,
    }
