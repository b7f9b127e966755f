"""One's own account: registering, logging in, profile, password."""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import orjson
import structlog

from actions.accounts.authority import Authority, without_key
from actions.accounts.failures import counting_failures
from actions.accounts.guesses import Guesses
from actions.accounts.hashing import PasswordHasher
from actions.accounts.resets import OPERATOR
from actions.accounts.sessions import Origin, Sessions
from actions.accounts.tokens import INVITE_PREFIX, RESET_PREFIX, org_of, token_hash
from actions.uploads.avatars import Avatars
from domain.accounts import passwords
from domain.accounts.accounts import (
    DEFAULT_ORG,
    MAX_SETTINGS,
    MAX_SETTINGS_BYTES,
    Profile,
    Tokens,
    clean_avatar,
    clean_name,
    email_key,
    network_of,
    normalize_email,
    own_view,
)
from domain.clock import Clock, parse_timestamp, timestamp
from domain.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from domain.ids import new_id
from domain.principals import Principal, Role
from fanout.limits import RateLimiter
from store.accounts.accounts import Account, AccountRepository
from store.accounts.sessions import SessionRepository


class PasswordRules(NamedTuple):
    """What this server asks of passwords."""

    length_only: bool = False
    words: tuple[str, ...] = ()
    """Of the server: no password consists of them."""


NO_RULES = PasswordRules()

log = structlog.get_logger(__name__)

Registration = Literal["open", "invite", "closed"]

OWNER_ATTEMPTS, OWNER_PAUSE = 50, 0.1
"""How often, and after how many seconds, it is looked whether another node that starts at the same
moment has made the first administrator."""

CLAIM_SETTLES = 60.0
"""Seconds after which a claim on an address without a user is one that a crash left behind."""

REFUSED = (
    "This registration cannot be accepted. If you have an account already, log in; otherwise ask "
    "an administrator."
)
"""For every refusal that depends on what is stored, so that they cannot be told apart: see
`docs/decisions/0003-registration-tells-little.md`."""

BAD_RESET = "The reset link is not valid, or was used."
NOT_LOGGED_IN = "The email address or the password is wrong."


class Accounts:
    """What a person can do with their own account."""

    def __init__(
        self,
        accounts: AccountRepository,
        attempts: SessionRepository,
        sessions: Sessions,
        hasher: PasswordHasher,
        limiter: RateLimiter,
        clock: Clock,
        registration: Registration,
        guesses: Guesses,
        rules: PasswordRules = NO_RULES,
        avatars: Avatars | None = None,
    ) -> None:
        """`rules`: what a new password needs besides."""
        self._accounts = accounts
        self._attempts = attempts
        self._sessions = sessions
        self._hasher = hasher
        self._limiter = limiter
        self._clock = clock
        self._registration = registration
        self._authority = Authority(accounts, attempts, clock)
        self._guesses = guesses
        self._rules = rules
        self._avatars = avatars

    def _check_password(self, password: str, *about: str) -> None:
        about = (*about, *self._rules.words)
        passwords.check(password, about=about, length_only=self._rules.length_only)

    # -- registering --------------------------------------------------------------------------

    async def register(
        self, email: str, password: str, name: str, invite: str | None, origin: Origin
    ) -> Tokens:
        """Make an account and log it in.

        Raises:
            Invalid: address, password or name are not acceptable.
            Forbidden: nobody may register here, or nobody without an invitation.
            Conflict: refused, for a reason that is not told.
            RateLimited: too many were refused to this network address, or succeeded.
        """
        if self._registration == "closed":
            raise Forbidden("This server takes no registrations.")
        if self._registration == "invite" and not invite:
            raise Forbidden("This server takes registrations with an invitation only.")
        address = normalize_email(email)
        name = clean_name(name)
        self._check_password(password, address, name)
        network = network_of(origin.remote)
        wait = await self._limiter.take("register.made", network)
        if wait > 0:
            raise RateLimited("Too many people registered from here.", retry_after=wait)
        told = "Too many registrations were refused."
        async with counting_failures(self._limiter, Conflict, "register.refused", network, told):
            try:
                org, user = await self._register(address, password, name, invite, network)
            except BaseException:
                await self._limiter.give_back("register.made", network)
                raise
        log.info("user_registered", user=user["id"], org=org)
        await self._attempts.record_attempt(
            new_id(), email_key(address), network, True, user["created_at"]
        )
        await self._guesses.succeeded(email_key(address), network)
        return await self._sessions.begin(org, user, origin)

    async def _register(
        self, address: str, password: str, name: str, invite: str | None, network: str
    ) -> tuple[str, dict[str, Any]]:
        # The same work whether it will be refused or not.
        hashed = await self._hasher.hash(passwords.normalized(password), network)
        if invite is None:
            org = DEFAULT_ORG
            return org, await self.add_user(org, address, name, Role.MEMBER, hashed)
        org, invitation = await self._invitation(invite, address)
        role = Role(invitation["role"])
        return org, await self.add_user(org, address, name, role, hashed, invitation)

    async def _invitation(self, invite: str, address: str) -> tuple[str, dict[str, Any]]:
        org = org_of(INVITE_PREFIX, invite)
        found = await self._accounts.invite(org, token_hash(invite)) if org else None
        if (
            org is None
            or found is None
            or found["used_by"] is not None
            or found["expires_at"] <= timestamp(self._clock.now())
            or found["email"] not in (None, address)
            or not await self._authority.could_give(
                org, found["created_by"], Role(found["role"]), found.get("by_key")
            )
        ):
            raise Conflict(REFUSED)
        return org, found

    async def add_user(
        self,
        org: str,
        address: str,
        name: str,
        role: Role,
        hashed: str,
        invitation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Store a new user under an address that is nobody's yet.

        Raises:
            Conflict: the address is taken, or the invitation used.
        """
        now = self._clock.now()
        id, key = new_id(), email_key(address)
        claim = await self._accounts.claim_email(key, org, id, timestamp(now))
        if claim is not None and await self._is_left_behind(claim, now):
            await self._accounts.drop_claim(claim)
            claim = await self._accounts.claim_email(key, org, id, timestamp(now))
        if claim is not None:
            raise Conflict(REFUSED)
        if invitation is not None and not await self._accounts.use_invite(
            org, invitation["id"], id
        ):
            raise Conflict(REFUSED)
        user: dict[str, Any] = {
            "id": id,
            "email": address,
            "name": name,
            "role": role.value,
            "avatar": None,
            "settings": {},
            "password": hashed,
            "password_at": timestamp(now),
            "created_at": timestamp(now),
            "disabled_at": None,
        }
        if not await self._accounts.add_user(org, user):
            raise Conflict(REFUSED)
        return user

    async def _is_left_behind(self, claim: Mapping[str, Any], now: float) -> bool:
        if parse_timestamp(claim["claimed_at"]) > now - CLAIM_SETTLES:
            return False
        return await self._accounts.user(claim["org_id"], claim["user"]) is None

    # -- logging in ---------------------------------------------------------------------------

    async def login(self, email: str, password: str, origin: Origin) -> Tokens:
        """Begin a session for an address and a password.

        Raises:
            Unauthenticated: one of them is wrong; which one is not told.
            Forbidden: both are right, but the account is disabled.
            RateLimited: too many attempts failed for this account or from this address.
        """
        address = normalize_email(email)
        raw = passwords.normalized(password)
        account, network = email_key(address), network_of(origin.remote)
        # A place from which the account was used before counts for itself: somebody elsewhere
        # who guesses passwords cannot keep the owner out.
        familiar = await self._attempts.succeeded_from(account, network)
        await self._guesses.check(account, network, familiar)
        bucket_key = f"{account}@{network}" if familiar else account
        told = "Too many failed logins."
        async with (
            counting_failures(self._limiter, Unauthenticated, "login.address", network, told),
            counting_failures(self._limiter, Unauthenticated, "login", bucket_key, told),
            self._guesses.counting(account, network),
        ):
            org, user = await self._verify(account, raw, network)
        if user["disabled_at"] is not None:
            raise Forbidden("This account is disabled.")
        if self._hasher.is_outdated(user["password"]):
            await self._accounts.update_user(
                org,
                user["id"],
                {"password": await self._hasher.hash(raw, network)},
                where={"password": user["password"]},
            )
        return await self._sessions.begin(org, user, origin)

    async def _verify(self, account: str, raw: bytes, network: str) -> Account:
        """The account that has this password; the attempt is recorded."""
        found = await self._accounts.by_email(account)
        good = await self._hasher.verify(raw, found.user["password"] if found else None, network)
        at = timestamp(self._clock.now())
        await self._attempts.record_attempt(new_id(), account, network, good, at)
        if found is None or not good:
            log.info("login_failed", account=account, network=network)
            raise Unauthenticated(NOT_LOGGED_IN)
        return found

    # -- profile ------------------------------------------------------------------------------

    async def profile(self, principal: Principal) -> Profile:
        """The caller's own account.

        Raises:
            NotFound: the caller is an API key that acts as itself.
        """
        return own_view(await self._mine(principal), principal.org)

    async def _mine(self, principal: Principal) -> dict[str, Any]:
        user = await self._accounts.user(principal.org, principal.user)
        if user is None:
            raise NotFound("This caller has no account.")
        return user

    async def update(
        self,
        principal: Principal,
        changes: Mapping[str, Any],
        *,
        password: str | None = None,
        current_password: str | None = None,
        keep_keys: bool = False,
    ) -> Profile:
        """Change the caller's own account; what is not named in `changes` stays.

        Args:
            changes: of `name`, `avatar`, `settings`.
            password: a new one; ends all other sessions.
            keep_keys: the API keys that act as this user outlive it.

        Raises:
            Invalid: a value is not acceptable, or the current password wrong.
            Forbidden: the password is to be changed by an API key.
            RateLimited: the current password was wrong too often.
        """
        clean = dict(changes)
        if "name" in clean:
            clean["name"] = clean_name(clean["name"])
        if "avatar" in clean:
            clean["avatar"] = clean_avatar(clean["avatar"])
            if self._avatars is not None:
                await self._avatars.check(principal, clean["avatar"])
        if "settings" in clean:
            _check_settings(clean["settings"])
        user = await self._mine(principal)
        before = user["avatar"]
        if password is not None:
            without_key(principal)
            user = await self._change_password(principal, user, password, current_password, clean)
            if not keep_keys:
                await self._sessions.end_keys(principal.org, principal.user)
        elif clean:
            user = await self._accounts.update_user(principal.org, principal.user, clean) or user
        if self._avatars is not None:
            await self._avatars.replaced(principal.org, before, user["avatar"])
        return own_view(user, principal.org)

    async def _change_password(
        self,
        principal: Principal,
        user: Mapping[str, Any],
        password: str,
        current: str | None,
        changes: Mapping[str, Any],
    ) -> dict[str, Any]:
        if current is None:
            raise Invalid.field("current_password", "is needed to change the password")
        name = changes.get("name", user["name"])
        self._check_password(password, user["email"], name)
        raw = passwords.normalized(current)
        told = "Too many wrong passwords."
        async with counting_failures(self._limiter, Invalid, "password", principal.user, told):
            if not await self._hasher.verify(raw, user["password"], principal.user):
                raise Invalid.field("current_password", "is wrong")
        hashed = await self._hasher.hash(passwords.normalized(password), principal.user)
        new = {
            **changes,
            "password": hashed,
            "password_at": timestamp(self._clock.now()),
        }
        changed = await self._accounts.update_user(
            principal.org, principal.user, new, where={"password": user["password"]}
        )
        if changed is None:
            raise Conflict("The password was changed by somebody else just now.")
        await self._accounts.drop_resets(principal.org, principal.user)
        await self._sessions.end_all(principal.org, principal.user, but=principal.session)
        log.info("password_changed", user=principal.user)
        return changed

    async def reset(self, token: str, password: str, origin: Origin) -> None:
        """Set a new password with a reset link. All sessions and keys of the user end, and the
        network the link was used from is one of the account's own.

        Raises:
            Invalid: the password is not acceptable; the link can be used again.
            Unauthenticated: the link is wrong, used or expired, or its maker could not make it now.
        """
        org = org_of(RESET_PREFIX, token)
        found = await self._accounts.reset(org, token_hash(token)) if org else None
        user = await self._accounts.user(org, found["user"]) if org and found else None
        now = timestamp(self._clock.now())
        if (
            org is None
            or found is None
            or user is None
            or found["used_at"] is not None
            or found["expires_at"] <= now
            or user["disabled_at"] is not None
            or not await self._could_reset(org, found["created_by"], Role(user["role"]))
        ):
            raise Unauthenticated(BAD_RESET)
        self._check_password(password, user["email"], user["name"])
        hashed = await self._hasher.hash(passwords.normalized(password), network_of(origin.remote))
        if not await self._accounts.use_reset(org, found["id"], now):
            raise Unauthenticated(BAD_RESET)
        await self._accounts.update_user(org, user["id"], {"password": hashed, "password_at": now})
        await self._sessions.end_all(org, user["id"])
        await self._sessions.end_keys(org, user["id"])
        account = email_key(user["email"])
        await self._guesses.clear(account)
        await self._guesses.succeeded(account, network_of(origin.remote))
        log.info("password_reset", user=user["id"], by=found["created_by"])

    async def _could_reset(self, org: str, maker: str, role: Role) -> bool:
        return maker == OPERATOR or await self._authority.could_give(org, maker, role)

    # -- the first one ------------------------------------------------------------------------

    async def ensure_organization(self) -> bool:
        """Make the organization that a fresh server has. Returns whether it has an owner."""
        at = timestamp(self._clock.now())
        org = await self._accounts.ensure_organization(DEFAULT_ORG, "Default", at)
        return bool(org["owners"])

    async def ensure_first_admin(self, email: str, password: str) -> bool:
        """Make the owner of the first organization if it has none. Returns whether it was made.

        An account that has the address already becomes the owner only if it has the password
        too: somebody may have registered the address before.

        Raises:
            Invalid: address or password are not acceptable.
            Conflict: the address is somebody's who has another password.
            Unavailable: another node is making it, and has not come to an end for some seconds.
        """
        address = normalize_email(email)
        name = clean_name(address.partition("@")[0][:100])
        raw = passwords.normalized(password)
        for _ in range(OWNER_ATTEMPTS):
            at = timestamp(self._clock.now())
            org = await self._accounts.ensure_organization(DEFAULT_ORG, "Default", at)
            if org["owners"]:
                return False
            self._check_password(password, address, name)
            owner = await self._first_owner(address, name, raw)
            if owner is not None:
                return await self._accounts.set_owners(DEFAULT_ORG, [owner], org["version"])
            await asyncio.sleep(OWNER_PAUSE)
        raise Unavailable("Another node is just making the first administrator.")

    async def _first_owner(self, address: str, name: str, password: bytes) -> str | None:
        """The user with this address and password, made if there is none; None if another node is
        making one at this moment.
        """
        found = await self._accounts.by_email(email_key(address))
        if found is None:
            hashed = await self._hasher.hash(password)
            try:
                user = await self.add_user(DEFAULT_ORG, address, name, Role.OWNER, hashed)
            except Conflict:
                return None
            return str(user["id"])
        user = found.user
        if found.org != DEFAULT_ORG or not await self._hasher.verify(password, user["password"]):
            raise Conflict("The first administrator's address belongs to another account.")
        if user["role"] != Role.OWNER:
            await self._accounts.update_user(DEFAULT_ORG, user["id"], {"role": Role.OWNER.value})
        return str(user["id"])


def _check_settings(settings: Mapping[str, Any]) -> None:
    if len(settings) > MAX_SETTINGS:
        raise Invalid.field("settings", f"at most {MAX_SETTINGS} entries")
    try:
        size = len(orjson.dumps(settings))
    except orjson.JSONEncodeError:
        raise Invalid.field("settings", "must be JSON") from None
    if size > MAX_SETTINGS_BYTES:
        raise Invalid.field("settings", f"at most {MAX_SETTINGS_BYTES} bytes")
