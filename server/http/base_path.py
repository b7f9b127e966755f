"""Serving below a path: a proxy in front may keep the path's beginning, or take it away."""

from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage

MakeRequest = Callable[..., web.BaseRequest]


def below(base: str, make: MakeRequest) -> MakeRequest:
    """A maker of requests that leaves the base path out of their addresses, where they have it.

    So nothing behind it knows of the base path: routes, logs, metrics and rules about paths are the
    same whether the proxy keeps the base path or takes it away, and probes from inside need none.

    Args:
        base: such as `/chat`; empty changes nothing.
        make: aiohttp's own `request_factory`.
    """
    if not base:
        return make

    def without_base(message: RawRequestMessage, *others: Any) -> web.BaseRequest:
        url = message.url
        path = url.raw_path
        if path == base or path.startswith(base + "/"):
            url = url.with_path(path[len(base) :] or "/", encoded=True, keep_query=True)
            message = message._replace(url=url)
        return make(message, *others)

    return without_base
