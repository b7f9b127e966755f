"""What waits for one session that cannot be written to at once."""

from collections import OrderedDict

from domain.delivery import Delivery
from fanout.hub import Outgoing


class Outbox:
    """A queue in order of sending, with the three delivery classes; its owner bounds its size."""

    __slots__ = ("_items", "_latest", "_number", "size")

    def __init__(self) -> None:
        self._items: OrderedDict[int, Outgoing] = OrderedDict()
        self._latest: dict[tuple[str, ...], int] = {}
        self._number = 0
        self.size = 0
        """Bytes waiting."""

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, event: Outgoing, *, pressure: bool) -> Delivery | None:
        """Queue an event, last in order.

        Under pressure a VOLATILE event is not taken, and of LATEST ones with the same key only
        the newest stays. Returns the class of which one event was lost by that, or None.
        """
        if pressure and event.delivery is Delivery.VOLATILE:
            return Delivery.VOLATILE
        lost = None
        self._number += 1
        if event.key is not None:
            older = self._latest.get(event.key)
            if pressure and older is not None:
                self.size -= len(self._items.pop(older).data)
                lost = Delivery.LATEST
            self._latest[event.key] = self._number
        self._items[self._number] = event
        self.size += len(event.data)
        return lost

    def take(self, limit: int) -> list[bytes]:
        """Take from the front until `limit` bytes are reached; at least one if there is any."""
        taken: list[bytes] = []
        while self._items:
            number, event = self._items.popitem(last=False)
            if taken and len(event.data) > limit:
                self._items[number] = event
                self._items.move_to_end(number, last=False)
                break
            limit -= len(event.data)
            self.size -= len(event.data)
            if event.key is not None and self._latest.get(event.key) == number:
                del self._latest[event.key]
            taken.append(event.data)
        return taken

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self._latest.clear()
        self.size = 0
