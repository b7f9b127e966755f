"""The clients connected to this node, by user and login session."""

from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any, Protocol

from domain.principals import Principal
from fanout.hub import Subscriber


class Outlet(Subscriber, Protocol):
    """The connection a client hears through; the transport's connection is one."""

    state: Any
    """The `Client` that hears through it."""

    @property
    def session_id(self) -> str:
        """Of the transport's session: the same for all namespaces that a peer opened over it."""
        ...

    @property
    def transport(self) -> str:
        """`websocket` or `polling`."""
        ...

    @property
    def remote(self) -> str:
        """The network address of the peer."""
        ...

    @property
    def user_agent(self) -> str:
        """What the peer says it is."""
        ...

    def emit(self, event: str, *args: Any) -> None:
        """Send one event to this connection alone."""
        ...

    def close(self, code: str, *, reconnect: bool) -> None:
        """Say `closing {code, reconnect}` and end the whole session of this connection."""
        ...


class Client:
    """One authenticated connection to one namespace."""

    __slots__ = (
        "declined",
        "id",
        "namespace",
        "on_close",
        "outlet",
        "principal",
        "ready",
        "streams",
    )

    def __init__(self, id: str, namespace: str, principal: Principal, outlet: Outlet) -> None:
        self.id = id
        self.namespace = namespace
        """Without slash, as in the names of streams."""
        self.principal = principal
        self.outlet = outlet
        self.streams: set[str] = set()
        """What it is subscribed to."""
        self.declined: Set[str] = frozenset()
        """What it asked not to be subscribed to."""
        self.ready = False
        """Whether it was told `ready`: what is told to a user's devices is not for it before."""
        self.on_close: list[Callable[[], None]] | None = None

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once when this connection has gone."""
        if self.on_close is None:
            self.on_close = []
        self.on_close.append(callback)

    def closed(self) -> None:
        """The connection has gone: call what was asked for, once."""
        callbacks, self.on_close = self.on_close, None
        for callback in callbacks or ():
            callback()


class Clients:
    """Finds connected clients."""

    def __init__(
        self,
        *,
        on_first: Callable[[str], None] = lambda _: None,
        on_last: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_first` is called with a user whose first client connects, `on_last` when the last
        one has gone.
        """
        self._by_user: dict[str, dict[Client, None]] = {}
        self._on_first = on_first
        self._on_last = on_last

    def add(self, client: Client) -> None:
        """A client connected."""
        user = client.principal.user
        mine = self._by_user.get(user)
        if mine is None:
            mine = self._by_user[user] = {}
            self._on_first(user)
        mine[client] = None

    def remove(self, client: Client) -> None:
        """A client has gone."""
        mine = self._by_user.get(client.principal.user)
        if mine is not None:
            mine.pop(client, None)
            if not mine:
                del self._by_user[client.principal.user]
                self._on_last(client.principal.user)

    def of_user(self, user: str, namespace: str | None = None) -> list[Client]:
        """A user's clients here, in one namespace or in all."""
        mine: Iterable[Client] = self._by_user.get(user, ())
        return [each for each in mine if namespace is None or each.namespace == namespace]

    def of_session(self, user: str, session: str) -> list[Client]:
        """The clients here that came with one login session."""
        return [each for each in self.of_user(user) if each.principal.session == session]

    def has(self, user: str, namespace: str) -> bool:
        """Whether the user has a client here in that namespace."""
        return any(each.namespace == namespace for each in self._by_user.get(user, ()))

    def __iter__(self) -> Iterator[Client]:
        for mine in list(self._by_user.values()):
            yield from list(mine)
