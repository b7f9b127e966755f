"""The addresses of pages for those who run the server: with everything else, apart, or nowhere."""

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from config.values import address_of
from server.http.listener import listen
from server.http.middleware import Surroundings

Address = tuple[str, int]


class CannotListen(Exception):
    """An address cannot be had; the text says which and why."""

    def __init__(self, host: str, port: int, error: OSError, setting: str) -> None:
        """`setting` is where another one is chosen."""
        if isinstance(error, socket.gaierror) or not error.errno:
            reason = error.strerror or str(error)
        else:
            reason = os.strerror(error.errno)  # without what the loop adds to it
        here = f"cannot listen on {host}:{port}: {reason}"
        if error.errno == errno.EADDRINUSE:
            here += f" (another is chosen with {setting})"
        super().__init__(here)


class Places:
    """The applications by address, besides the one that serves everybody."""

    def __init__(
        self, everybody: web.Application, surroundings: Surroundings, base_path: str = ""
    ) -> None:
        self._everybody = everybody
        self._surroundings = surroundings
        self._base_path = base_path
        self._apart: dict[Address, web.Application] = {}

    def find(self, place: str) -> web.Application | None:
        """The application for a place as settings write it: `on`, `off`, `HOST:PORT`."""
        if place == "on":
            return self._everybody
        address = address_of(place)
        if address is None:
            return None
        if address not in self._apart:
            app = web.Application(middlewares=[self._surroundings.surround])
            app.on_response_prepare.append(self._surroundings.on_prepare)
            self._apart[address] = app
        return self._apart[address]

    @asynccontextmanager
    async def serving(self, *, reuse_port: bool = False) -> AsyncIterator[None]:
        """Serve those that have an address of their own during the block.

        Raises:
            CannotListen: one of the addresses cannot be had.
        """
        async with AsyncExitStack() as stack:
            for (host, port), app in self._apart.items():
                runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
                await runner.setup()
                stack.push_async_callback(runner.cleanup)
                try:
                    listener = await listen(
                        runner, host, port, base_path=self._base_path, reuse_port=reuse_port
                    )
                except OSError as error:
                    setting = "PARLEY_METRICS or PARLEY_DOCS"
                    raise CannotListen(host, port, error, setting) from None
                stack.callback(listener.close)
            yield
