"""Tokens: access tokens (JWT, RFC 7519), refresh tokens, API keys, and their hashes.

An access token is believed by its signature alone; the other two are random and looked up by
their hash, so that the store holds nothing one could log in with.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import uuid
from typing import Any

import jwt

from domain.clock import Clock
from domain.errors import Unauthenticated
from domain.principals import Principal, Role

ALGORITHM = "HS256"
ACCESS = "access"
"""The `typ` of access tokens."""

REFRESH_PREFIX = "rt_"
INVITE_PREFIX = "in_"
KEY_PREFIX = "pk_"
RESET_PREFIX = "pr_"

LEEWAY = 60.0
"""Seconds by which the clock of the node that made a token may be ahead."""

MAX_VERIFIED = 2048
"""Tokens whose verification is remembered: a client that opens several namespaces shows its token
for each."""

_REQUIRED = ("iss", "aud", "exp", "iat", "jti", "sub", "sid", "org", "role", "typ")
_ROLES = {role.value: role for role in Role}
_SESSION_BYTES, _RANDOM_BYTES, _MAC_BYTES = 16, 32, 16


def token_hash(token: str) -> str:
    """What is stored of a random token. It has 256 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def random_token(prefix: str, org: str) -> str:
    """A token that nobody guesses: 256 random bits, and where to look it up."""
    return prefix + _encode(secrets.token_bytes(_RANDOM_BYTES) + org.encode())


def org_of(prefix: str, token: str) -> str | None:
    """The organization that a random token names; None if it is no such token."""
    raw = _decode(token.removeprefix(prefix))
    return _text(raw[_RANDOM_BYTES:]) if raw is not None else None


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(encoded: str) -> bytes | None:
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


class Tokens:
    """Makes and verifies tokens."""

    def __init__(
        self, secret: str, issuer: str, audience: str, access_ttl: float, clock: Clock
    ) -> None:
        """`access_ttl` in seconds; `secret` is the same on all nodes."""
        self._key = secret.encode()
        self._refresh_key = hmac.digest(self._key, b"refresh token", hashlib.sha256)
        self._successor_key = hmac.digest(self._key, b"refresh successor", hashlib.sha256)
        self._issuer = issuer
        self._audience = audience
        self._ttl = int(access_ttl)
        self._clock = clock
        self._jwt = jwt.PyJWT()
        self._verified: dict[str, Principal] = {}

    def access(
        self,
        user: str,
        org: str,
        role: Role,
        session: str,
        *,
        generation: int = 0,
        until: float = float("inf"),
    ) -> tuple[str, int]:
        """A new access token, which ends at `until` (Unix seconds) at the latest, and the seconds
        until it ends. `generation`: how often the session was refreshed.
        """
        now = int(self._clock.now())
        seconds = int(max(1, min(self._ttl, until - now)))
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_urlsafe(9),
            "typ": ACCESS,
            "sub": user,
            "org": org,
            "role": role.value,
            "sid": session,
        }
        if generation:
            claims["gen"] = generation
        return self._jwt.encode(claims, self._key, algorithm=ALGORITHM), seconds

    def verify(self, token: str) -> Principal:
        """The principal an access token was made for.

        Raises:
            Unauthenticated: forged, expired, or no access token of this server.
        """
        principal = self._verified.get(token)
        if principal is None:
            principal = self._principal(self._claims(token))
            if len(self._verified) >= MAX_VERIFIED:
                del self._verified[next(iter(self._verified))]
            self._verified[token] = principal
        if principal.expires_at <= self._clock.now():
            self._verified.pop(token, None)
            raise Unauthenticated("The token has expired.")
        return principal

    @property
    def remembered(self) -> int:
        """How many verified tokens are kept in memory."""
        return len(self._verified)

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            return self._jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                # `exp` and `iat` are judged here, by the clock that was passed in.
                options={"require": list(_REQUIRED), "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, UnicodeError, RecursionError):
            raise Unauthenticated("The token is not valid.") from None

    def _principal(self, claims: dict[str, Any]) -> Principal:
        expires, issued, role = claims["exp"], claims["iat"], claims["role"]
        generation = claims.get("gen", 0)
        texts = [claims[name] for name in ("sub", "org", "sid", "jti", "role")]
        if (
            claims["typ"] != ACCESS
            or not all(type(moment) is int for moment in (expires, issued, generation))
            or not all(type(text) is str and text for text in texts)
            or role not in _ROLES
            or issued > self._clock.now() + LEEWAY
        ):
            raise Unauthenticated("The token is not valid.")
        return Principal(
            claims["sub"],
            claims["org"],
            _ROLES[role],
            claims["sid"],
            float(expires),
            generation=generation,
        )

    def refresh(self, org: str, session: str) -> str:
        """The first refresh token of a session.

        It names its session and carries a MAC. So one that was made here and is not the one the
        session expects now must be an old one, and nothing needs to be kept of old ones.
        """
        return self._refresh_token(session, secrets.token_bytes(_RANDOM_BYTES), org)

    def successor(self, refresh_token: str) -> str:
        """The refresh token that follows one made here: always the same one, so that it can be
        given again though the store has its hash alone. Nobody derives it without the secret.
        """
        org, session = self.session_of(refresh_token)
        random = hmac.digest(self._successor_key, refresh_token.encode(), hashlib.sha256)
        return self._refresh_token(session, random, org)

    def _refresh_token(self, session: str, random: bytes, org: str) -> str:
        body = uuid.UUID(session).bytes + random + org.encode()
        return REFRESH_PREFIX + _encode(self._mac(body) + body)

    def session_of(self, refresh_token: str) -> tuple[str, str]:
        """The organization and the session that a refresh token made here belongs to.

        Raises:
            Unauthenticated: it was not made here.
        """
        raw = _decode(refresh_token.removeprefix(REFRESH_PREFIX)) or b""
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise Unauthenticated("The refresh token is not valid.")
        session = uuid.UUID(bytes=body[:_SESSION_BYTES])
        return body[_SESSION_BYTES + _RANDOM_BYTES :].decode(), str(session)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._refresh_key, body, hashlib.sha256)[:_MAC_BYTES]
