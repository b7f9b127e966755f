"""How settings are written: durations, sizes, rates, origins, networks.

Each type says with one `ValueError` what is expected, so that a message can be made of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_DURATIONS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZES = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
_NUMBER_UNIT = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)\Z", re.ASCII)
_RATE = re.compile(r"(\d{1,9})\s*/\s*(\d{0,6})\s*(s|m|h|d)\Z", re.ASCII)
_BUCKET = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*\Z")
_APP_SCHEME = (
    r"(?:capacitor|ionic|tauri|app|[a-z]+(?:-[a-z]+)*-extension|[a-z0-9-]+(?:\.[a-z0-9-]+)+)"
)
"""Of hybrid apps and browser extensions; apps of one's own are named like `com.example.app`."""
_ORIGIN = re.compile(
    rf"(?:https?|{_APP_SCHEME})://"
    r"(?:\*\.)?(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?:\d{1,5}|\*))?\Z"
)
_BASE_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+\Z")
_OWN = (
    "/api/v1",
    "/asyncapi.json",
    "/docs",
    "/health",
    "/metrics",
    "/openapi.json",
    "/socket.io",
)
_SOCKET_SCHEMES = {"ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def parse_duration(value: object) -> float:
    """Seconds of a number, or of a text such as `90`, `500ms`, `15m`, `7d`.

    Raises:
        ValueError: it is neither.
    """
    return _quantity(value, _DURATIONS, "s", "must be seconds or a duration such as 15m, 12h, 7d")


def parse_size(value: object) -> int:
    """Bytes of a number, or of a text such as `65536`, `64KiB`, `25MB`.

    Raises:
        ValueError: it is neither, or no whole number of bytes.
    """
    problem = "must be bytes or a size such as 64KiB, 25MiB, 1GB"
    size = _quantity(value, _SIZES, "B", problem, fold=str.upper)
    if size != int(size):
        raise ValueError(problem)
    return int(size)


def _quantity(
    value: object, units: Mapping[str, float], default: str, problem: str, fold: Any = str.lower
) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _NUMBER_UNIT.match(value.strip()) if isinstance(value, str) else None
    unit = units.get(fold(found[2] or default)) if found else None
    if found is None or unit is None:
        raise ValueError(problem)
    return float(found[1]) * unit


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as this: `15m`, `2d`, `500ms`."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _DURATIONS[unit] and seconds % _DURATIONS[unit] == 0:
            return f"{int(seconds / _DURATIONS[unit])}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0"


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads as this: `64KiB`, `1GiB`, `1000B`."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size}B"


@dataclass(frozen=True, slots=True)
class Seconds:
    """Annotates a `float` as a duration between two bounds, in seconds."""

    minimum: float
    maximum: float

    def parse(self, value: object) -> float:
        """Seconds within the bounds."""
        seconds = parse_duration(value)
        if not self.minimum <= seconds <= self.maximum:
            low, high = self.format(self.minimum), self.format(self.maximum)
            raise ValueError(f"must be between {low} and {high}")
        return seconds

    format = staticmethod(format_duration)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)


@dataclass(frozen=True, slots=True)
class Bytes:
    """Annotates an `int` as a size between two bounds, in bytes."""

    minimum: int
    maximum: int

    def parse(self, value: object) -> int:
        """Bytes within the bounds."""
        size = parse_size(value)
        if not self.minimum <= size <= self.maximum:
            low, high = self.format(self.minimum), self.format(self.maximum)
            raise ValueError(f"must be between {low} and {high}")
        return size

    format = staticmethod(format_size)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)


Rate = tuple[int, float]
"""So many requests in so many seconds; as many may come at once."""


def format_rate(rate: Rate) -> str:
    """The shortest text that `parse_rate` reads as this: `50/s`, `100/10m`."""
    limit, period = rate
    for unit in ("s", "m", "h", "d"):
        if period == _DURATIONS[unit]:
            return f"{limit}/{unit}"
    return f"{limit}/{format_duration(period)}"


def parse_rate(text: str) -> Rate:
    """A rate such as `50/s`, `10/m`, `100/10m`.

    Raises:
        ValueError: it is none.
    """
    found = _RATE.match(text.strip())
    if not found or int(found[1]) == 0 or found[2] == "0":
        raise ValueError(f"{text.strip()!r} is no rate such as 50/s, 10/m or 100/10m")
    return int(found[1]), int(found[2] or 1) * _DURATIONS[found[3]]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What differs from the limits declared with the commands."""

    enabled: bool = True
    """False: no bucket limits anything."""
    buckets: Mapping[str, Rate | None] = field(default_factory=dict)
    """By bucket; None: this bucket limits nothing."""

    @classmethod
    def parse(cls, value: object) -> "RateLimits":
        """Of `off`, or of `message.send=50/s,login=10/m,typing.start=off`.

        Raises:
            ValueError: a part that is no `bucket=rate`, or a bucket named twice.
        """
        if isinstance(value, RateLimits):
            return value
        if not isinstance(value, str):
            raise ValueError(
                "must be off or bucket=rate pairs such as message.send=50/s,login=10/m"
            )
        if value.strip().lower() == "off":
            return cls(enabled=False)
        buckets: dict[str, Rate | None] = {}
        for part in _parts(value):
            name, _, rate = (piece.strip() for piece in part.partition("="))
            if not _BUCKET.match(name) or not rate:
                raise ValueError(f"{part!r} is no bucket=rate pair such as message.send=50/s")
            if name in buckets:
                raise ValueError(f"{name} is given twice")
            buckets[name] = None if rate.lower() == "off" else parse_rate(rate)
        return cls(buckets=buckets)

    def __str__(self) -> str:
        if not self.enabled:
            return "off"
        return ",".join(
            f"{name}={format_rate(rate) if rate else 'off'}" for name, rate in self.buckets.items()
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse)


@dataclass(frozen=True, slots=True)
class Origins:
    """The browser origins that may use the server besides its own."""

    patterns: tuple[str, ...] = ()
    """Origins; `*` stands for all, for any port, or for the labels below a host."""

    @classmethod
    def parse(cls, value: object) -> "Origins":
        """Of a list separated by commas: `https://app.example.com,http://localhost:*`.

        Raises:
            ValueError: a part that is neither an origin (scheme, host, port) nor `*`.
        """
        if isinstance(value, Origins):
            return value
        if not isinstance(value, str):
            raise ValueError("must be a list of origins such as https://app.example.com")
        patterns = []
        for part in _parts(value):
            pattern = part.lower()
            if pattern != "*" and not _ORIGIN.match(pattern):
                raise ValueError(f"{part!r} is no origin such as https://app.example.com")
            patterns.append(_without_default_port(pattern))
        return cls(tuple(patterns))

    @property
    def any(self) -> bool:
        """Whether every origin is allowed."""
        return "*" in self.patterns

    def allows(self, origin: str) -> bool:
        """Whether an `Origin` header's value is among them. `null` never is, but by `*`."""
        return self.any or self.names(origin)

    def names(self, origin: str) -> bool:
        """As `allows`, without those that only `*` allows."""
        origin = _without_default_port(_of_page(origin.lower()))
        return any(_matches(origin, pattern) for pattern in self.patterns)

    def __str__(self) -> str:
        return ",".join(self.patterns)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse)


def _of_page(origin: str) -> str:
    """Some libraries name the address they connect to: `wss://` where a browser says `https://`."""
    scheme, separator, rest = origin.partition("://")
    return _SOCKET_SCHEMES.get(scheme, scheme) + separator + rest


def _without_default_port(origin: str) -> str:
    scheme, _, _ = origin.partition("://")
    return origin.removesuffix(_DEFAULT_PORTS.get(scheme, ""))


def _matches(origin: str, pattern: str) -> bool:
    if "*" not in pattern:
        return origin == pattern
    if pattern.endswith(":*"):
        head, colon, port = origin.rpartition(":")
        if not port.isdigit() or not colon:
            head = origin
        return _matches(head, pattern[:-2])
    scheme, _, suffix = pattern.partition("://*")
    prefix = f"{scheme}://"
    if not origin.startswith(prefix) or not origin.endswith(suffix):
        return False
    labels = origin[len(prefix) : len(origin) - len(suffix)]
    return re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", labels) is not None


Network = IPv4Network | IPv6Network


def parse_networks(value: object) -> tuple[Network, ...]:
    """Of a list of addresses or networks separated by commas: `10.0.0.0/8,127.0.0.1`.

    Raises:
        ValueError: a part that is neither.
    """
    if isinstance(value, tuple):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a list of addresses or networks such as 10.0.0.0/8,127.0.0.1")
    networks = []
    for part in _parts(value):
        try:
            networks.append(ip_network(part))
        except ValueError:
            raise ValueError(f"{part!r} is no address or network such as 10.0.0.0/8") from None
    return tuple(networks)


def parse_url(schemes: tuple[str, ...], value: object) -> str:
    """A URL with one of these schemes.

    Raises:
        ValueError: it is none. The message does not repeat it: it may hold a password.
    """
    expected = " or ".join(f"{scheme}://" for scheme in schemes)
    if not isinstance(value, str):
        raise ValueError(f"must be a URL that starts with {expected}")
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError(f"must be a URL that starts with {expected}") from None
    if parts.scheme not in schemes or any(c.isspace() for c in value):
        raise ValueError(f"must be a URL that starts with {expected}")
    return value


def parse_place(value: object) -> str:
    """`on`, `off`, or an address `HOST:PORT` (`[HOST]:PORT` of IPv6).

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, str) and (value in {"on", "off"} or address_of(value) is not None):
        return value
    raise ValueError("must be on, off, or an address such as 127.0.0.1:9100")


def parse_base_path(value: object) -> str:
    """A path such as `/chat` without a slash at its end; `/` is none.

    Raises:
        ValueError: it is no plain path, or one that could be taken for an address of the server's own.
    """
    path = value.rstrip("/") if isinstance(value, str) else None
    if path == "":
        return path
    if path is None or not _BASE_PATH.match(path):
        raise ValueError("must be a path such as /chat, of letters, digits, -, _, . and ~")
    if any(f"{own}/".startswith(f"{path}/") or f"{path}/".startswith(f"{own}/") for own in _OWN):
        raise ValueError(f"must not be {path}, which is an address of the server's own")
    return path


def address_of(place: str) -> tuple[str, int] | None:
    """Host and port of an address; None if it is none."""
    host, _, port = place.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    return host, int(port)


def redact_url(url: str) -> str:
    """The URL as it may be logged: without password and query."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    _, at, host = parts.netloc.rpartition("@")
    netloc = f"{parts.username or ''}:***@{host}" if at and parts.password else parts.netloc
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
