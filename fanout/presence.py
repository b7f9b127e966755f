"""Who is connected, on whichever node: the registry of devices."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from domain.presence.presence import Device

CHANNELS = "presence:"
"""What channels of the bus begin with that belong to the registry."""

QUESTION = b'{"followers":'
"""What a message begins with that asks in the room of a stream who follows it."""

Changed = Callable[[str, str], None]
"""(org, user): something about the presence of a watched user may have changed."""

Here = Callable[[str], Iterable[str]]
"""(stream) -> the users who are connected to this node and follow the stream, each once."""


class Lost(NamedTuple):
    """A user whose last devices were on a node that died."""

    org: str
    user: str
    at: str
    """When that node was last heard of."""


class PresenceRegistry(Protocol):
    """The devices of all users on all nodes.

    What a node tells takes effect there at once and on other nodes soon. A node's devices count as
    long as its lease, which it renews; when it dies, another node sweeps them away.
    """

    def start(self, changed: Changed, here: Here) -> None:
        """Name what is called when a watched user changes, and who follows a stream here."""
        ...

    def put(self, org: str, user: str, device: Device) -> None:
        """A device connected to this node is new or has changed. Never blocks."""
        ...

    def remove(self, org: str, user: str, device: str) -> None:
        """A device is no longer connected to this node. Never blocks."""
        ...

    def touch(self, org: str, user: str) -> None:
        """Something that is stored about a user's presence has changed: tell all nodes that watch
        this user. Never blocks.
        """
        ...

    def watch(self, org: str, user: str) -> None:
        """Call `changed` for this user from now on, whichever node the change comes from."""
        ...

    def unwatch(self, org: str, user: str) -> None:
        """Do so no longer."""
        ...

    async def devices(self, org: str, users: Sequence[str]) -> dict[str, Sequence[Device]]:
        """The devices of users, on all nodes; users without any are left out."""
        ...

    async def following(self, stream: str) -> set[str]:
        """The users who are connected and follow a stream, on all nodes."""
        ...

    async def renew(self) -> None:
        """Renew this node's lease. To be called every 5 seconds or so.

        Raises:
            Unavailable: what the nodes share is out of reach.
        """
        ...

    async def sweep(self) -> Sequence[Lost]:
        """Remove the devices of nodes whose lease has run out. Returns the users who are gone
        with them, each to one caller only.

        Raises:
            Unavailable: what the nodes share is out of reach.
        """
        ...

    async def leave(self, linger: float) -> None:
        """This node ends: what it has told counts for so many seconds more, then its devices are
        swept away by another node. Takes a bounded time, and calls nothing afterwards.
        """
        ...

    def receive(self, channel: str, message: bytes) -> None:
        """Take what another node published to a channel that begins with `CHANNELS`, or what any
        node, this one too, published to that of a stream and begins with `QUESTION`.

        Raises:
            ValueError: it is nothing that is known.
        """
        ...

    def joined(self, channels: Collection[str]) -> None:
        """Channels, of which those that begin with `CHANNELS` matter, are heard from now on."""
        ...


class LocalPresenceRegistry:
    """The registry of a single node: all devices are here."""

    def __init__(self) -> None:
        self._devices: dict[tuple[str, str], tuple[Device, ...]] = {}
        self._watched: set[tuple[str, str]] = set()
        self._changed: Changed = lambda _org, _user: None
        self._here: Here = lambda _stream: ()

    def start(self, changed: Changed, here: Here) -> None:
        """Name what is called."""
        self._changed = changed
        self._here = here

    def put(self, org: str, user: str, device: Device) -> None:
        """Keep a device in place of the one with its id."""
        others = self._devices.get((org, user), ())
        kept = tuple(each for each in others if each.id != device.id)
        self._devices[org, user] = (*kept, device)
        self.touch(org, user)

    def remove(self, org: str, user: str, device: str) -> None:
        """Forget a device."""
        kept = tuple(each for each in self._devices.get((org, user), ()) if each.id != device)
        if kept:
            self._devices[org, user] = kept
        else:
            self._devices.pop((org, user), None)
        self.touch(org, user)

    def touch(self, org: str, user: str) -> None:
        """Tell of a change, if it is wanted."""
        if (org, user) in self._watched:
            self._changed(org, user)

    def watch(self, org: str, user: str) -> None:
        """Tell of this user."""
        self._watched.add((org, user))

    def unwatch(self, org: str, user: str) -> None:
        """Tell of this user no longer."""
        self._watched.discard((org, user))

    async def devices(self, org: str, users: Sequence[str]) -> dict[str, Sequence[Device]]:
        """What is here."""
        return {user: self._devices[org, user] for user in users if (org, user) in self._devices}

    async def following(self, stream: str) -> set[str]:
        """Who is here."""
        return set(self._here(stream))

    async def renew(self) -> None:
        """Nobody else asks whether this node lives."""

    async def sweep(self) -> Sequence[Lost]:
        """There is no other node that could have died."""
        return ()

    async def leave(self, linger: float) -> None:
        """Nobody is left who could see the devices."""
        self._changed = lambda _org, _user: None
        self._devices.clear()

    def receive(self, channel: str, message: bytes) -> None:
        """There is no other node."""

    def joined(self, channels: Collection[str]) -> None:
        """There is no other node."""
