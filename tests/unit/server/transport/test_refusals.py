"""What is logged of refusals is bounded, and says what was left out."""

from structlog.testing import capture_logs

from server.transport.caller import Caller
from server.transport.refusals import Refusals

CALLER = Caller("192.0.2.1", "chat.example", "", "")


def test_a_window_has_ten_lines_of_each_kind() -> None:
    now = 1000.0
    said = Refusals(lambda: now)
    with capture_logs() as lines:
        for _ in range(25):
            said.say("handshake_refused", "a", CALLER)
        said.say("handshake_refused", "b", CALLER)
        assert [each["reason"] for each in lines] == ["a"] * 10 + ["b"]
        now += 60
        said.say("handshake_refused", "a", CALLER)
        assert lines[-1]["not_logged"] == 15
        now += 60
        said.say("handshake_refused", "a", CALLER)
        assert "not_logged" not in lines[-1]
        assert lines[-1]["origin"] is None
