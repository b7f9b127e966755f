"""Identifiers: UUID version 7 (RFC 9562, section 5.7), so that ids sort by the time they were made."""

import hashlib
import os
import time

_AT_ONCE = 256
"""Ids for which the kernel is asked for random bits at once: a system call costs more than an id."""

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""A random hexadecimal digit with the two bits of the variant (RFC 9562, section 4.1) in front."""


class IdFactory:
    """Makes ids that strictly increase within one process.

    48 bits of Unix milliseconds, then a 12-bit counter that starts anew each millisecond
    (RFC 9562, section 6.2, method 1), then 62 random bits.
    """

    __slots__ = ("_counter", "_last_ms", "_random", "_time")

    def __init__(self) -> None:
        self._last_ms = 0
        self._time = ""
        self._counter = 0
        self._random: list[str] = []

    def forget(self) -> None:
        """Use no random bits that were asked for before."""
        self._random.clear()

    def __call__(self) -> str:
        """A new id in the canonical form of 36 characters."""
        now = time.time_ns() // 1_000_000
        if now > self._last_ms:
            self._begin(now)
        else:
            self._counter += 1
            if self._counter > 0xFFF:
                self._begin(self._last_ms + 1)
        if not self._random:
            digits = os.urandom(8 * _AT_ONCE).hex()
            self._random = [digits[place : place + 16] for place in range(0, len(digits), 16)]
        random = self._random.pop()
        return f"{self._time}{self._counter:03x}-{_VARIANT[random[0]]}{random[1:4]}-{random[4:]}"

    def _begin(self, milliseconds: int) -> None:
        self._last_ms = milliseconds
        self._counter = 0
        digits = f"{milliseconds:012x}"
        self._time = f"{digits[:8]}-{digits[8:]}-7"


new_id = IdFactory()
"""The process's one factory: ids made in one process never collide and sort as made."""


# A forked process has a copy of the random bits: with them it would make the same ids.
os.register_at_fork(after_in_child=new_id.forget)


def key_digest(*parts: str) -> str:
    """A fixed-length key for a tuple of strings, whatever they contain (128-bit BLAKE2b)."""
    text = bytearray()
    for part in parts:
        raw = part.encode()
        text += len(raw).to_bytes(4, "big")
        text += raw
    return hashlib.blake2b(text, digest_size=16).hexdigest()
