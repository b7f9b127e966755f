"""Identifiers: UUID version 7 (RFC 9562, section 5.7), so that ids sort by the time they were made."""

import hashlib
import os
import time

_POOL = 8 * 256


class IdFactory:
    """Makes ids that strictly increase within one process.

    48 bits of Unix milliseconds, then a 12-bit counter that starts anew each millisecond
    (RFC 9562, section 6.2, method 1), then 62 random bits.
    """

    __slots__ = ("_counter", "_last_ms", "_pool", "_used")

    def __init__(self) -> None:
        self._last_ms = 0
        self._counter = 0
        self._pool = b""
        self._used = 0

    def forget(self) -> None:
        """Use no random bits that were asked for before."""
        self._pool = b""
        self._used = 0

    def __call__(self) -> str:
        """A new id in the canonical form of 36 characters."""
        now = time.time_ns() // 1_000_000
        if now > self._last_ms:
            self._last_ms = now
            self._counter = 0
        else:
            self._counter += 1
            if self._counter > 0xFFF:
                self._last_ms += 1
                self._counter = 0
        # The kernel is asked for many ids' worth at a time: a system call costs more than an id.
        if self._used == len(self._pool):
            self._pool = os.urandom(_POOL)
            self._used = 0
        random = self._pool[self._used : self._used + 8]
        self._used += 8
        tail = int.from_bytes(random, "big") & 0x3FFF_FFFF_FFFF_FFFF
        value = f"{self._last_ms:012x}7{self._counter:03x}{tail | 0x8000_0000_0000_0000:016x}"
        return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"


new_id = IdFactory()
"""The process's one factory: ids made in one process never collide and sort as made."""


# A forked process has a copy of the random bits: with them it would make the same ids.
os.register_at_fork(after_in_child=new_id.forget)


def key_digest(*parts: str) -> str:
    """A fixed-length key for a tuple of strings, whatever they contain (128-bit BLAKE2b)."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "big"))
        digest.update(raw)
    return digest.hexdigest()
