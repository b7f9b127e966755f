"""What a user has deleted for this user alone, in what this user is told from the log.

An event keeps its place, so that nobody misses a seq, but not its content: it is told as the
message's deletion.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from domain.events import StoredEvent
from domain.messaging.conversations import NAMESPACE
from domain.messaging.messages import CARRIERS, MESSAGE_DELETED, MessageDeleted
from domain.principals import Principal
from store.gathered import Gathered
from store.messaging.messages import MessageRepository

ASKED_TOGETHER = 1000
"""Users who come at the same moment, asked about in one go."""

_PREFIX = f"{NAMESPACE}/"

Missed = Mapping[str, Sequence[StoredEvent]]
"""Events by stream."""


class Veil:
    """Takes away what its reader has deleted."""

    def __init__(self, messages: MessageRepository) -> None:
        self._messages = messages
        self._hiders: Gathered[str, bool] = Gathered(messages.hiders, ASKED_TOGETHER)

    async def drawn(self, principal: Principal, missed: Missed) -> Missed:
        """Those of the streams of which the caller is told something otherwise than others are."""
        rooms = [
            stream
            for stream, events in missed.items()
            if stream.startswith(_PREFIX) and any(event.type in CARRIERS for event in events)
        ]
        org, user = principal.org, principal.user
        if not rooms or not await self._hiders.get(org, [user]):
            return {}
        carried: dict[tuple[str, int], Any] = {
            (stream, event.seq): event.content()
            for stream in rooms
            for event in missed[stream]
            if event.type in CARRIERS
        }
        ids = dict.fromkeys(message["id"] for message in carried.values())
        hidden = await self._messages.hidden(org, ids, user)
        told: dict[str, Sequence[StoredEvent]] = {}
        for stream in rooms if hidden else ():
            told[stream] = [
                _told(event, carried.get((stream, event.seq)), hidden) for event in missed[stream]
            ]
        return told


def _told(event: StoredEvent, message: Any, hidden: Collection[str]) -> StoredEvent:
    if message is None or message["id"] not in hidden:
        return event
    return _deletion(event, message)


def as_deleted(event: StoredEvent) -> StoredEvent:
    """What those are told of an event that carries a message who have deleted that."""
    return _deletion(event, event.content())


def _deletion(event: StoredEvent, message: Any) -> StoredEvent:
    data: MessageDeleted = {
        "id": message["id"],
        "conversation": message["conversation"],
        "seq": message["seq"],
    }
    return StoredEvent(
        event.stream,
        event.epoch,
        event.seq,
        MESSAGE_DELETED.name,
        event.at,
        event.actor,
        orjson.dumps(data),
    )
