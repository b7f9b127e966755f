"""Accounts: users, organizations, login sessions, API keys and invitations as they are seen."""

import ipaddress
from collections.abc import Mapping
from typing import Any, Literal, NotRequired

import email_validator
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from domain.clock import timestamp
from domain.errors import Invalid
from domain.ids import key_digest
from domain.principals import Role
from domain.text import has_control_characters, is_encodable, why_not_plain

DEFAULT_ORG = "default"
"""The organization a fresh server has."""

MAX_EMAIL = 254
"""Characters of an email address (RFC 5321, section 4.5.3.1.3)."""

MAX_NAME = 100
"""Characters of a user's name."""

MAX_AVATAR = 2048
"""Characters of the address of a picture."""

MAX_SETTINGS = 64
"""Entries of a user's settings."""

MAX_SETTINGS_BYTES = 16_384
"""Bytes of a user's settings as JSON."""

MAX_SESSIONS = 100
"""Login sessions one user may have; the one unused for longest goes when another is made."""

MAX_INVITES = 1_000
"""Invitations that can be used, of one maker."""

MAX_KEYS = 200
"""API keys that let in, of one maker."""

INVITE_TTL = 7 * 86_400.0
"""Seconds an invitation can be used."""

RESET_TTL = 86_400.0
"""Seconds that a reset link can be used."""

ATTEMPTS_KEPT = 30 * 86_400.0
"""Seconds that login attempts are recorded."""

MOST_IN_A_ROW = 100
"""Failed logins in a row after which an account takes passwords from its own networks only."""

GUESSES_KEPT = 400 * 86_400.0
"""Seconds that failed logins in a row, and an account's own networks, are remembered."""

EXPIRING_BEFORE = 60.0
"""Seconds before a token's end at which its connections hear `auth.expiring`."""

KeyKind = Literal["user", "agent"]

# RFC 6761 and RFC 6762 reserve these for private networks and tests, where this server may well
# run; email-validator refuses them as not globally deliverable, and lets its list be changed.
for _private in ("local", "localhost", "test"):
    if _private in email_validator.SPECIAL_USE_DOMAIN_NAMES:
        email_validator.SPECIAL_USE_DOMAIN_NAMES.remove(_private)


@with_config(ConfigDict(extra="forbid"))
class User(TypedDict):
    """A user as others see this one."""

    id: str
    name: str
    email: NotRequired[str]
    """Only shown to the user and to technicians and above."""
    role: str
    avatar: str | None
    disabled: bool
    created_at: str


@with_config(ConfigDict(extra="forbid"))
class Profile(TypedDict):
    """The caller's own account."""

    id: str
    name: str
    email: str
    role: str
    avatar: str | None
    disabled: bool
    created_at: str
    org: str
    settings: dict[str, Any]
    """What a client keeps for its user: theme, language, … The server does not look at it."""


@with_config(ConfigDict(extra="forbid"))
class Tokens(TypedDict):
    """A pair of tokens (RFC 6749, section 5.1)."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    """Seconds until the access token ends."""
    user: Profile


@with_config(ConfigDict(extra="forbid"))
class Session(TypedDict):
    """One login: where it is used."""

    id: str
    created_at: str
    last_used_at: str
    """When it last logged in or refreshed its tokens."""
    expires_at: str
    user_agent: str
    remote: str
    """Network address of the last use."""
    current: bool
    """Whether it is the session that asks."""


@with_config(ConfigDict(extra="forbid"))
class Expiry(TypedDict):
    """When a token ends: the answer to `auth.refresh` and the content of `auth.expiring`."""

    expires_at: str
    expires_in: int
    """Seconds from now."""


@with_config(ConfigDict(extra="forbid"))
class Invite(TypedDict):
    """An invitation to register."""

    id: str
    token: NotRequired[str]
    """Only in the answer that makes it."""
    email: str | None
    """Who may use it; None: anybody who has it."""
    role: str
    created_at: str
    created_by: str
    expires_at: str


@with_config(ConfigDict(extra="forbid"))
class PasswordReset(TypedDict):
    """A way back for somebody who has forgotten the password."""

    user: str
    token: str
    """Told once; it goes into `auth.reset`."""
    expires_at: str


@with_config(ConfigDict(extra="forbid"))
class ApiKey(TypedDict):
    """A key for programs."""

    id: str
    name: str
    key: NotRequired[str]
    """The key itself, only in the answer that makes it."""
    hint: str
    """Its first characters, to recognise it by."""
    kind: KeyKind
    """`user`: acts as the user who made it. `agent`: acts as itself."""
    role: str
    created_at: str
    created_by: str
    expires_at: str | None
    last_used_at: str | None
    """To the minute."""


def normalize_email(text: str, field: str = "email") -> str:
    """An address in the one form by which accounts are told apart: Unicode normalized, case
    folded. Whether mail can be delivered to it is not asked.

    Raises:
        Invalid: it is no address of the form `somebody@domain.tld`.
    """
    try:
        if len(text) > MAX_EMAIL or not is_encodable(text):
            raise Invalid.field(
                field, f"must be an email address of at most {MAX_EMAIL} characters"
            )
        found = email_validator.validate_email(
            text.strip(), check_deliverability=False, strict=True, allow_smtputf8=True
        )
    except email_validator.EmailNotValidError as error:
        raise Invalid.field(field, f"must be an email address: {error}") from None
    return found.normalized.casefold()


def email_key(normalized: str) -> str:
    """A fixed-length key for a normalized address."""
    return key_digest("email", normalized)


def clean_name(text: str, field: str = "name") -> str:
    """A name as it is kept: without space around it.

    Raises:
        Invalid: empty, too long, or no text that others can be shown (`why_not_plain`).
    """
    name = " ".join(text.split()) if not has_control_characters(text, newlines=False) else text
    if not name or len(name) > MAX_NAME:
        raise Invalid.field(field, f"must have 1 to {MAX_NAME} characters")
    if (wrong := why_not_plain(name)) is not None:
        raise Invalid.field(field, wrong)
    return name


def clean_avatar(text: str | None, field: str = "avatar") -> str | None:
    """The address of a picture: `https://…`, or a path of this server such as an upload's.

    Raises:
        Invalid: anything else; `javascript:` and `data:` would run in other people's clients.
    """
    if not text:
        return None
    good = text.startswith(("https://", "http://")) or (
        text.startswith("/") and not text.startswith(("//", "/\\"))
    )
    bad = len(text) > MAX_AVATAR or any(c.isspace() or c in "\"'<>\\" for c in text)
    if not good or bad or has_control_characters(text) or not is_encodable(text):
        raise Invalid.field(field, "must be a URL with http or https, or a path of this server")
    return text


def public_view(doc: Mapping[str, Any], *, with_email: bool) -> User:
    """A stored user as others see this one."""
    view: User = {
        "id": doc["id"],
        "name": doc["name"],
        "role": doc["role"],
        "avatar": doc["avatar"],
        "disabled": doc["disabled_at"] is not None,
        "created_at": doc["created_at"],
    }
    if with_email:
        view["email"] = doc["email"]
    return view


def own_view(doc: Mapping[str, Any], org: str) -> Profile:
    """A stored user as this one is shown to itself."""
    return {
        "id": doc["id"],
        "name": doc["name"],
        "email": doc["email"],
        "role": doc["role"],
        "avatar": doc["avatar"],
        "disabled": doc["disabled_at"] is not None,
        "created_at": doc["created_at"],
        "org": org,
        "settings": doc["settings"],
    }


def expiry(expires_at: float, now: float) -> Expiry:
    """A token's end, in Unix seconds, as it is told."""
    return {"expires_at": timestamp(expires_at), "expires_in": max(0, round(expires_at - now))}


def network_of(remote: str) -> str:
    """What an address is counted by: itself, or the /64 network of an IPv6 address, since one
    customer has as many addresses of it as there are.
    """
    if ":" not in remote:
        return remote
    try:
        address = ipaddress.IPv6Address(remote.partition("%")[0])
    except ValueError:
        return remote
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


def may_manage(actor: Role, target: Role) -> bool:
    """Whether someone may change, disable or appoint a user of that role: an owner everybody,
    others those below them.
    """
    return actor is Role.OWNER or actor.rank > target.rank
