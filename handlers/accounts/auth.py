"""Coming in: registering, logging in, refreshing, sessions."""

from pydantic import Field

from actions.accounts.accounts import Accounts
from actions.accounts.sessions import Origin, Sessions
from domain.accounts.accounts import MAX_EMAIL, MAX_NAME, Expiry, Session, Tokens
from domain.accounts.passwords import MAX_BYTES
from domain.pages import Page
from domain.rates import MINUTE, Rate
from handlers.command import CommandSet, Empty, Request, Route, command
from handlers.context import Context
from handlers.streams.streams import Done

MAX_TOKEN = 8192


class Register(Request):
    """Who wants an account."""

    email: str = Field(max_length=MAX_EMAIL)
    password: str = Field(max_length=MAX_BYTES)
    name: str = Field(max_length=2 * MAX_NAME)
    invite: str | None = Field(None, max_length=200)


class Login(Request):
    """Who wants to come in."""

    email: str = Field(max_length=MAX_EMAIL)
    password: str = Field(max_length=MAX_BYTES)


class Refresh(Request):
    """A refresh token."""

    refresh_token: str = Field(max_length=200)


class Reset(Request):
    """A reset link's token and the new password."""

    token: str = Field(max_length=200)
    password: str = Field(max_length=MAX_BYTES)


class Extend(Request):
    """A newer access token of the connection's session."""

    token: str = Field(max_length=MAX_TOKEN)


class Logout(Request):
    """Which sessions end."""

    all: bool = False


class SessionId(Request):
    """One session."""

    id: str = Field(max_length=64)


def origin(context: Context) -> Origin:
    """Where a call comes from."""
    return Origin(context.remote, context.user_agent)


class AuthCommands(CommandSet):
    """`/auth…`, and `auth.refresh` on every namespace."""

    namespace = None

    def __init__(self, accounts: Accounts, sessions: Sessions) -> None:
        self._accounts = accounts
        self._sessions = sessions

    @command(
        "auth.register",
        route=Route("POST", "/auth/register", 201),
        role=None,
        socket=False,
        limit=Rate(300, MINUTE),
    )
    async def register(self, context: Context, request: Register) -> Tokens:
        """Make an account and log it in.

        The password needs at least 8 characters with upper case, lower case and a digit, or at
        least 15 of anything, and must not be a well-known one. A refusal does not tell whether
        the address has an account already.
        """
        return await self._accounts.register(
            request.email, request.password, request.name, request.invite, origin(context)
        )

    @command(
        "auth.login",
        route=Route("POST", "/auth/login"),
        role=None,
        socket=False,
        limit=Rate(300, MINUTE),
    )
    async def login(self, context: Context, request: Login) -> Tokens:
        """Begin a session with address and password."""
        return await self._accounts.login(request.email, request.password, origin(context))

    @command(
        "session.refresh",
        route=Route("POST", "/auth/refresh"),
        role=None,
        socket=False,
        limit=Rate(300, MINUTE),
    )
    async def refresh(self, context: Context, request: Refresh) -> Tokens:
        """Get a new pair of tokens; the refresh token given is used up.

        The one before the current gives the same new one within 30 seconds of its use, or until
        what it gave is used; later, or an older one, ends its session, for both who have it.
        """
        return await self._sessions.refresh(request.refresh_token, origin(context))

    @command("auth.refresh", limit=Rate(30, MINUTE))
    async def extend(self, context: Context, request: Extend) -> Expiry:
        """Give the connection a newer access token of the same session.

        It then lives as long as that token, in all namespaces opened over the same transport.
        """
        return await self._sessions.extend(context.client, request.token, context.remote)

    @command(
        "auth.reset",
        route=Route("POST", "/auth/reset", 204),
        role=None,
        socket=False,
        limit=Rate(60, MINUTE),
    )
    async def reset(self, context: Context, request: Reset) -> Done:
        """Set a new password with the token of a reset link that an administrator made.

        All sessions and keys of the user end; then log in.
        """
        await self._accounts.reset(request.token, request.password, origin(context))
        return {}

    @command("auth.logout", route=Route("POST", "/auth/logout", query=("all",)), socket=False)
    async def logout(self, context: Context, request: Logout) -> Done:
        """End this session, or with `all` every session of the user.

        Their connections are closed.
        """
        if request.all:
            await self._sessions.end_everywhere(context.principal)
        else:
            await self._sessions.end_own(context.principal)
        return {}

    @command("session.list", route=Route("GET", "/auth/sessions"), socket=False)
    async def sessions(self, context: Context, request: Empty) -> Page[Session]:
        """List where the user is logged in."""
        return {"items": await self._sessions.mine(context.principal), "next": None}

    @command("session.get", route=Route("GET", "/auth/sessions/{id}"), socket=False)
    async def session(self, context: Context, request: SessionId) -> Session:
        """Get one of the user's sessions."""
        return await self._sessions.one(context.principal, request.id)

    @command("session.end", route=Route("DELETE", "/auth/sessions/{id}", 204), socket=False)
    async def end(self, context: Context, request: SessionId) -> Done:
        """End one of the user's sessions; its connections are closed."""
        await self._sessions.end(context.principal, request.id)
        return {}
