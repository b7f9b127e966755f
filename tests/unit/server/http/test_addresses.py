"""Whose address a request comes from: what guessing is counted by."""

from ipaddress import ip_network
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from structlog.testing import capture_logs

from server.http.addresses import WARN_EVERY, Addresses

PROXIES = [ip_network("10.0.0.0/8"), ip_network("127.0.0.1")]


def asked(peer: str, *forwarded: str) -> web.Request:
    transport = Mock()
    transport.get_extra_info.return_value = (peer, 50_000)
    headers = CIMultiDict([("X-Forwarded-For", each) for each in forwarded])
    return make_mocked_request("GET", "/", headers=headers, transport=transport)


def address(peer: str, *forwarded: str, trusted: bool = True) -> str:
    return Addresses(PROXIES if trusted else []).of(asked(peer, *forwarded))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["198.51.100.9, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        ("127.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["10.1.2.3, 10.1.2.4"], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.7, nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.7:5678"], "203.0.113.7"),
        ("127.0.0.1", ["203.0.113.7:5678, 10.1.2.3:443"], "203.0.113.7"),
        ("127.0.0.1", ["[2001:db8::7]:80"], "2001:db8::7"),
        ("127.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        ("127.0.0.1", ['"[2001:db8::7]:80"'], "2001:db8::7"),
        ("127.0.0.1", ['"203.0.113.7"'], "203.0.113.7"),
        ("127.0.0.1", ["[::ffff:203.0.113.7]:80"], "203.0.113.7"),
        ("127.0.0.1", ["203.0.113.7:port"], "127.0.0.1"),
        # Whoever is no proxy may write what it likes.
        ("203.0.113.7", ["198.51.100.9"], "203.0.113.7"),
        # What a client wrote, in a line of its own before the proxy's.
        ("127.0.0.1", ["198.51.100.9", "203.0.113.7"], "203.0.113.7"),
        # IPv4 over a socket that takes both.
        ("::ffff:127.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
    ],
)
def test_the_last_address_that_no_proxy_wrote(
    peer: str, forwarded: list[str], expected: str
) -> None:
    assert address(peer, *forwarded) == expected


def test_without_proxies_nothing_forwarded_is_believed() -> None:
    assert address("127.0.0.1", "203.0.113.7", trusted=False) == "127.0.0.1"
    assert address("::ffff:203.0.113.7", trusted=False) == "203.0.113.7"
    assert address("2001:db8::7", trusted=False) == "2001:db8::7"


def test_a_proxy_that_was_forgotten_is_told_of_now_and_then() -> None:
    now = 0.0
    addresses = Addresses(PROXIES, warn=True, clock=lambda: now)
    with capture_logs() as logs:
        assert addresses.of(asked("192.0.2.1")) == "192.0.2.1"
        assert addresses.of(asked("127.0.0.1", "203.0.113.7")) == "203.0.113.7"
        assert not logs
        for _ in range(3):
            assert addresses.of(asked("192.0.2.1", "203.0.113.7")) == "192.0.2.1"
        assert [(each["event"], each["log_level"], each["peer"]) for each in logs] == [
            ("forwarded_for_not_believed", "warning", "192.0.2.1")
        ]
        now = WARN_EVERY
        addresses.of(asked("192.0.2.1", "203.0.113.7"))
        assert len(logs) == 2


def test_in_development_nothing_is_said() -> None:
    with capture_logs() as logs:
        Addresses([]).of(asked("192.0.2.1", "203.0.113.7"))
    assert not logs
