"""Stock python-socketio on aiohttp and uvloop, as its documentation sets it up.

    python server.py PORT DATABASE SECRET [REDIS_URL]

Events: join(room), pub(room, payload), send(room, payload) -> msg(payload) to the room.
`send` is acknowledged after the payload is committed to SQLite. With Redis it is one of several nodes.
"""

import asyncio
import gc
import signal
import sqlite3
import sys
from typing import Any

import jwt
import socketio
import uvloop
from aiohttp import web

NAMESPACES = ("/messages", "/presence", "/reactions")


class Log:
    """Stores payloads with the standard library's SQLite; all that wait share one commit."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, room TEXT, body TEXT)")
        self._db.execute("CREATE INDEX by_room ON messages (room, id)")
        self._waiting: list[tuple[str, str, asyncio.Future[None]]] = []

    async def store(self, room: str, body: str) -> None:
        """Return when the payload is on disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._commit)
        self._waiting.append((room, body, done))
        await done

    def _commit(self) -> None:
        batch, self._waiting = self._waiting, []
        self._db.executemany(
            "INSERT INTO messages (room, body) VALUES (?, ?)", [(r, b) for r, b, _ in batch]
        )
        self._db.commit()
        for _, _, done in batch:
            if not done.cancelled():
                done.set_result(None)


def application(database: str, secret: str, redis: str | None = None) -> web.Application:
    """The server, with the same events in every namespace."""
    server: Any = socketio.AsyncServer(
        async_mode="aiohttp",
        namespaces=list(NAMESPACES),
        client_manager=socketio.AsyncRedisManager(redis) if redis else None,
    )
    log = Log(database)

    for namespace in NAMESPACES:

        async def connect(
            sid: str, environ: dict[str, Any], auth: dict[str, str], namespace: str = namespace
        ) -> None:
            try:
                claims = jwt.decode(auth["token"], secret, algorithms=["HS256"])
            except jwt.InvalidTokenError as error:
                raise ConnectionRefusedError("unauthenticated") from error
            await server.save_session(sid, {"user": claims["sub"]}, namespace=namespace)

        async def join(sid: str, room: str, namespace: str = namespace) -> dict[str, bool]:
            await server.enter_room(sid, room, namespace=namespace)
            return {"ok": True}

        async def pub(sid: str, room: str, payload: str, namespace: str = namespace) -> None:
            await server.emit("msg", payload, room=room, namespace=namespace)

        async def send(
            sid: str, room: str, payload: str, namespace: str = namespace
        ) -> dict[str, bool]:
            await log.store(room, payload)
            await server.emit("msg", payload, room=room, namespace=namespace)
            return {"ok": True}

        for handler in (connect, join, pub, send):
            server.on(handler.__name__, handler, namespace=namespace)

    app = web.Application()
    server.attach(app)
    return app


async def main(port: int, database: str, secret: str, redis: str | None = None) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR2, gc.collect)
    runner = web.AppRunner(application(database, secret, redis), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *sys.argv[2:]))
