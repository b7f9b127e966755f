"""Tokens: what is believed and what is not."""

import base64
from typing import Any

import jwt
import orjson
import pytest

from actions.accounts.tokens import (
    KEY_PREFIX,
    REFRESH_PREFIX,
    Tokens,
    org_of,
    random_token,
    token_hash,
)
from domain.errors import Unauthenticated
from domain.ids import new_id
from domain.principals import Role
from tests.support.local import TurnedClock

SECRET = "0123456789abcdef" * 4 + "-test"


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def tokens(clock: TurnedClock) -> Tokens:
    return Tokens(SECRET, "parley", "parley", 900, clock)


def claims(clock: TurnedClock, **changed: Any) -> dict[str, Any]:
    now = int(clock.now())
    good = {
        "iss": "parley",
        "aud": "parley",
        "iat": now,
        "exp": now + 900,
        "jti": "j",
        "typ": "access",
        "sub": "u",
        "org": "o",
        "role": "member",
        "sid": "s",
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def signed(payload: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(payload, secret, algorithm=algorithm)


def unsigned(header: dict[str, Any], payload: dict[str, Any], signature: bytes = b"") -> str:
    parts = (orjson.dumps(header), orjson.dumps(payload), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def refused(tokens: Tokens, token: str) -> None:
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            tokens.verify(token)


def test_a_token_made_here_is_believed_until_it_ends(tokens: Tokens, clock: TurnedClock) -> None:
    token, seconds = tokens.access("u", "o", Role.ADMIN, "s")
    assert seconds == 900
    for _ in range(2):
        principal = tokens.verify(token)
        assert (principal.user, principal.org, principal.role, principal.session) == (
            "u",
            "o",
            Role.ADMIN,
            "s",
        )
        assert principal.expires_at == clock.now() + 900
        assert principal.kind == "user"
    clock.turn(899)
    tokens.verify(token)
    clock.turn(1)
    refused(tokens, token)


def test_two_tokens_are_never_the_same(tokens: Tokens) -> None:
    assert tokens.access("u", "o", Role.ADMIN, "s") != tokens.access("u", "o", Role.ADMIN, "s")


def test_any_changed_character_is_noticed(tokens: Tokens) -> None:
    token, _ = tokens.access("u", "o", Role.GUEST, "s")
    header, payload, signature = token.split(".")
    forged = orjson.dumps({**jwt.decode(token, options={"verify_signature": False}), "sub": "v"})
    refused(
        tokens, f"{header}.{base64.urlsafe_b64encode(forged).rstrip(b'=').decode()}.{signature}"
    )
    refused(tokens, f"{header}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}")
    refused(tokens, f"{header}.{payload}.")
    refused(tokens, f"{header}.{payload}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS384", "HS512", "RS256", "ES256"])
def test_no_other_algorithm_is_believed(tokens: Tokens, clock: TurnedClock, algorithm: str) -> None:
    refused(tokens, unsigned({"alg": algorithm, "typ": "JWT"}, claims(clock)))
    refused(tokens, unsigned({"alg": algorithm, "typ": "JWT"}, claims(clock), b"x" * 32))
    if algorithm in {"HS384", "HS512"}:
        refused(tokens, signed(claims(clock), algorithm=algorithm))


def test_another_key_is_not_believed(tokens: Tokens, clock: TurnedClock) -> None:
    refused(tokens, signed(claims(clock), secret=SECRET[::-1]))


def test_the_helper_signs_what_is_believed(tokens: Tokens, clock: TurnedClock) -> None:
    assert tokens.verify(signed(claims(clock))).user == "u"
    assert tokens.verify(signed(claims(clock, aud=["other", "parley"]))).user == "u"


@pytest.mark.parametrize(
    "changed",
    [
        {name: None}
        for name in ("iss", "aud", "exp", "iat", "jti", "sub", "sid", "org", "typ", "role")
    ]
    + [
        {"iss": "other"},
        {"aud": "other"},
        {"aud": ["a", "b"]},
        {"typ": "refresh"},
        {"typ": "id"},
        {"role": "god"},
        {"role": ["owner"]},
        {"sub": ""},
        {"sub": 7},
        {"sid": {}},
        {"org": []},
        {"exp": "soon"},
        {"exp": 1e300},
        {"exp": True},
        {"exp": 0},
        {"iat": "then"},
        {"iat": 1_800_000_000 + 3600},
    ],
)
def test_every_claim_is_needed_and_checked(
    tokens: Tokens, clock: TurnedClock, changed: dict[str, Any]
) -> None:
    payload = claims(clock, **changed)
    refused(tokens, unsigned({"alg": "HS256", "typ": "JWT"}, payload))
    try:
        token = signed(payload)
    except TypeError:
        return  # PyJWT does not even make it
    refused(tokens, token)


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b.c", "x" * 8192, "ü.ü.ü", "\ud800", "eyJ.eyJ.eyJ", "\x00", " "],
)
def test_rubbish_is_refused(tokens: Tokens, token: str) -> None:
    refused(tokens, token)


def test_deep_json_in_a_signed_token_is_refused(tokens: Tokens) -> None:
    body = b"[" * 100_000 + b"]" * 100_000
    refused(tokens, jwt.api_jws.PyJWS().encode(body, SECRET, algorithm="HS256"))


def test_tokens_of_another_kind_of_this_server_are_no_access_tokens(tokens: Tokens) -> None:
    refused(tokens, tokens.refresh("o", new_id()))
    refused(tokens, random_token(KEY_PREFIX, "o"))


def test_a_refresh_token_names_its_session_and_cannot_be_made_up(tokens: Tokens) -> None:
    session = new_id()
    token = tokens.refresh("default", session)
    assert token.startswith(REFRESH_PREFIX)
    assert tokens.session_of(token) == ("default", session)
    assert tokens.refresh("default", session) != token
    other = Tokens(SECRET[::-1], "parley", "parley", 900, TurnedClock())
    middle = len(token) // 2
    changed = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    access, _ = tokens.access("u", "o", Role.GUEST, session)
    for bad in ("", "rt_", "rt_AAAA", "ü", "\ud800", changed, token[:-4], token + "AAAA", access):
        with pytest.raises(Unauthenticated):
            tokens.session_of(bad)
    with pytest.raises(Unauthenticated):
        other.session_of(token)


def test_random_tokens_say_where_to_look_and_are_stored_hashed() -> None:
    token = random_token(KEY_PREFIX, "default")
    assert org_of(KEY_PREFIX, token) == "default"
    assert token_hash(token) != token
    assert len(token_hash(token)) == 64
    assert org_of(KEY_PREFIX, "pk_!!") is None
    assert not org_of(KEY_PREFIX, "pk_AAAA")
    token_hash("\ud800")


def test_remembered_tokens_are_bounded(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actions.accounts.tokens.MAX_VERIFIED", 4)
    made = [tokens.access("u", "o", Role.GUEST, f"s{i}")[0] for i in range(20)]
    for token in made * 2:
        tokens.verify(token)
    assert tokens.remembered <= 4
