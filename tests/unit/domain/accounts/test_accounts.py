"""Rules of accounts."""

import pytest

from domain.accounts.accounts import (
    clean_avatar,
    clean_name,
    email_key,
    may_manage,
    network_of,
    normalize_email,
)
from domain.errors import Invalid
from domain.principals import Role


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ann@example.com", "ann@example.com"),
        ("  Ann.Lee+Parley@EXAMPLE.com ", "ann.lee+parley@example.com"),
        ("Ann@Bücher.example.org", "ann@bücher.example.org"),
        ("ann@xn--bcher-kva.example.org", "ann@bücher.example.org"),
        ("e\u0301va@example.com", "\u00e9va@example.com"),
        ("ops@mail.corp.local", "ops@mail.corp.local"),
        ("ann@company.test", "ann@company.test"),
    ],
)
def test_addresses_have_one_form(given: str, kept: str) -> None:
    assert normalize_email(given) == kept
    assert email_key(normalize_email(given)) == email_key(kept)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ann",
        "ann@",
        "@example.com",
        "ann@example",
        "a b@example.com",
        "ann@@example.com",
        "ann@exa mple.com",
        "ann@example..com",
        "<ann@example.com>",
        "Ann <ann@example.com>",
        "ann@[127.0.0.1]",
        "a" * 65 + "@example.com",
        "a@" + "b" * 250 + ".com",
        "ann\x00@example.com",
        "ann\ud800@example.com",
        "ann@example.com\nbcc: x@y.org",
    ],
)
def test_other_texts_are_no_addresses(given: str) -> None:
    with pytest.raises(Invalid) as refused:
        normalize_email(given)
    assert refused.value.errors[0]["field"] == "email"


def test_names() -> None:
    assert clean_name("  Ann \t  Lee ".replace("\t", "")) == "Ann Lee"
    for bad in ("", "   ", "x" * 101, "Ann\nLee", "Ann\x00", "\ud800"):
        with pytest.raises(Invalid):
            clean_name(bad)


def test_avatars_cannot_run() -> None:
    assert clean_avatar("https://example.com/a.png") == "https://example.com/a.png"
    assert clean_avatar("/api/v1/uploads/1") == "/api/v1/uploads/1"
    assert clean_avatar(None) is None
    assert clean_avatar("") is None
    for bad in (
        "javascript:alert(1)",
        "data:text/html,x",
        "//evil.example/x",
        "/\\evil.example/x",
        "https://e.com/ x",
        'https://e.com/"onload=',
        "https://e.com/" + "x" * 2048,
    ):
        with pytest.raises(Invalid):
            clean_avatar(bad)


def test_networks() -> None:
    assert network_of("192.0.2.7") == "192.0.2.7"
    assert (
        network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    )
    assert network_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("not an:address") == "not an:address"


def test_who_may_manage_whom() -> None:
    assert may_manage(Role.OWNER, Role.OWNER)
    assert may_manage(Role.ADMIN, Role.TECHNICIAN)
    assert not may_manage(Role.ADMIN, Role.ADMIN)
    assert not may_manage(Role.ADMIN, Role.OWNER)
    assert not may_manage(Role.MEMBER, Role.MEMBER)
