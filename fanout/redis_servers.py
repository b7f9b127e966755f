"""Where Redis is: one server, one found through Sentinel, or a cluster.

| URL | what |
|---|---|
| `redis://host:6379/0`, `rediss://…` (TLS), `unix:///path` | one server |
| `redis+sentinel://host:26379,host2:26379/mymaster/0`, `rediss+sentinel://…` | the master that Sentinel names |
| `redis+cluster://host:6379,host2:6379`, `rediss+cluster://…` | a cluster, by some of its nodes |

User and password stand before the hosts, options of redis-py behind a `?`.
"""

from abc import ABC, abstractmethod
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError, SlotNotCoveredError

Address = str
"""Of one server, as the log shows it."""


class UnknownServer(RedisError):
    """Which server of a cluster has something is not known."""


class ConnectionTo(Protocol):
    """One connection, as far as it is used here."""

    async def connect(self) -> None:
        """Connect and introduce oneself."""
        ...

    async def disconnect(self, nowait: bool = False) -> None:
        """Close it."""
        ...

    async def send_command(self, *args: Any, check_health: bool = True) -> None:
        """Send one command."""
        ...

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send commands that are packed."""
        ...

    def pack_commands(self, commands: Any) -> Any:
        """Put commands into their wire form."""
        ...

    async def read_response(
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,
        *,
        disconnect_on_error: bool = True,
        push_request: bool | None = False,
    ) -> Any:
        """Read one answer; `timeout` math.inf waits for ever."""
        ...


class RedisServers(ABC):
    """The servers that a URL names. Nothing is connected before it is used."""

    clustered = False
    """Whether a command's keys must all be of one slot."""

    @property
    @abstractmethod
    def client(self) -> Redis:
        """For commands. It connects by itself and tries nothing twice."""

    @abstractmethod
    def address_of(self, channel: bytes) -> Address:
        """The server that a channel's messages go through.

        Raises:
            UnknownServer: it is not known at present.
        """

    @abstractmethod
    def connection(self, address: Address) -> ConnectionTo:
        """A new connection of the caller's own, not connected yet."""

    async def refresh(self) -> None:
        """Find out anew which server has what.

        Raises:
            RedisError: no server answers.
        """
        return

    @abstractmethod
    async def close(self) -> None:
        """Close the connections of `client`."""


def open_servers(url: str, *, timeout: float = 2.0) -> RedisServers:
    """The servers of a URL. `timeout`: seconds to wait for a connection or an answer.

    Raises:
        ValueError: no such URL.
    """
    scheme, _, rest = url.partition("://")
    transport, _, kind = scheme.partition("+")
    # RESP2, because every version of the server speaks it.
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
    }
    if transport == "unix" and not kind:
        return _OneServer(url, {k: v for k, v in options.items() if k != "socket_keepalive"})
    if transport not in {"redis", "rediss"}:
        raise ValueError(f"no URL of Redis: {scheme}://")
    if not kind:
        return _OneServer(url, options)
    login, at, where = rest.rpartition("@")
    hosts, slash, path = where.partition("/")
    parsed = [_host(each, 26379 if kind == "sentinel" else 6379) for each in hosts.split(",")]
    tail = slash + path
    if kind == "cluster":
        return _Cluster(f"{transport}://{login}{at}{hosts.split(',')[0]}{tail}", parsed, options)
    if kind == "sentinel":
        service, _, rest_of_path = path.partition("?")[0].partition("/")
        if not service:
            raise ValueError("the URL names no service: redis+sentinel://host:26379/mymaster")
        query = urlsplit(url).query
        plain = f"{transport}://{login}{at}sentinel/{rest_of_path}" + (f"?{query}" if query else "")
        return _Master(plain, parsed, unquote(service), options)
    raise ValueError(f"no URL of Redis: {scheme}://")


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    return parts.hostname, parts.port or default_port


class _OneServer(RedisServers):
    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._pool: ConnectionPool = ConnectionPool.from_url(url, **options)
        kwargs = self._pool.connection_kwargs
        self._address = str(kwargs.get("path") or f"{kwargs.get('host')}:{kwargs.get('port')}")
        self._client: Redis = Redis.from_pool(self._pool)

    @property
    def client(self) -> Redis:
        return self._client

    def address_of(self, channel: bytes) -> Address:
        return self._address

    def connection(self, address: Address) -> ConnectionTo:
        return cast("ConnectionTo", self._pool.connection_class(**self._pool.connection_kwargs))

    async def close(self) -> None:
        await self._client.aclose()


class _Master(RedisServers):
    """Each connection asks Sentinel for the master when it is made."""

    def __init__(
        self, url: str, sentinels: list[tuple[str, int]], service: str, options: dict[str, Any]
    ) -> None:
        parsed = dict(ConnectionPool.from_url(url, **options).connection_kwargs)
        for name in ("host", "port", "himport_registry"):
            parsed.pop(name, None)
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
            sentinels,
            sentinel_kwargs={k: v for k, v in options.items() if k.startswith("socket_")},
        )
        self._pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
            service, self._sentinel, ssl=url.startswith("rediss:"), **parsed
        )
        self._service = service
        self._client: Redis = Redis.from_pool(self._pool)

    @property
    def client(self) -> Redis:
        return self._client

    def address_of(self, channel: bytes) -> Address:
        return self._service

    def connection(self, address: Address) -> ConnectionTo:
        return cast("ConnectionTo", self._pool.connection_class(**self._pool.connection_kwargs))

    async def close(self) -> None:
        await self._client.aclose()
        await self._sentinel.aclose()


class _Cluster(RedisServers):
    clustered = True

    def __init__(self, url: str, nodes: list[tuple[str, int]], options: dict[str, Any]) -> None:
        self._cluster: Any = RedisCluster.from_url(
            url,
            startup_nodes=[ClusterNode(host, port) for host, port in nodes[1:]],
            retry=Retry(NoBackoff(), 1),
            **options,
        )

    @property
    def client(self) -> Redis:
        client: Redis = self._cluster
        return client

    def address_of(self, channel: bytes) -> Address:
        slot = self._cluster.keyslot(channel)
        try:
            return str(self._cluster.nodes_manager.get_node_from_slot(slot).name)
        except (KeyError, SlotNotCoveredError):
            raise UnknownServer(f"nobody is known to have slot {slot}") from None

    def connection(self, address: Address) -> ConnectionTo:
        node = self._cluster.get_node(node_name=address)
        if node is None:
            raise UnknownServer(f"{address} is no longer in the cluster")
        options = {**node.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
        return cast("ConnectionTo", node.connection_class(**options))

    async def refresh(self) -> None:
        try:
            await self._cluster.initialize()
            await self._cluster.nodes_manager.initialize()
        except RedisClusterException as error:
            # redis-py has it beside its tree of errors.
            raise UnknownServer(str(error)) from error

    async def close(self) -> None:
        await self._cluster.aclose()
