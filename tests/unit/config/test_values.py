import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.values import (
    Bytes,
    Origins,
    RateLimits,
    Seconds,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_networks,
    parse_place,
    parse_rate,
    parse_size,
    parse_url,
    redact_url,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("15m", 900),
        ("12 h", 43200),
        ("7d", 604800),
        ("2W", 1209600),
        (30, 30),
    ],
)
def test_duration(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1y", "-5", "1h30m", "1e3", "٣", None, True, "nan"])
def test_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration such as"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65536), ("64KiB", 65536), ("1kb", 1000), ("25 MB", 25_000_000), ("1.5KiB", 1536)],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "1.5", "1X", "-1", "0x10", None])
def test_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="size such as"):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_what_is_shown_can_be_written(number: int) -> None:
    assert parse_size(format_size(number)) == number
    assert parse_duration(format_duration(number)) == number


def test_bounds_are_shown_in_units() -> None:
    with pytest.raises(ValueError, match="between 1KiB and 1MiB"):
        Bytes(1024, 1 << 20).parse("1000")
    with pytest.raises(ValueError, match="between 500ms and 1h"):
        Seconds(0.5, 3600).parse("2h")


@pytest.mark.parametrize(
    ("text", "rate"),
    [("50/s", (50, 1)), ("10 / m", (10, 60)), ("100/10m", (100, 600))],
)
def test_rate(text: str, rate: tuple[int, float]) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize("text", ["", "50", "0/s", "5/0s", "-1/s", "5/s/s", "1.5/s"])
def test_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        parse_rate(text)


def test_rate_limits() -> None:
    limits = RateLimits.parse("message.send=50/s, login=10/m,typing=off,")
    assert limits.enabled
    assert limits.buckets == {"message.send": (50, 1), "login": (10, 60), "typing": None}
    assert RateLimits.parse(str(limits)) == limits
    assert RateLimits.parse("OFF") == RateLimits(enabled=False)


@pytest.mark.parametrize("text", ["fast", "login", "login=", "=5/s", "Log in=5/s", "a=1/s,a=2/s"])
def test_no_rate_limits(text: str) -> None:
    with pytest.raises(ValueError, match=r"pair|twice"):
        RateLimits.parse(text)


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://App.example.com:443", "https://app.EXAMPLE.com"),
        ("http://localhost:*", "http://localhost:5173"),
        ("http://localhost:*", "http://localhost"),
        ("http://[::1]:*", "http://[::1]:3000"),
        ("https://*.example.com", "https://a.b.example.com"),
        ("https://*.example.com:*", "https://a.example.com:8443"),
        ("*", "null"),
        ("https://app.example.com", "wss://app.example.com"),
        ("http://localhost:*", "ws://localhost:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://localhost,tauri://localhost", "tauri://localhost"),
        ("app://localhost", "app://localhost"),
        ("chrome-extension://abcdefghij", "chrome-extension://abcdefghij"),
        ("moz-extension://0a1b-2c3d", "moz-extension://0a1b-2c3d"),
        ("com.example.app://localhost", "com.example.app://localhost"),
        ("https://a.example,https://b.example", "https://b.example"),
    ],
)
def test_origin_allowed(allowed: str, origin: str) -> None:
    assert Origins.parse(allowed).allows(origin)


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("", "https://app.example.com"),
        ("https://app.example.com", "http://app.example.com"),
        ("https://app.example.com", "https://app.example.com:8443"),
        ("https://app.example.com", "https://app.example.com.evil.example"),
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://evilexample.com"),
        ("https://*.example.com", "https://evil.example/?.example.com"),
        ("https://*.example.com", "https://user@evil.example#.example.com"),
        ("http://localhost:*", "http://localhost.evil.example"),
        ("http://localhost:*", "http://localhost:80@evil.example"),
        ("https://*.example.com", "https://a.example.com.evil.example"),
        ("https://*.example.com", "https://.example.com"),
        ("https://app.example.com", "ws://app.example.com"),
        ("http://localhost:*", "capacitor://localhost"),
        ("capacitor://localhost", "http://localhost"),
        ("capacitor://localhost", "capacitor://localhost.evil.example"),
        ("chrome-extension://abc", "chrome-extension://abcd"),
        ("https://app.example.com", "null"),
        ("https://app.example.com", ""),
    ],
)
def test_origin_refused(allowed: str, origin: str) -> None:
    assert not Origins.parse(allowed).allows(origin)


@pytest.mark.parametrize(
    "text", ["app.example.com", "https://app.example.com/", "ftp://a.example", "https://a.*.com"]
)
def test_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        Origins.parse(text)


def test_networks() -> None:
    networks = parse_networks("10.0.0.0/8, 127.0.0.1,::1")
    assert [str(network) for network in networks] == ["10.0.0.0/8", "127.0.0.1/32", "::1/128"]
    with pytest.raises(ValueError, match=r"'proxy\.local' is no address"):
        parse_networks("10.0.0.0/8,proxy.local")


def test_a_url_and_its_password_stay_out_of_messages() -> None:
    with pytest.raises(ValueError, match="redis://") as caught:
        parse_url(("redis",), "http://user:hunter22@host")
    assert "hunter22" not in str(caught.value)
    assert (
        redact_url("redis://user:hunter22@host:6379/0?password=x") == "redis://user:***@host:6379/0"
    )
    assert redact_url("sqlite:///data/parley.db") == "sqlite:///data/parley.db"


@pytest.mark.parametrize("place", ["on", "off", "127.0.0.1:9100", "[::1]:9100", "localhost:1"])
def test_places(place: str) -> None:
    assert parse_place(place) == place


@pytest.mark.parametrize(
    "place", ["", "yes", "9100", ":9100", "::1:9100", "a:0", "a:65536", "a:²", 5]
)
def test_what_is_no_place(place: object) -> None:
    with pytest.raises(ValueError, match="must be on, off, or an address"):
        parse_place(place)
