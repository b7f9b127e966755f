"""People: the own profile, finding others, administering them; and API keys."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from actions.accounts.accounts import Accounts
from actions.accounts.api_keys import ApiKeys
from actions.accounts.users import Users
from domain.accounts.accounts import (
    MAX_AVATAR,
    MAX_EMAIL,
    MAX_NAME,
    MAX_SETTINGS,
    ApiKey,
    Invite,
    PasswordReset,
    Profile,
    User,
)
from domain.accounts.passwords import MAX_BYTES
from domain.errors import Forbidden, Invalid
from domain.pages import DEFAULT_LIMIT, MAX_CURSOR_LENGTH, MAX_LIMIT, Page
from domain.principals import Role
from domain.rates import MINUTE, SECOND, Rate
from handlers.command import CommandSet, Empty, Request, Route, command
from handlers.context import Context
from handlers.streams.streams import Done

MAX_USERS = 200
"""People who are fetched at once."""

MAX_KEY_TTL = 10 * 365 * 86_400
"""Seconds that an API key with an end may live."""


class UpdateProfile(Request):
    """What changes; what is not given stays."""

    name: str | None = Field(None, max_length=2 * MAX_NAME)
    avatar: str | None = Field(None, max_length=MAX_AVATAR)
    settings: dict[str, Any] | None = Field(None, max_length=MAX_SETTINGS)
    password: str | None = Field(None, max_length=MAX_BYTES)
    current_password: str | None = Field(None, max_length=MAX_BYTES)
    keep_keys: bool = False


class UserId(Request):
    """One user."""

    id: str = Field(max_length=64)


class Search(Request):
    """Whom to find."""

    q: str = Field("", max_length=MAX_EMAIL)
    ids: str | None = Field(None, max_length=MAX_USERS * 65)
    """Up to 200 ids with commas between them, instead of `q`."""
    cursor: str | None = Field(None, max_length=MAX_CURSOR_LENGTH)
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)


class ListUsers(Request):
    """Whom to fetch."""

    ids: list[Annotated[str, Field(max_length=64)]] = Field(max_length=MAX_USERS)


def _named(value: object) -> object:
    return next((role for role in Role if role.value == value), value)


Named = Annotated[Role, BeforeValidator(_named)]
"""A role by its name: JSON has no enumerations."""


class SetRole(Request):
    """A user's new role."""

    id: str = Field(max_length=64)
    role: Named


class CreateInvite(Request):
    """Whom to invite."""

    email: str | None = Field(None, max_length=MAX_EMAIL)
    role: Named = Role.MEMBER


class CreateKey(Request):
    """A new API key."""

    name: str = Field(max_length=2 * MAX_NAME)
    kind: Literal["user", "agent"] = "agent"
    role: Named = Role.MEMBER
    ttl: int | None = Field(None, ge=60, le=MAX_KEY_TTL)


class Keys(Request):
    """A page of API keys."""

    cursor: str | None = Field(None, max_length=MAX_CURSOR_LENGTH)
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)


class UserCommands(CommandSet):
    """`/users…`, `/invites`."""

    namespace = None

    def __init__(self, accounts: Accounts, users: Users) -> None:
        self._accounts = accounts
        self._users = users

    @command("user.me", route=Route("GET", "/users/me"), socket=False)
    async def me(self, context: Context, request: Empty) -> Profile:
        """Fetch the caller's own account."""
        return await self._accounts.profile(context.principal)

    @command("user.update", route=Route("PUT", "/users/me"), socket=False)
    async def update(self, context: Context, request: UpdateProfile) -> Profile:
        """Change the caller's own account; what is not given stays.

        `avatar: null` removes the picture; `settings` are replaced as a whole. A new `password`
        needs the `current_password` and ends all other sessions, and with them the API keys that
        act as the caller, unless `keep_keys` is set.
        """
        given = request.model_fields_set
        changes: dict[str, Any] = {"avatar": request.avatar} if "avatar" in given else {}
        if request.name is not None:
            changes["name"] = request.name
        if request.settings is not None:
            changes["settings"] = request.settings
        return await self._accounts.update(
            context.principal,
            changes,
            password=request.password,
            current_password=request.current_password,
            keep_keys=request.keep_keys,
        )

    @command("user.search", route=Route("GET", "/users"), socket=False, limit=Rate(20, SECOND))
    async def search(self, context: Context, request: Search) -> Page[User]:
        """Find people of the organization by the beginnings of their names' words.

        Or by their email address: the whole of it; technicians and above also by its beginning.
        Without `q`, all people. Newest first. It needs the role member or more.

        With `ids` those of up to 200 people who are in the organization, in that order, on one
        page; others are left out.
        """
        if request.ids is not None:
            if request.q or request.cursor is not None:
                raise Invalid.field("ids", "goes neither with q nor with cursor")
            ids = [each for each in request.ids.split(",") if each]
            if len(ids) > MAX_USERS:
                raise Invalid.field("ids", f"at most {MAX_USERS}")
            return await self._users.many(context.principal, ids)
        if not context.principal.role.at_least(Role.MEMBER):
            raise Forbidden("This needs the role member or more.")
        return await self._users.search(
            context.principal, request.q, cursor=request.cursor, limit=request.limit
        )

    @command("user.list")
    async def list(self, context: Context, request: ListUsers) -> Page[User]:
        """Fetch up to 200 people of the organization at once.

        In the order of the ids; who is not there, or in another organization, is left out.
        """
        return await self._users.many(context.principal, request.ids)

    @command("user.get", route=Route("GET", "/users/{id}"), socket=False)
    async def get(self, context: Context, request: UserId) -> User:
        """Fetch one user of the organization."""
        return await self._users.get(context.principal, request.id)

    @command(
        "user.disable",
        route=Route("POST", "/users/{id}/disable"),
        role=Role.ADMIN,
        socket=False,
    )
    async def disable(self, context: Context, request: UserId) -> User:
        """Keep a user out; all sessions end and all connections are closed."""
        return await self._users.disable(context.principal, request.id)

    @command(
        "user.enable", route=Route("POST", "/users/{id}/enable"), role=Role.ADMIN, socket=False
    )
    async def enable(self, context: Context, request: UserId) -> User:
        """Let a disabled user log in again."""
        return await self._users.enable(context.principal, request.id)

    @command("user.set_role", route=Route("PUT", "/users/{id}/role"), role=Role.ADMIN, socket=False)
    async def set_role(self, context: Context, request: SetRole) -> User:
        """Give a user another role, below the caller's own; an owner may give any."""
        return await self._users.set_role(context.principal, request.id, request.role)

    @command(
        "invite.create",
        route=Route("POST", "/invites", 201),
        role=Role.ADMIN,
        socket=False,
        limit=Rate(60, MINUTE),
    )
    async def invite(self, context: Context, request: CreateInvite) -> Invite:
        """Make an invitation; its `token` goes into `invite` of the registration.

        With `email`, only that address can use it.
        """
        return await self._users.invite(context.principal, request.email, request.role)

    @command("invite.list", route=Route("GET", "/invites"), role=Role.ADMIN, socket=False)
    async def invites(self, context: Context, request: Keys) -> Page[Invite]:
        """List the invitations that can still be used."""
        return await self._users.invites(
            context.principal, cursor=request.cursor, limit=request.limit
        )

    @command(
        "invite.revoke", route=Route("DELETE", "/invites/{id}", 204), role=Role.ADMIN, socket=False
    )
    async def revoke_invite(self, context: Context, request: UserId) -> Done:
        """Take an invitation back."""
        await self._users.revoke_invite(context.principal, request.id)
        return {}

    @command(
        "user.reset_link",
        route=Route("POST", "/users/{id}/reset-link", 201),
        role=Role.ADMIN,
        socket=False,
        limit=Rate(60, MINUTE),
    )
    async def reset_link(self, context: Context, request: UserId) -> PasswordReset:
        """Make a link with which a user below the caller's role sets a new password once.

        Its `token` is told once and goes into `auth.reset`; a newer one ends it.
        """
        return await self._users.reset_link(context.principal, request.id)


class ApiKeyCommands(CommandSet):
    """`/api-keys`."""

    namespace = None

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    @command("api_key.create", route=Route("POST", "/api-keys", 201), role=Role.ADMIN, socket=False)
    async def create(self, context: Context, request: CreateKey) -> ApiKey:
        """Make an API key; the `key` is told this once.

        Of kind `agent` it acts as itself, of kind `user` as its maker. `ttl` in seconds;
        without it the server's setting counts, `null` is without end. No key makes keys.
        """
        return await self._keys.create(
            context.principal,
            request.name,
            request.kind,
            request.role,
            request.ttl,
            endless=request.ttl is None and "ttl" in request.model_fields_set,
        )

    @command("api_key.list", route=Route("GET", "/api-keys"), role=Role.ADMIN, socket=False)
    async def list(self, context: Context, request: Keys) -> Page[ApiKey]:
        """List the organization's API keys."""
        return await self._keys.list(context.principal, cursor=request.cursor, limit=request.limit)

    @command(
        "api_key.revoke",
        route=Route("DELETE", "/api-keys/{id}", 204),
        role=Role.ADMIN,
        socket=False,
    )
    async def revoke(self, context: Context, request: UserId) -> Done:
        """End an API key; its connections are closed."""
        await self._keys.revoke(context.principal, request.id)
        return {}
