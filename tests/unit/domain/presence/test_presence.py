"""How several devices make one presence."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.presence.presence import (
    ChosenStatus,
    Device,
    Profile,
    as_oneself_sees,
    as_others_see,
    merge,
)


def device(id: str, since: int = 1, **more: Any) -> Device:
    return Device(id, "login", f"2026-01-01T00:00:{since:02}.000Z", False)._replace(**more)


def chosen(status: ChosenStatus, at: int = 0, text: str | None = None) -> Profile:
    return Profile(status, text, f"2026-01-01T00:00:{at:02}.000Z")


def test_nobody_is_there() -> None:
    assert merge([], Profile()) == ("offline", 0)


def test_the_busiest_device_counts() -> None:
    online, away, busy = device("1"), device("2", status="away"), device("3", status="busy")
    assert merge([online], Profile()) == ("online", 1)
    assert merge([away], Profile()) == ("away", 1)
    assert merge([online, away], Profile()) == ("online", 2)
    assert merge([online, away, busy], Profile()) == ("busy", 3)


def test_away_when_all_are_idle() -> None:
    one, other = device("1", idle=True), device("2", idle=True)
    assert merge([one, other], Profile())[0] == "away"
    assert merge([one, other._replace(idle=False)], Profile())[0] == "online"
    assert merge([one._replace(status="busy"), other], Profile())[0] == "busy"


def test_a_device_that_went_counts_only_while_there_is_no_other() -> None:
    gone = device("1", status="busy", gone=True)
    assert merge([gone], Profile()) == ("busy", 1)
    assert merge([gone, device("2")], Profile()) == ("online", 1)


def test_a_choice_is_taken_over_by_who_comes_later() -> None:
    assert merge([device("1", since=5)], chosen("busy", at=3))[0] == "busy"
    assert merge([device("1", since=2)], chosen("busy", at=3))[0] == "online"
    assert merge([device("1", since=5, alone=True)], chosen("away", at=3))[0] == "away"
    # Away is about the device that was left, not about one beside it.
    assert merge([device("1", since=5)], chosen("away", at=3))[0] == "online"
    back = device("1", since=5, alone=True, status="online")
    assert merge([back], chosen("away", at=3))[0] == "online"


def test_the_invisible_are_offline_to_others_and_know_it_themselves() -> None:
    devices, profile = [device("1"), device("2")], chosen("invisible", text="hush")
    seen = "2026-01-01T00:00:00.000Z"
    offline = as_others_see("ann", (), Profile(), seen)
    assert as_others_see("ann", devices, profile, seen) == offline
    assert as_oneself_sees("ann", devices, profile, seen) == {
        "user": "ann",
        "status": "invisible",
        "text": "hush",
        "last_seen": None,
        "devices": 2,
    }


_RANK = ["offline", "away", "online", "busy"]
_devices = st.lists(
    st.builds(
        lambda since, status, idle, gone, alone: Device(
            f"d{since}-{status}-{idle}", "login", f"{since:04}", alone, status, idle, gone
        ),
        st.integers(0, 99),
        st.sampled_from([None, "online", "away", "busy"]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
)
_profiles = st.builds(
    Profile,
    st.sampled_from(["online", "away", "busy", "invisible"]),
    st.none(),
    st.integers(0, 99).map(lambda at: f"{at:04}"),
)


@given(_devices, _devices, _profiles)
def test_another_device_never_makes_it_less(
    some: list[Device], more: list[Device], profile: Profile
) -> None:
    there = [each for each in some if not each.gone]
    if there:
        before, _ = merge(some, profile)
        after, count = merge(some + more, profile)
        assert _RANK.index(after) >= _RANK.index(before)
        assert count == sum(not each.gone for each in some + more)


@given(_devices, _profiles)
def test_the_order_of_devices_does_not_matter(devices: list[Device], profile: Profile) -> None:
    if any(not each.gone for each in devices):
        assert merge(devices, profile) == merge(devices[::-1], profile)
    assert (merge(devices, profile)[0] == "offline") == (not devices)
