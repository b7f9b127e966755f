"""Who sent a handshake, as far as its request tells."""

import sys
from collections.abc import Callable
from typing import NamedTuple

from aiohttp import hdrs, web

_MAX_HEADER = 256


class Caller(NamedTuple):
    """Kept with a session; each text has at most 256 characters."""

    address: str
    """The network address, as `TransportOptions.address` tells it."""
    host: str
    """The `Host` that was asked for."""
    origin: str
    """The page's `Origin`, empty without one."""
    user_agent: str

    @classmethod
    def of(cls, request: web.BaseRequest, address: Callable[[web.BaseRequest], str]) -> "Caller":
        """Whoever sends `request`. What many have in common is kept once."""
        names = (hdrs.HOST, hdrs.ORIGIN, hdrs.USER_AGENT)
        texts = [sys.intern(str(request.headers.get(name, ""))[:_MAX_HEADER]) for name in names]
        return cls(address(request), *texts)
