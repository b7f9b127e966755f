"""A binary packet whose attachments are still coming."""

import asyncio
from collections.abc import Callable

from server.transport.packets import Incoming, MalformedPacket, fill_attachments


class Assembly:
    """Collects the attachments of `packet`, at most `limit` bytes of them. Beyond that, or if the
    packet has a fault, they are awaited and not kept.

    `late` is called when `seconds` pass without the next one.
    """

    __slots__ = (
        "_attachments",
        "_awaited",
        "_late",
        "_limit",
        "_loop",
        "_seconds",
        "_timer",
        "packet",
        "size",
    )

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
        self._awaited = packet.attachments
        self._limit = limit
        self._seconds = seconds
        self._late = late
        self._loop = loop
        self._timer = loop.call_later(seconds, late)

    def add(self, content: bytes) -> bool:
        """Take the next attachment; True when `packet` is whole. If they are not those that its
        placeholders name, it has a fault.
        """
        self._limit -= len(content)
        if self._limit < 0:
            return self.pass_over()
        if not self.packet.fault:
            self.size += len(content)
            self._attachments.append(content)
        return self._count()

    def pass_over(self, fault: str = "too_large") -> bool:
        """Go without the next attachment, for a fault; True when there is no more."""
        self._attachments.clear()
        if not self.packet.fault:
            self.packet = self.packet._replace(data=None, fault=fault)
        return self._count()

    def _count(self) -> bool:
        self._awaited -= 1
        self._timer.cancel()
        if self._awaited > 0:
            self._timer = self._loop.call_later(self._seconds, self._late)
            return False
        if not self.packet.fault:
            try:
                fill_attachments(self.packet.data, self._attachments)
            except MalformedPacket:
                self.packet = self.packet._replace(data=None, fault="invalid")
        return True

    def cancel(self) -> None:
        """They are not awaited any more."""
        self._timer.cancel()
