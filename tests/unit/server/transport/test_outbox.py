"""The queue of one slow session."""

from domain.delivery import Delivery
from fanout.hub import Outgoing
from server.transport.outbox import Outbox


def durable(data: bytes) -> Outgoing:
    return Outgoing(data, Delivery.DURABLE, None)


def latest(data: bytes, key: str = "k") -> Outgoing:
    return Outgoing(data, Delivery.LATEST, ("room", "event", key))


def volatile(data: bytes) -> Outgoing:
    return Outgoing(data, Delivery.VOLATILE, None)


def test_without_pressure_everything_is_kept_in_order() -> None:
    box = Outbox()
    for event in [latest(b"1"), volatile(b"2"), latest(b"3"), durable(b"4")]:
        assert box.put(event, pressure=False) is None
    assert box.size == 4
    assert box.take(100) == [b"1", b"2", b"3", b"4"]
    assert box.size == 0
    assert not box


def test_under_pressure_volatile_is_lost_and_only_the_newest_value_stays() -> None:
    box = Outbox()
    assert box.put(latest(b"old"), pressure=True) is None
    assert box.put(durable(b"one"), pressure=True) is None
    assert box.put(volatile(b"typing"), pressure=True) is Delivery.VOLATILE
    assert box.put(latest(b"other", "j"), pressure=True) is None
    assert box.put(latest(b"new"), pressure=True) is Delivery.LATEST
    assert box.size == 11
    assert box.take(100) == [b"one", b"other", b"new"]


def test_a_value_that_has_left_is_not_replaced() -> None:
    box = Outbox()
    box.put(latest(b"1"), pressure=True)
    assert box.take(1) == [b"1"]
    assert box.put(latest(b"2"), pressure=True) is None
    assert box.take(1) == [b"2"]


def test_take_is_bounded_but_gives_at_least_one() -> None:
    box = Outbox()
    for data in (b"12345", b"67", b"8", b"9"):
        box.put(durable(data), pressure=False)
    assert box.take(1) == [b"12345"]
    assert box.take(3) == [b"67", b"8"]
    assert box.size == 1
    box.clear()
    assert box.take(3) == []
    assert box.size == 0
