"""The parts of a URL that may name several hosts, and the options behind its `?`."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url

SENTINEL = "sentinel_"
"""Begins the options that are for Sentinels alone."""

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """`scheme+kind://user:password@host:port,host:port/path?options`."""

    tls: bool
    kind: str
    """`cluster` or `sentinel`."""
    hosts: tuple[Host, ...]
    path: tuple[str, ...]
    options: dict[str, Any]
    """For connections to servers, user and password among them."""
    sentinel_options: dict[str, Any]
    """For connections to Sentinels."""


def split(url: str) -> RedisUrl:
    """The parts of a URL of a cluster or of Sentinels.

    Raises:
        ValueError: it is none, or names an option that there is not.
    """
    scheme, _, rest = url.partition("://")
    transport, _, kind = scheme.partition("+")
    if transport not in {"redis", "rediss"} or kind not in {"cluster", "sentinel"}:
        raise ValueError(f"no URL of Redis: {scheme}://")
    # Values of options have slashes (paths of files) and may have `@`: they go first.
    rest, _, query = rest.partition("?")
    login, _, where = rest.rpartition("@")
    hosts, _, path = where.partition("/")
    default_port = 26379 if kind == "sentinel" else 6379
    options: dict[str, Any] = dict(parse_url(f"redis://?{query}"))
    user, _, password = login.partition(":")
    options |= {"username": unquote(user)} if user else {}
    options |= {"password": unquote(password)} if password else {}
    mine = _take_sentinel_options(options)
    if mine and kind != "sentinel":
        raise ValueError(f"the URL has options of Sentinel: {', '.join(sorted(mine))}")
    return RedisUrl(
        tls=transport == "rediss",
        kind=kind,
        hosts=tuple(_host(each, default_port) for each in hosts.split(",")),
        path=tuple(unquote(part) for part in path.split("/") if part),
        options=options,
        sentinel_options=mine,
    )


def _take_sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    names = [name for name in options if name.startswith(SENTINEL)]
    query = {name.removeprefix(SENTINEL): options.pop(name) for name in names}
    # Of the same types as the servers' options; redis-py knows them by their own names alone.
    typed: dict[str, Any] = {}
    for name, value in query.items():
        typed |= parse_url("redis://?" + _pair(name, str(value)))
    return typed


def _pair(name: str, value: str) -> str:
    escaped = "".join(f"%{byte:02X}" for byte in value.encode())
    return f"{name}={escaped}"


def _host(text: str, default_port: int) -> Host:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    return parts.hostname, parts.port or default_port


def number_of_database(url: RedisUrl, place: int) -> int:
    """The database, as the path or the option `db` says; 0 if neither does.

    Raises:
        ValueError: it is no number, or the path has more than it should.
    """
    if len(url.path) > place + 1:
        raise ValueError(f"the URL's path has too much: /{'/'.join(url.path[place + 1 :])}")
    if len(url.path) == place or "db" in url.options:
        return int(url.options.get("db", 0))
    if not url.path[place].isdecimal():
        raise ValueError(f"the URL's database is no number: {url.path[place]}")
    return int(url.path[place])


def check_options(options: Iterable[str], taker: type, *, tls: bool) -> None:
    """Options that nobody takes would be met only when a connection is made, if at all.

    Args:
        taker: what is constructed with them: a client, or a kind of connection.

    Raises:
        ValueError: there is one; its text names it, and no value.
    """
    taken = {"max_connections"}  # a pool's
    for each in taker.__mro__:
        taken.update(inspect.signature(each).parameters)
    unknown = sorted(set(options) - taken)
    needs_tls = [] if tls else sorted(name for name in options if name.startswith("ssl_"))
    if needs_tls:
        raise ValueError(f"the URL has options of TLS without TLS (rediss): {', '.join(needs_tls)}")
    if unknown:
        raise ValueError(f"the URL has unknown options: {', '.join(unknown)}")


def class_of(*, tls: bool) -> type[AbstractConnection]:
    """Of connections over TCP."""
    return SSLConnection if tls else Connection
