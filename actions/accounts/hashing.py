"""Password hashes: bcrypt, in a few threads, since one takes some hundred milliseconds on purpose."""

import asyncio
import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from actions.turns import Turns

Result = TypeVar("Result")

MAX_WAITING = 64
"""Hashes that may wait for a thread; more are refused, or all would wait until they give up."""

BUSY = "Too many people log in just now; try again in a moment."

_PREHASH_KEY = b"parley password"


class PasswordHasher:
    """Hashes and verifies passwords off the event loop."""

    def __init__(
        self, cost: int, *, threads: int | None = None, max_waiting: int = MAX_WAITING
    ) -> None:
        """`cost` is bcrypt's, the logarithm of its rounds. By default one core is left free."""
        self._cost = cost
        free = threads or min(4, max(1, (os.cpu_count() or 1) - 1))
        self._turns = Turns(free, max_waiting, BUSY)
        self._pool = ThreadPoolExecutor(free, thread_name_prefix="bcrypt")
        # Of the right form and cost, and of no password: comparing with it takes as long.
        self._nobodys = bcrypt.gensalt(cost) + b"." * 31

    async def hash(self, password: bytes, key: str = "") -> str:
        """A new salted hash. Callers of different keys (network addresses) take turns.

        Raises:
            Unavailable: too many wait already.
        """
        return await self._run(
            lambda: bcrypt.hashpw(_prehash(password), bcrypt.gensalt(self._cost)).decode(), key
        )

    async def verify(self, password: bytes, hashed: str | None, key: str = "") -> bool:
        """Whether the hash is of this password. With None the same work is done for nothing, so
        that nobody can tell by the time whether there is an account.

        Raises:
            Unavailable: too many wait already.
        """
        against = hashed.encode() if hashed is not None else self._nobodys
        return await self._run(lambda: bcrypt.checkpw(_prehash(password), against), key) and (
            hashed is not None
        )

    def is_outdated(self, hashed: str) -> bool:
        """Whether a hash was made with another cost than new ones are."""
        return not hashed.startswith(f"$2b${self._cost:02d}$")

    def close(self) -> None:
        """Give up what waits, let what runs end."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], Result], key: str) -> Result:
        async with self._turns.turn(key):
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _prehash(password: bytes) -> bytes:
    """Of any length to 44 bytes without NUL: bcrypt takes 72 bytes and stops at a NUL.

    Keyed, so that plain SHA-256 hashes leaked elsewhere cannot be tried in place of passwords
    (OWASP Password Storage Cheat Sheet, "pre-hashing").
    """
    return base64.b64encode(hmac.digest(_PREHASH_KEY, password, hashlib.sha256))
