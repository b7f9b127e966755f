"""Where Redis is: one server, one found through Sentinel, or a cluster.

| URL | what |
|---|---|
| `redis://host:6379/0`, `rediss://…` (TLS), `unix:///path` | one server |
| `redis+sentinel://host:26379,host2:26379/mymaster/0`, `rediss+sentinel://…` | the master that Sentinel names |
| `redis+cluster://host:6379,host2:6379`, `rediss+cluster://…` | a cluster, by some of its nodes |

User and password stand before the hosts, options of redis-py behind a `?`, whichever the form. Those
that begin with `sentinel_` are for the Sentinels: `sentinel_password`, `sentinel_ssl=true`, ….
"""

from abc import ABC, abstractmethod
from typing import Any, Protocol, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError, SlotNotCoveredError

from fanout.redis.sentinels import Sentinels
from fanout.redis.url import RedisUrl, check_options, class_of, number_of_database, split

Address = str
"""Of one server, as the log shows it."""


AWAY = (RedisError, RedisClusterException, OSError, TimeoutError, AttributeError)
"""What a command of `RedisServers.client` raises while Redis is away. AttributeError: redis-py closes
the connections of a cluster that it looks at anew, those just being made too, and one of those then
writes to what is None.
"""


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
    scheme, _, _ = url.partition("://")
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
    if transport in {"redis", "rediss"} and not kind:
        return _OneServer(url, options)
    parts = split(url)
    return _Cluster(parts, options) if parts.kind == "cluster" else _Master(parts, options)


class _OneServer(RedisServers):
    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._pool: ConnectionPool = ConnectionPool.from_url(url, **options)
        kwargs = self._pool.connection_kwargs
        tls = issubclass(self._pool.connection_class, SSLConnection)
        check_options(kwargs, self._pool.connection_class, tls=tls)
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

    def __init__(self, url: RedisUrl, options: dict[str, Any]) -> None:
        if not url.path:
            raise ValueError("the URL names no service: redis+sentinel://host:26379/mymaster")
        service = url.path[0]
        kwargs = {**options, **url.options, "db": number_of_database(url, 1)}
        check_options(kwargs, class_of(tls=url.tls), tls=url.tls)
        self._sentinels = Sentinels(
            list(url.hosts), options["socket_timeout"], _for_sentinels(url, options)
        )
        self._pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
            service, self._sentinels, ssl=url.tls, **kwargs
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
        await self._sentinels.aclose()


def _for_sentinels(url: RedisUrl, options: dict[str, Any]) -> dict[str, Any]:
    """What connections to Sentinels are made with: their own user and password, the servers' TLS and
    timeouts unless they have their own.
    """
    own = dict(url.sentinel_options)
    tls = _switch("sentinel_ssl", own.pop("ssl", url.tls))
    shared = {
        k: v
        for k, v in url.options.items()
        if k.startswith("socket_") or (tls and k.startswith("ssl_"))
    }
    kwargs = {**options, **shared, **own}
    check_options(kwargs, Redis, tls=tls)
    # Asked once: whoever wants a connection asks again by itself.
    return {**kwargs, "ssl": tls, "retry": Retry(NoBackoff(), 0)}


def _switch(name: str, value: object) -> bool:
    text = str(value).lower()
    if text not in {"true", "yes", "1", "false", "no", "0"}:
        raise ValueError(f"the URL's option {name} is true or false")
    return text in {"true", "yes", "1"}


class _Cluster(RedisServers):
    clustered = True

    def __init__(self, url: RedisUrl, options: dict[str, Any]) -> None:
        if number_of_database(url, 0) != 0:
            raise ValueError("a cluster has the database 0 only")
        kwargs = {**options, **{k: v for k, v in url.options.items() if k != "db"}}
        for name in {"require_full_coverage", "dynamic_startup_nodes"} & kwargs.keys():
            kwargs[name] = _switch(name, kwargs[name])
        check_options(kwargs, RedisCluster, tls=url.tls)
        self._cluster: Any = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in url.hosts],
            retry=Retry(NoBackoff(), 1),
            ssl=url.tls,
            **kwargs,
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
