"""What happens on other nodes, for the features that keep something in memory of it.

Events of streams come here with the streams themselves, to whoever observes them; what only
concerns one user goes to the nodes where that user has a connection.
"""

from typing import Any

from actions.messaging.receipts import Receipts
from actions.messaging.unread import Unread
from domain.events import Actor
from domain.messaging.conversations import Kind
from domain.messaging.receipts import Position
from fanout.user_control import UserControl

_MOVED = "receipt.moved"


class Elsewhere:
    """Tells other nodes, and hears from them."""

    def __init__(self, control: UserControl, unread: Unread, receipts: Receipts) -> None:
        self._control = control
        self._unread = unread
        self._receipts = receipts
        receipts.on_moved.append(self._tell_moved)
        control.on(_MOVED, self._heard_moved)
        control.on_missed.append(unread.recount_of)

    def _tell_moved(self, org: str, position: Position, kind: Kind) -> None:
        self._control.tell_others(
            position["user"], _MOVED, org=org, position=position, kind=kind.value
        )

    def _heard_moved(self, user: str, order: dict[str, Any]) -> None:
        position: Position = order["position"]
        self._receipts.moved_elsewhere(position, Kind(order["kind"]), Actor(user))
        self._unread.read(order["org"], user, position["conversation"], position["read_seq"])
