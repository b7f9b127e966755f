"""Presence: who is there, on how many devices, and what each user wants others to see of it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import with_config
from typing_extensions import TypedDict

from domain.delivery import Delivery
from domain.events import EventType

NAMESPACE = "presence"

MAX_TEXT = 200
"""Characters of a status text."""

MAX_WATCHED = 1000
"""Users one connection may watch."""

LINGER = 15.0
"""Seconds after the last connection went until the user is offline: a reconnect within them is
seen by nobody."""

SEEN_EVERY = 300.0
"""Seconds after which `last_seen` of connected users is stored again, so that it is at most so
much behind after a crash."""

ChosenStatus = Literal["online", "away", "busy", "invisible"]
SeenStatus = Literal["online", "away", "busy", "offline"]


@with_config(extra="forbid")
class Presence(TypedDict):
    """What one user may know of another, or of oneself."""

    user: str
    status: Literal["online", "away", "busy", "offline", "invisible"]
    """`invisible` is seen by the user alone; to others it is `offline`."""
    text: str | None
    """What the user says about it; null when offline."""
    last_seen: str | None
    """When the user was last connected; null while the user is, and if there never was a time."""
    devices: int
    """Sessions the user is connected with."""


PRESENCE_CHANGED = EventType(
    "presence.changed",
    NAMESPACE,
    Delivery.LATEST,
    Presence,
    "A watched user's presence has changed.",
)

EVENTS: tuple[EventType, ...] = (PRESENCE_CHANGED,)


class Device(NamedTuple):
    """One session of a user, whichever namespaces it has connected to."""

    id: str
    """Of the transport's session."""
    login: str
    """The login session it came with."""
    since: str
    """When it came."""
    alone: bool
    """Whether the user had no other device connected then."""
    status: ChosenStatus | None = None
    """What was chosen on it; None if nothing was, or the user chose to be invisible."""
    idle: bool = False
    gone: bool = False
    """Its last connection went; it counts for a while as if it were there, unless another is."""


class Profile(NamedTuple):
    """What a user has chosen last, and when; kept over connections."""

    status: ChosenStatus = "online"
    text: str | None = None
    at: str = ""


_RANK: dict[SeenStatus, int] = {"offline": 0, "away": 1, "online": 2, "busy": 3}


def device_status(device: Device, profile: Profile) -> SeenStatus:
    """What one device says of its user.

    A device that came after the choice takes it over: `busy` in any case, `away` only if it was
    the first one to come back, because it is about the device that was left.
    """
    chosen = device.status
    if chosen is None and device.since > profile.at:
        takes_over = profile.status == "busy" or (profile.status == "away" and device.alone)
        chosen = profile.status if takes_over else None
    if chosen == "busy":
        return "busy"
    return "away" if device.idle or chosen == "away" else "online"


def merge(devices: Sequence[Device], profile: Profile) -> tuple[SeenStatus, int]:
    """What all devices together say, and how many count: busy over online over away. Being
    invisible is not looked at here.
    """
    counting = [each for each in devices if not each.gone]
    if not counting:
        # Of those that have gone and may come back, the last to have come.
        counting = sorted(devices, key=lambda each: each.since)[-1:]
    if not counting:
        return "offline", 0
    return (
        max((device_status(each, profile) for each in counting), key=_RANK.__getitem__),
        len(counting),
    )


def as_others_see(
    user: str, devices: Sequence[Device], profile: Profile, seen: str | None
) -> Presence:
    """A user's presence as it is shown to others. `seen` is the stored `last_seen`."""
    status, count = merge(devices, profile)
    if status == "offline" or profile.status == "invisible":
        return hidden(user, seen)
    return {
        "user": user,
        "status": status,
        "text": profile.text,
        "last_seen": None,
        "devices": count,
    }


def as_oneself_sees(
    user: str, devices: Sequence[Device], profile: Profile, seen: str | None
) -> Presence:
    """A user's presence as it is shown to this user."""
    status, count = merge(devices, profile)
    if status == "offline":
        return hidden(user, seen)
    return {
        "user": user,
        "status": "invisible" if profile.status == "invisible" else status,
        "text": profile.text,
        "last_seen": None,
        "devices": count,
    }


def hidden(user: str, seen: str | None = None) -> Presence:
    """The presence of somebody who is not there; and, without `seen`, of somebody of whom the
    viewer may know nothing.
    """
    return {"user": user, "status": "offline", "text": None, "last_seen": seen, "devices": 0}
