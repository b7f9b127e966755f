"""The reference application of the Socket.IO protocol test suite, behind our transport."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from domain.accounts.accounts import network_of
from fanout.hub import Hub
from server.transport.application import Connection, ConnectRefused
from server.transport.options import TransportOptions
from server.transport.packets import encode_event
from server.transport.transport import Transport


class ReferenceApplication:
    """Echoes as the suite's reference server does, and a little more for our own tests."""

    namespaces = ("/", "/custom", "/refusing")

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self.disconnects: list[tuple[str, str]] = []
        self.events: list[tuple[str, Sequence[Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.hub: Hub

    async def connect(self, connection: Connection, auth: Any) -> None:
        if connection.namespace == "/refusing":
            raise ConnectRefused("No entry", {"code": "forbidden"})
        self.connections[connection.id] = connection
        connection.emit("auth", auth)

    async def event(
        self, connection: Connection, name: str, args: Sequence[Any]
    ) -> Sequence[Any] | None:
        self.events.append((name, args))
        if name == "message":
            connection.emit("message-back", *args)
        elif name == "message-with-ack":
            return args
        elif name == "wait":
            await self.gate.wait()
            return args
        elif name == "join":
            self.hub.join(args[0], connection)
            return []
        elif name == "close-me":
            reconnect: bool = args[0]
            connection.close("slow_consumer" if reconnect else "revoked", reconnect=reconnect)
        elif name == "cancelled":
            raise asyncio.CancelledError
        elif name == "fail":
            raise RuntimeError("on purpose")
        return None

    def unreadable(self, connection: Connection, code: str, limit: int) -> Sequence[Any]:
        return [code, limit]

    async def disconnect(self, connection: Connection, reason: str) -> None:
        del self.connections[connection.id]
        self.disconnects.append((connection.id, reason))


class ReferenceServer:
    """A running server with what a test wants to look at."""

    def __init__(self, application: ReferenceApplication, transport: Transport, port: int) -> None:
        self.application = application
        self.transport = transport
        self.hub = transport.hub
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ws_url = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
        self.polling_url = f"{self.url}/socket.io/?EIO=4&transport=polling"


@asynccontextmanager
async def serve(
    port: int = 0, *, application: ReferenceApplication | None = None, **options: Any
) -> AsyncIterator[ReferenceServer]:
    """Run the reference application on 127.0.0.1."""
    application = application or ReferenceApplication()
    application.hub = Hub(encode_event)
    transport = Transport(
        application, application.hub, TransportOptions(network=network_of, **options)
    )
    app = web.Application()
    transport.attach(app)
    app.cleanup_ctx.append(transport.run)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    bound: int = runner.addresses[0][1]
    try:
        yield ReferenceServer(application, transport, bound)
    finally:
        await runner.cleanup()


async def main(port: int) -> None:
    """Serve with the options the official suites expect, until killed."""
    async with serve(
        port,
        ping_interval=0.3,
        ping_timeout=0.2,
        connect_timeout=1.0,
        max_frame=1_000_000,
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
