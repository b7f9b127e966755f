"""What waits to be published: order, replacement, and what goes first when it is too much."""

from hypothesis import given
from hypothesis import strategies as st

from domain.delivery import Delivery
from fanout.redis.outbox import Outbox, Waiting

DURABLE, LATEST, VOLATILE = Delivery.DURABLE, Delivery.LATEST, Delivery.VOLATILE


def message(text: str, delivery: Delivery = DURABLE, key: str = "k") -> Waiting:
    full = (b"c", key) if delivery is LATEST else None
    return Waiting(b"c", text.encode(), delivery, full)


def texts(taken: list[Waiting]) -> list[str]:
    return [each.message.decode() for each in taken]


def everything(outbox: Outbox) -> list[str]:
    return texts(outbox.take(1_000_000, 1 << 40))


def test_takes_the_oldest_first_and_no_more_than_asked_for() -> None:
    outbox = Outbox()
    for number in range(5):
        outbox.put(message(str(number)))
    assert texts(outbox.take(2, 1 << 20)) == ["0", "1"]
    assert texts(outbox.take(10, 1)) == ["2"]
    assert everything(outbox) == ["3", "4"]
    assert outbox.take(10, 10) == []
    assert outbox.bytes == 0


def test_a_newer_latest_message_takes_the_place_of_the_older() -> None:
    outbox = Outbox()
    outbox.put(message("old", LATEST))
    outbox.put(message("durable"))
    outbox.put(message("new", LATEST))
    outbox.put(message("other", LATEST, "l"))
    assert everything(outbox) == ["new", "durable", "other"]
    assert outbox.coalesced == 1


def test_latest_messages_set_aside_come_later_unless_they_are_replaced() -> None:
    outbox = Outbox()
    for waiting in (message("a", LATEST, "1"), message("durable"), message("b", LATEST, "2")):
        outbox.put(waiting)
    size = outbox.bytes
    outbox.hold_latest()
    assert outbox.bytes == size
    outbox.put(message("A", LATEST, "1"))
    assert everything(outbox) == ["durable", "A"]
    outbox.put(message("last"))
    outbox.release()
    outbox.release()
    assert everything(outbox) == ["last", "b"]
    assert outbox.coalesced == 1
    assert outbox.bytes == 0


def test_volatile_then_latest_then_durable_ones_go_the_oldest_first() -> None:
    outbox = Outbox(max_messages=3)
    for waiting in (
        message("d1"),
        message("v1", VOLATILE),
        message("l1", LATEST, "1"),
        message("v2", VOLATILE),
        message("l2", LATEST, "2"),
        message("d2"),
        message("d3"),
        message("d4"),
    ):
        outbox.put(waiting)
    assert everything(outbox) == ["d2", "d3", "d4"]
    assert outbox.dropped == {VOLATILE: 2, LATEST: 2, DURABLE: 1}


def test_bytes_are_bounded_too() -> None:
    outbox = Outbox(max_bytes=1000)
    for number in range(100):
        outbox.put(message("x" * 100 + str(number)))
        assert outbox.bytes <= 1000
    assert everything(outbox)[-1].endswith("99")


def test_what_could_not_be_sent_comes_first_again_without_what_is_of_no_use() -> None:
    outbox = Outbox()
    for waiting in (message("d1"), message("v", VOLATILE), message("old", LATEST), message("d2")):
        outbox.put(waiting)
    taken = outbox.take(4, 1 << 20)
    outbox.put(message("new", LATEST))
    outbox.put(message("d3"))
    outbox.put_back(taken)
    assert everything(outbox) == ["d1", "d2", "new", "d3"]


def test_volatile_ones_can_be_dropped_alone() -> None:
    outbox = Outbox()
    outbox.put(message("v", VOLATILE))
    outbox.put(message("d"))
    outbox.drop_volatile()
    assert everything(outbox) == ["d"]


_MESSAGES = st.tuples(st.sampled_from(list(Delivery)), st.sampled_from("abc"), st.integers(0, 60))


@given(steps=st.lists(st.one_of(_MESSAGES, st.integers(0, 6)), max_size=80))
def test_bounds_and_sums_hold_whatever_happens(
    steps: list[tuple[Delivery, str, int] | int],
) -> None:
    outbox = Outbox(max_messages=8, max_bytes=1200)
    seen: list[int] = []
    for number, step in enumerate(steps):
        if step == 5:
            outbox.hold_latest()
        elif step == 6:
            outbox.release()
        elif isinstance(step, int):
            taken = outbox.take(step, 400)
            if step % 2:
                outbox.put_back(taken)
            else:
                seen += [int(each.message[:4]) for each in taken if each.delivery is DURABLE]
        else:
            delivery, key, size = step
            outbox.put(message(f"{number:04}" + "x" * size, delivery, key))
        assert len(outbox) <= 8
        assert outbox.bytes <= 1200
    outbox.release()
    rest = outbox.take(100, 1 << 40)
    seen += [int(each.message[:4]) for each in rest if each.delivery is DURABLE]
    assert seen == sorted(set(seen))
    assert outbox.bytes == 0
    assert len(outbox) == 0
