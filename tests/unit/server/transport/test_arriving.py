"""The bound of what is on its way."""

import pytest
from structlog.testing import capture_logs

from server.transport.arriving import TELL_EVERY, Arriving, Crowded


def test_all_shares_together_have_a_bound() -> None:
    arriving = Arriving(100)
    with arriving.share(stranger=False) as one, arriving.share(stranger=False) as other:
        one.hold(60)
        other.hold(40)
        with pytest.raises(Crowded):
            other.hold(41)
        assert (arriving.held, arriving.refused) == (100, 1)
        one.hold(10)
        other.hold(90)
        other.leave()
        other.leave()
        assert arriving.held == 10
    assert arriving.held == 0


def test_strangers_have_half_of_it() -> None:
    arriving = Arriving(100)
    with arriving.share(stranger=True) as one, arriving.share(stranger=True) as other:
        one.hold(30)
        with pytest.raises(Crowded):
            other.hold(21)
        other.hold(20)
        with arriving.share(stranger=False) as known:
            known.hold(50)
        one.leave()
        other.hold(50)
    assert arriving.held == 0


def test_a_share_is_given_back_whatever_happens() -> None:
    arriving = Arriving(100)
    with arriving.share(stranger=False) as other:
        other.hold(50)
        with pytest.raises(Crowded), arriving.share(stranger=False) as share:
            share.hold(51)
    assert arriving.held == 0


def test_refusals_are_told_once_in_a_while() -> None:
    now = 0.0
    arriving = Arriving(1, clock=lambda: now)
    with capture_logs() as lines:
        for at in (0.0, 1.0, 2.0, TELL_EVERY + 1):
            now = at
            with pytest.raises(Crowded):
                arriving.share(stranger=False).hold(2)
    assert [(each["event"], each["not_logged"]) for each in lines] == [
        ("too_much_arriving", 0),
        ("too_much_arriving", 2),
    ]
