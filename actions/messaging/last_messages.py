"""The last message of each of many conversations, without reading all of them every time.

What is kept in memory is compared with where the conversation's stream stands, so it is right
whoever wrote last.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from domain.messaging.conversations import stream_of
from store.engine import Engine
from store.messaging.messages import MessageRepository

MAX_KEPT = 50_000
"""Conversations of which the last message's place is kept."""

READ_AT_ONCE = 100


class Last(NamedTuple):
    """Which message is a conversation's last."""

    id: str
    seq: int
    created_at: str


class LastMessages:
    """Knows the last message of conversations."""

    def __init__(self, engine: Engine, messages: MessageRepository) -> None:
        self._engine = engine
        self._messages = messages
        self._kept: OrderedDict[str, tuple[str, int, Last | None]] = OrderedDict()

    def note(self, conversation: str, epoch: str, last: Last) -> None:
        """A message was sent: the stream stands there now."""
        self._keep(conversation, epoch, last.seq, last)

    async def of(self, org: str, conversations: Sequence[str]) -> dict[str, Last]:
        """The last message of each conversation that has any."""
        heads = await self._engine.heads(org, [stream_of(each) for each in conversations])
        known: dict[str, Last] = {}
        unknown: list[str] = []
        for each in conversations:
            head = heads.get(stream_of(each))
            kept = self._kept.get(each)
            if head is None:
                continue
            if kept is None or kept[:2] != head[:2]:
                unknown.append(each)
            elif kept[2] is not None:
                known[each] = kept[2]
        for start in range(0, len(unknown), READ_AT_ONCE):
            batch = unknown[start : start + READ_AT_ONCE]
            found = await asyncio.gather(*(self._messages.newest(org, each) for each in batch))
            for each, doc in zip(batch, found, strict=True):
                last = Last(doc["id"], doc["seq"], doc["created_at"]) if doc else None
                # Kept for the place read before it: if it is newer, the next comparison fails.
                head = heads[stream_of(each)]
                self._keep(each, head.epoch, head.seq, last)
                if last is not None:
                    known[each] = last
        return known

    def _keep(self, conversation: str, epoch: str, seq: int, last: Last | None) -> None:
        self._kept[conversation] = (epoch, seq, last)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
