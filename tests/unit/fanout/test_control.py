"""Orders to all nodes: what becomes of those that are lost or come twice."""

import orjson
import pytest

from fanout.control import Control
from tests.support.bus import LossyBus, Wire


async def test_lost_orders_are_noticed_and_those_that_come_twice_are_not_taken_for_them() -> None:
    control = Control(LossyBus(Wire()))
    done: list[int] = []
    control.on("do", lambda order: done.append(order["what"]))

    def order(number: int) -> None:
        told = {"node": "n", "number": number, "topic": "do", "order": {"what": number}}
        control.receive(orjson.dumps(told))

    for number in (1, 2, 2, 1, 3):
        order(number)
    control.receive(orjson.dumps({"node": "n", "number": 3}))
    assert control.missed == 0
    order(5)
    assert control.missed == 1
    control.receive(orjson.dumps({"node": "n", "number": 6}))
    assert control.missed == 2
    with pytest.raises(ValueError, match="no order"):
        control.receive(b'{"topic":"do"}')
    assert done == [1, 2, 2, 1, 3, 5]
