"""What a password has to be."""

import time

import pytest

from domain.accounts import passwords
from domain.errors import Invalid

ABOUT = ("ann.lee@example.com", "Annabel Lee-Jones 9")


@pytest.mark.parametrize(
    "password",
    [
        "Kestrel7",
        "Ärger4Öl",
        "seven green kettles",
        "............,,,,!!!",
        "ЖукиЕдят9",
        "x" * 500 + "yz",
        "with\x00nul Byte1",
    ],
)
def test_accepts(password: str) -> None:
    passwords.check(password, about=ABOUT)


@pytest.mark.parametrize(
    "password",
    [
        "",
        "Short7a",
        "nouppercase7",
        "NOLOWERCASE7",
        "NoDigitsHere",
        "only fourteen.",
        "Password1",
        "PASSWORD123a"[:11],
        "Qwerty123",
        "Passw0rd",
        "Passw0rd!",
        "Parley2026",
        "P@rley-2026!",
        "Welcome2Parley",
        "Abcd12345",
        "Asdfgh4321",
        "1Qaz2wsx3edc",
        "Annabel2019",
        "Jones#1234",
        "Summer2025!",
        "passwordpassword",
        "PasswordParley2026",
        "aaaaaaaaaaaaaaaaaaaa",
        "A1a1A1a1a1",
        "ann.lee@example.com",
        "ANN.LEE@EXAMPLE.COM",
        "Annabel Lee-Jones 9",
        "annabellee-jones9",
        "x" * 1025,
        "ü" * 513,
        "Surrogate 7 \ud800 aaaa",
    ],
)
def test_refuses(password: str) -> None:
    with pytest.raises(Invalid) as refused:
        passwords.check(password, about=ABOUT)
    assert [each["field"] for each in refused.value.errors] == ["password"]
    assert not password or password not in refused.value.message


def test_length_alone_may_be_asked_for() -> None:
    passwords.check("seven green kettles", about=ABOUT, length_only=True)
    for short in ("Kestrel7", "Kestrel weirs7"):
        with pytest.raises(Invalid, match="15"):
            passwords.check(short, about=ABOUT, length_only=True)
    with pytest.raises(Invalid):
        passwords.check("passwordpassword", about=ABOUT, length_only=True)


def test_the_longest_takes_no_time() -> None:
    started = time.process_time()
    passwords.check("Password2026" * 80, about=ABOUT)
    assert time.process_time() - started < 0.5


def test_names_the_field_it_is_told() -> None:
    with pytest.raises(Invalid) as refused:
        passwords.check("short", about=(), field="new_password")
    assert refused.value.errors[0]["field"] == "new_password"


def test_the_same_characters_are_the_same_bytes_however_they_are_composed() -> None:
    assert passwords.normalized("Cafe\u0301 12") == passwords.normalized("Caf\u00e9 12")


def test_nothing_longer_than_the_limit_is_hashed() -> None:
    with pytest.raises(Invalid):
        passwords.normalized("ﷺ" * 300)  # 3 bytes each, 33 once normalized


def test_knows_the_well_known() -> None:
    assert passwords.is_well_known("password123")
    assert not passwords.is_well_known("kestrel over the weir")
