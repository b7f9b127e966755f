"""A binary packet whose attachments are still coming."""

import asyncio
from collections.abc import Callable

from server.transport.packets import Incoming, MalformedPacket, fill_attachments


class Assembly:
    """Collects the attachments of `packet`, at most `limit` bytes of them.

    `late` is called when `seconds` pass without the next one.
    """

    __slots__ = ("_attachments", "_late", "_limit", "_loop", "_seconds", "_timer", "packet", "size")

    def __init__(
        self,
        packet: Incoming,
        size: int,
        *,
        limit: int,
        seconds: float,
        late: Callable[[], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.packet = packet
        self.size = size
        """Bytes of the packet and of the attachments that have come."""
        self._attachments: list[bytes] = []
        self._limit = limit
        self._seconds = seconds
        self._late = late
        self._loop = loop
        self._timer = loop.call_later(seconds, late)

    def add(self, content: bytes) -> bool:
        """Take the next attachment; True when `packet` is whole.

        Raises MalformedPacket if they are too large or do not fit the packet's placeholders.
        """
        self._limit -= len(content)
        self.size += len(content)
        if self._limit < 0:
            raise MalformedPacket("attachments too large")
        self._attachments.append(content)
        self._timer.cancel()
        if len(self._attachments) < self.packet.attachments:
            self._timer = self._loop.call_later(self._seconds, self._late)
            return False
        fill_attachments(self.packet.data, self._attachments)
        return True

    def cancel(self) -> None:
        """They are not awaited any more."""
        self._timer.cancel()
