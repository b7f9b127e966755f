"""Whose address a request comes from: what guessing is counted by."""

from ipaddress import ip_network
from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from server.http.middleware import client_address

PROXIES = [ip_network("10.0.0.0/8"), ip_network("127.0.0.1")]


def address(peer: str, *forwarded: str, trusted: bool = True) -> str:
    transport = Mock()
    transport.get_extra_info.return_value = (peer, 50_000)
    headers = CIMultiDict([("X-Forwarded-For", each) for each in forwarded])
    request = make_mocked_request("GET", "/", headers=headers, transport=transport)
    return client_address(request, PROXIES if trusted else [])


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
